"""What the label values of a source mean, and which values and regions nnU-Net gets for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_d2net.base.errors import UserError

BACKGROUND, IGNORE = "background", "ignore"
CORE, EDEMA, ENHANCING, CAVITY = "necrotic or non-enhancing core", "edema", "enhancing tumor", "resection cavity"
_LARGEST = 254  # nnU-Net writes segmentations with 8 bits below 255


@dataclass(frozen=True)
class LabelScheme:
    """Label values of a source and of the data set made from it.

    Attributes:
        names: What each value of the source means; 0 is always the background.
        values: The value that each value of the source becomes: consecutive numbers, as nnU-Net demands.
        labels: ``labels`` of dataset.json; the order matters, nnU-Net pairs it with ``regions_class_order``.
        regions_class_order: For nnU-Net, or None where every label is a class.
        optional: Entries of ``labels`` that are left out where no case has their value.
    """

    names: dict[int, str]
    values: dict[int, int]
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None
    optional: frozenset[str] = frozenset()

    def described(self, seen: Iterable[int]) -> dict:
        """Return ``labels`` and ``regions_class_order`` of dataset.json.

        Args:
            seen: Values of the source that occur in the cohort.
        """
        targets = {self.values[value] for value in seen}
        left_out = {name for name in self.optional if self.labels[name] not in targets}
        content: dict = {"labels": {name: value for name, value in self.labels.items() if name not in left_out}}
        if self.regions_class_order is not None:
            gone = [self.labels[name] for name in left_out]
            content["regions_class_order"] = [value for value in self.regions_class_order if value not in gone]
        return content


def make_scheme(
    names: Mapping[int, str], regions: Mapping[str, Sequence[str]] | None = None, optional: Iterable[str] = ()
) -> LabelScheme:
    """Number the labels from 1 in the order in which their names appear first.

    Args:
        names: What each value of the source means; values of the same name are merged. ``background`` becomes 0 and
            ``ignore``, which nnU-Net does not train on, the highest number.
        regions: The labels of each region, large regions first; None makes every label a class.
        optional: Regions of one label that are left out where no case has it.

    Raises:
        UserError: Names or regions that nnU-Net cannot tell apart, without the name of a file.

    Example:
        >>> make_scheme({1: "core", 2: "edema", 4: "core"}).values
        {0: 0, 1: 1, 2: 2, 4: 1}
    """
    names = {0: BACKGROUND, **names}
    if names[0] != BACKGROUND:
        raise UserError(f"label value 0 is called {names[0]!r}: 0 is always the background")
    foreground = [name for name in dict.fromkeys(names.values()) if name not in (BACKGROUND, IGNORE)]
    if not foreground:
        raise UserError("no label but background: name at least one label value")
    if len(foreground) >= _LARGEST:
        raise UserError(f"{len(foreground)} labels: nnU-Net's files hold at most {_LARGEST - 1}")
    numbers = {BACKGROUND: 0} | {name: number for number, name in enumerate(foreground, 1)}
    ignored = {IGNORE: len(numbers)} if IGNORE in names.values() else {}
    numbers |= ignored
    values = {value: numbers[name] for value, name in names.items()}
    if regions is None:
        return LabelScheme(names, values, {**numbers}, None)
    members = {region: _numbers_of(region, labels, numbers) for region, labels in regions.items()}
    _check_covered(members, {name: numbers[name] for name in foreground})
    labels = {region: group[0] if len(group) == 1 else group for region, group in members.items()}
    order = _class_order(members, {number: name for name, number in numbers.items()})
    return LabelScheme(names, values, {BACKGROUND: 0, **labels, **ignored}, order, frozenset(optional))


def inverse_of(values: dict[int, int]) -> dict[int, int]:
    """Map values of a data set to those of its source; of several that were merged, the first.

    Example:
        >>> inverse_of({0: 0, 1: 1, 4: 2, 5: 2})
        {2: 4, 1: 1, 0: 0}
    """
    return {target: source for source, target in reversed(values.items())} | {0: 0}


def _numbers_of(region: str, labels: Sequence[str], numbers: Mapping[str, int]) -> list[int]:
    if region in (BACKGROUND, IGNORE):
        raise UserError(f"a region cannot be called {region}: choose another name")
    unknown = [name for name in labels if name in (BACKGROUND, IGNORE) or name not in numbers]
    if unknown or not labels:
        known = ", ".join(name for name in numbers if name not in (BACKGROUND, IGNORE))
        raise UserError(f"region {region!r} holds {unknown[0] if unknown else 'nothing'!r}: list some of {known}")
    return sorted({numbers[name] for name in labels})


def _check_covered(members: Mapping[str, Sequence[int]], foreground: Mapping[str, int]) -> None:
    covered = {number for group in members.values() for number in group}
    outside = [name for name, number in foreground.items() if number not in covered]
    if outside:
        raise UserError(f"label {outside[0]!r} is in no region: add it to one, or call its value {BACKGROUND}")


def _class_order(members: Mapping[str, Sequence[int]], names: Mapping[int, str]) -> list[int]:
    """Say which label a voxel gets from each region; nnU-Net lets later regions overwrite earlier ones."""
    order, regions = [], list(members.items())
    for position, (region, group) in enumerate(regions):
        later = {number for _, other in regions[position + 1 :] for number in other}
        own = [number for number in group if number not in later]
        if len(own) != 1:
            what = " and ".join(repr(names[n]) for n in own) or "nothing"
            raise UserError(
                f"region {region!r} holds {what} beside the regions after it, nnU-Net needs exactly one label: list "
                "large regions first, and give each label a region that ends with it"
            )
        order.append(own[0])
    return order
