"""The data set as one value: channels, regions, labels, and which file is which channel of which case.

Every question of this kind is answered here: for training and prediction, for what is inspected, scored and reported.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import check_key, is_left_over, no_file, read_json, whole_name
from nnunetv2_d2net.base.text import counted

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})", re.DOTALL)
_OTHER_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".png", ".bmp", ".tif", ".tiff")
_HOLDS = {
    "nnUNet_raw": "the data sets",
    "nnUNet_preprocessed": "plans and preprocessed data",
    "nnUNet_results": "the trained models",
}
_CHANNELS_EXAMPLE = '{"0": "FLAIR", "1": "T1"}'


class CaseFiles(NamedTuple):
    """Files of one case.

    Attributes:
        images: Those there are, in the order of the channels.
        label: Of its segmentation; None if there is none.
        problem: Why its images cannot be told apart; empty if they can.
    """

    images: tuple[str, ...]
    label: str | None = None
    problem: str = ""


class FoundCases(NamedTuple):
    """What a folder holds.

    Attributes:
        files: The image files that each case has, in the order of the channels, by case.
        problems: One line for each case that cannot be used, by case.
    """

    files: dict[str, list[str]]
    problems: dict[str, str]


@dataclass(frozen=True)
class Dataset:
    """What a dataset.json says.

    Attributes:
        channels: M names of the modalities, in the order of the channels.
        numbers: Of the channels, as its keys say, ascending: 0, 1, ... unless there are gaps.
        regions: Label values of each foreground label or region, in the file's order.
        ignore: Label of voxels without an annotation; None if there is no such.
        file_ending: Of images and labels.
        content: All of the file.
        source: Where it stands, for messages.
    """

    channels: tuple[str, ...]
    numbers: tuple[int, ...]
    regions: dict[str, tuple[int, ...]]
    ignore: int | None
    file_ending: str
    content: Mapping[str, Any]
    source: str = "dataset.json"

    @classmethod
    def read(cls, path: Path, remedy: str = "a data set of nnU-Net needs it") -> "Dataset":
        """Read a dataset.json.

        Raises:
            UserError: It is missing or damaged, or lacks something.
        """
        return cls.of(read_json(path, remedy), str(path), remedy)

    @classmethod
    def of(
        cls,
        content: Mapping[str, Any],
        source: str = "dataset.json",
        remedy: str = "add it as nnU-Net's format says",
        *,
        only_labels: bool = False,
    ) -> "Dataset":
        """Take the content of a dataset.json.

        Args:
            content: The object.
            source: Where it comes from.
            remedy: What to do where it lacks something.
            only_labels: Do without names of channels and the order of regions, where segmentations are all there is.

        Raises:
            UserError: It lacks channels, labels or the file ending, or they have another form than nnU-Net can use.

        Example:
            >>> labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
            >>> rest = {"regions_class_order": [1, 2], "file_ending": ".nii.gz"}
            >>> found = Dataset.of({"channel_names": {"0": "T1"}, "labels": labels, **rest})
            >>> found.regions, found.ignore, found.known_values
            ({'whole': (1, 2), 'core': (2,)}, 3, (0, 1, 2, 3))
        """
        is_unnamed = only_labels and not {"channel_names", "modality"} & content.keys()
        numbers = {} if is_unnamed else _numbered_channels(content, source)
        check_key(content, "labels", dict, source, remedy)
        check_key(content, "file_ending", str, source, remedy)
        if "dataset" in content:
            check_key(content, "dataset", dict, source, remedy)
        labels = content["labels"]
        problem = _label_problem(labels) or ("" if only_labels else _order_problem(labels, content))
        if problem:
            raise UserError(f"{source}: {problem}: {remedy}")
        regions = {n: _values(value) for n, value in labels.items() if n not in ("background", "ignore")}
        ignore, ending = labels.get("ignore"), content["file_ending"]
        return cls(tuple(numbers.values()), tuple(numbers), regions, ignore, ending, content, source)

    @property
    def known_values(self) -> tuple[int, ...]:
        """Label values that may occur, background and ignored ones included, sorted."""
        ignored = () if self.ignore is None else (self.ignore,)
        return tuple(sorted({0, *ignored, *(value for values in self.regions.values() for value in values)}))

    @property
    def complete(self) -> str:
        """Name of the subset of all modalities."""
        return subset_name([True] * len(self.channels), self.channels)

    def find_cases(self, folder: Path) -> FoundCases:
        """List the cases of a folder such as ``imagesTs``; any of a case's files may be absent.

        Args:
            folder: Holds files named ``CASE_XXXX`` and the file ending, where XXXX is the number of the modality.

        Raises:
            UserError: The folder cannot be read, or holds no such file.
        """
        return _find_cases(folder, self.file_ending, self.numbers)

    def reading_of(self, cases: Mapping[str, Sequence[str]], n_shown: int = 8) -> list[str]:
        """Say which file is taken for which modality of which case.

        Args:
            cases: Files named ``CASE_XXXX``, by case.
            n_shown: How many cases to show.

        Returns:
            How many cases have each modality, and the first cases, a line for each.

        Example:
            >>> content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0}}
            >>> Dataset.of(content | {"file_ending": ".nii.gz"}).reading_of({"a": ["in/a_0001.nii.gz"]})
            ['1 case: T1 (_0000) of 0, T2 (_0001) of 1', "case 'a': T2 = a_0001.nii.gz"]
        """
        assigned = {case: dict(zip(self.assign_channels(files), files, strict=True)) for case, files in cases.items()}
        counts = [sum(channel in files for files in assigned.values()) for channel in range(len(self.channels))]
        described = zip(self.channels, self.numbers, counts, strict=True)
        parts = [f"{name} (_{number:04d}) of {n}" for name, number, n in described]
        lines = [f"{counted(len(cases), 'case')}: {', '.join(parts)}"]
        for case, files in list(assigned.items())[:n_shown]:
            shown = (f"{self.channels[channel]} = {Path(file).name}" for channel, file in files.items())
            lines.append(f"case {case!r}: {', '.join(shown)}")
        return lines

    def segmentations(self, folder: Path) -> dict[str, Path]:
        """List the segmentations of a folder such as ``labelsTr``, by case; none where there is no folder.

        Raises:
            UserError: The folder cannot be read.
        """
        if not folder.is_dir():
            return {}
        ending = self.file_ending
        try:
            paths = sorted(p for p in folder.iterdir() if _ends_in(p.name, ending) and not p.name.startswith("."))
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror}): pass a folder of segmentations") from error
        return {path.name[: len(path.name) - len(ending)]: path for path in paths if path.is_file()}

    def cases(self, folder: Path, split: str) -> dict[str, CaseFiles]:
        """List the cases of a raw data set, sorted by name.

        Args:
            folder: ``DatasetXXX_NAME``.
            split: ``Tr`` or ``Ts``.

        Raises:
            UserError: A folder cannot be read, or there is no image.
        """
        if split == "Tr" and "dataset" in self.content:
            return dict(sorted(self._listed_cases(folder).items()))
        found = self.find_cases(folder / f"images{split}")
        labels = {case: str(path) for case, path in self.segmentations(folder / f"labels{split}").items()}
        cases = {case: CaseFiles((), label) for case, label in labels.items()}
        cases |= {case: CaseFiles(tuple(files), labels.get(case)) for case, files in found.files.items()}
        cases |= {case: CaseFiles((), labels.get(case), problem) for case, problem in found.problems.items()}
        return dict(sorted(cases.items()))

    def training_cases(self, folder: Path) -> list[str]:
        """Name the cases that nnU-Net trains on: those with a segmentation, or those that the data set lists."""
        if "dataset" in self.content:
            return sorted(map(str, self._listed_cases(folder)))
        return sorted(self.segmentations(folder / "labelsTr"))

    def assign_channels(self, files: Sequence[str]) -> list[int]:
        """Tell which modality each file of one case holds; see :func:`assign_channels`."""
        return assign_channels(files, len(self.channels), self.file_ending, self.numbers)

    def available(self, keep: Sequence[str] | None = None, drop: Sequence[str] | None = None) -> tuple[bool, ...]:
        """Say which modalities may be seen; see :func:`available_from_names`."""
        return available_from_names(self.channels, keep, drop)

    def subset_name(self, available: Sequence[bool]) -> str:
        """Name a subset; see :func:`subset_name`."""
        return subset_name(available, self.channels)

    def _listed_cases(self, folder: Path) -> dict[str, CaseFiles]:
        """Cases of a data set's own list of files, which may lie anywhere; paths as nnU-Net resolves them."""
        remedy = 'it lists "images" and a "label" for each case'
        found = {}
        for case, files in self.content["dataset"].items():
            where = f'{self.source}: case {case!r} in "dataset"'
            if not isinstance(files, dict):
                raise UserError(f"{where} is no object: {remedy}")
            check_key(files, "images", list, where, remedy)
            check_key(files, "label", str, where, remedy)
            images = tuple(_resolved(folder, str(file)) for file in files["images"])
            found[str(case)] = CaseFiles(images, _resolved(folder, files["label"]))
        return found


def channels_of(content: Mapping[str, Any], source: str = "dataset.json") -> tuple[str, ...]:
    """Name the modalities of a data set in the order of its channels.

    Args:
        content: Of dataset.json; ``channel_names``, or ``modality`` as older files call it, maps the channel's number
            to its name.
        source: Where it comes from.

    Raises:
        UserError: It does not name them.

    Example:
        >>> channels_of({"channel_names": {"1": "T2", "0": "FLAIR"}})
        ('FLAIR', 'T2')
    """
    return tuple(_numbered_channels(content, source).values())


def _numbered_channels(content: Mapping[str, Any], source: str) -> dict[int, str]:
    """Names of the modalities by number, ascending, which is the order in which nnU-Net takes a case's files."""
    key, remedy = "channel_names" if "channel_names" in content else "modality", f"write it as {_CHANNELS_EXAMPLE}"
    if key not in content:
        raise UserError(f'{source} lacks "channel_names" such as {_CHANNELS_EXAMPLE}: add it')
    check_key(content, key, dict, source, remedy)
    channels = content[key]
    for number in channels:
        check_key(channels, number, (str, int, float), f'{source}: "{key}"', remedy)
    if not channels:
        raise UserError(f'{source}: "{key}" names no channel: {remedy}')
    if not all(str(number).isdecimal() for number in channels):
        if all(str(name).isdecimal() for name in channels.values()):
            raise UserError(f'{source}: "{key}" has names and numbers swapped: {remedy}')
        raise UserError(f'{source}: "{key}" has keys that are no numbers of channels: {remedy}')
    names = {int(number): str(channels[number]) for number in sorted(channels, key=int)}
    if len(names) < len(channels):
        raise UserError(f'{source}: "{key}" has a number twice: {remedy}')
    other = content.get("modality", channels)
    if not isinstance(other, dict) or len(other) != len(names):  # nnU-Net counts the channels by it
        raise UserError(f'{source}: "channel_names" and "modality" differ: remove "modality"')
    return names


def available_from_names(
    names: Sequence[str], keep: Sequence[str] | None = None, drop: Sequence[str] | None = None
) -> tuple[bool, ...]:
    """Say which modalities prediction may see.

    Args:
        names: The M modalities of the data set, in the order of the channels.
        keep: Names of the available modalities, in any order and case; None for all.
        drop: Names of the absent modalities, likewise; None for none.

    Returns:
        M flags, True for an available modality.

    Raises:
        UserError: A name that the data set lacks or has twice, or no modality left.

    Example:
        >>> available_from_names(["FLAIR", "T1", "T2"], drop=["t1"])
        (True, False, True)
    """
    kept = set(range(len(names))) if keep is None else {_position(names, name) for name in keep}
    kept -= {_position(names, name) for name in drop or ()}
    if not kept:
        raise UserError(f"every modality is dropped: leave at least one of {', '.join(names)}")
    return tuple(position in kept for position in range(len(names)))


def subset_name(available: Sequence[bool], names: Sequence[str]) -> str:
    """Name a subset by its modalities, as its folder is called.

    Args:
        available: M flags.
        names: M modality names.

    Raises:
        UserError: A name that cannot be part of a folder's name.

    Example:
        >>> subset_name([True, False, True], ["FLAIR", "T1", "T1ce"])
        'FLAIR+T1ce'
    """
    for name in names:
        if not can_name_folder(name):
            raise UserError(
                f"modality {name!r} cannot name a folder: "
                "leave / \\ + and a leading dot out of dataset.json's channel_names"
            )
    return "+".join(name for name, flag in zip(names, available, strict=True) if flag)


def can_name_folder(modality: str) -> bool:
    """Tell whether a modality's name can be part of the name of a subset's folder."""
    return bool(modality) and not {"/", "\\", "+"} & set(modality) and not modality.startswith(".")


def assign_channels(
    files: Sequence[str], n_modalities: int, file_ending: str = "", numbers: Sequence[int] | None = None
) -> list[int]:
    """Tell which modality each file of one case holds.

    Args:
        files: Either named with ``_XXXX``, any number; or one per modality, in their order, called otherwise.
        n_modalities: M.
        file_ending: Of the data set, where it is an unusual one.
        numbers: Of the M channels, ascending; None for 0, 1, ...

    Raises:
        UserError: Fewer files of which one does not say its modality, an unknown modality, or one twice.
    """
    parsed = [_match(file, file_ending) for file in files]
    alike = len({match["case"] for match in parsed if match}) == 1 and all(parsed)
    if len(files) == n_modalities and not alike:
        return list(range(n_modalities))
    for file, match in zip(files, parsed, strict=True):
        if not match:
            raise UserError(f"{file} does not say which modality it is: name it CASE_XXXX, or pass all {n_modalities}")
    found = [int(match["channel"]) for match in parsed if match]
    positions = _positions(found, range(n_modalities) if numbers is None else numbers)
    for file, number in zip(files, found, strict=True):
        if number not in positions:
            raise UserError(f"{file} has an unknown channel number: this model knows {_known(tuple(positions))}")
    if len(set(found)) < len(found):
        raise UserError(f"{', '.join(map(str, files))}: several files for one modality: keep one of each")
    return [positions[number] for number in found]


def _positions(found: Sequence[int], numbers: Sequence[int]) -> dict[int, int]:
    """Which channel each number stands for: those of dataset.json, or for a complete case 0, 1, ..., as for nnU-Net."""
    n = len(numbers)
    return dict(enumerate(range(n))) if sorted(found) == list(range(n)) else {m: i for i, m in enumerate(numbers)}


def _known(numbers: Sequence[int]) -> str:
    gapless = len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1
    shown = (numbers[0], numbers[-1]) if gapless else numbers
    return (" to " if gapless else ", ").join(f"{number:04d}" for number in shown)


def dataset_number(folder_name: str) -> int:
    """Return the number in ``DatasetXXX_NAME``."""
    return int(folder_name.removeprefix("Dataset").partition("_")[0])


def folder_of(variable: str) -> Path:
    """Return the folder that one of nnU-Net's environment variables names.

    Raises:
        UserError: The variable is not set.
    """
    folder = os.environ.get(variable)
    if not folder:
        raise UserError(f"{variable} is not set: export {variable}=/path/to/{variable} (it holds {_HOLDS[variable]})")
    return Path(folder)


def refuse_taken_number(roots: Iterable[Path], folder_name: str) -> None:
    """Refuse a number that another data set has; nnU-Net could tell them apart no more.

    Args:
        roots: Where to look, beside ``nnUNet_preprocessed`` and ``nnUNet_results``.
        folder_name: Of the data set.

    Raises:
        UserError: Such a data set.
    """
    number = dataset_number(folder_name)
    others = (os.environ.get(variable) for variable in ("nnUNet_preprocessed", "nnUNet_results"))
    for root in (*roots, *(Path(folder) for folder in others if folder)):
        for other in sorted(root.glob(f"Dataset{number:03d}_*")):
            if other.name != folder_name and other.is_dir():
                raise UserError(f"{other} has the number {number} already: choose another -d, or remove it")


def dataset_folder_name(number: int, name: str) -> str:
    """Return ``DatasetXXX_NAME``.

    Raises:
        UserError: The number or the name is out of range.
    """
    if not 1 <= number <= 999:
        raise UserError(f"data set ID {number} is out of range: choose -d between 1 and 999")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"name {name!r} cannot be a folder's: choose --name of letters, digits, - and _")
    return f"Dataset{number:03d}_{name}"


def _label_problem(labels: Mapping[str, Any]) -> str:
    """Say why nnU-Net cannot use labels; nothing if it can."""
    for name, value in labels.items():
        if not _is_label(value) or (name == "ignore" and not isinstance(value, int)):
            return f'"labels": label {name!r} is {value!r}, not a whole number or a list of them'
    if labels.get("background") != 0:
        return '"labels" has no "background" that is 0'
    others = {value for name, values in labels.items() if name != "ignore" for value in _values(values)}
    if labels.get("ignore", max(others) + 1) != max(others) + 1:
        return "\"labels\": label 'ignore' is not the one after the largest other"
    return ""


def _order_problem(labels: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Say what is wrong with the values of classes, or with the order in which nnU-Net writes regions."""
    if all(len(_values(value)) == 1 for value in labels.values()):
        values = sorted({value for of in labels.values() for value in _values(of)})
        said = f'"labels" are not numbered from 0 without gaps ({", ".join(map(str, values))})'
        return "" if values == list(range(len(values))) else f"{said}, which is to be so in the segmentations, too"
    order = content.get("regions_class_order")
    n = sum(name != "ignore" and set(_values(value)) != {0} for name, value in labels.items())
    if isinstance(order, list) and len(order) == n and all(map(_is_label, order)):
        return ""
    return f'"regions_class_order" is not a list of {counted(n, "whole number")}, one for each region'


def _is_label(value: object) -> bool:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)


def _values(value: int | list[int] | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _resolved(folder: Path, file: str) -> str:
    expanded = os.path.expandvars(file)
    return expanded if Path(expanded).is_absolute() else os.path.abspath(folder / expanded)  # noqa: PTH100 - as nnU-Net


def _position(names: Sequence[str], wanted: str) -> int:
    positions = [i for i, name in enumerate(names) if name == wanted] or [
        i for i, name in enumerate(names) if name.lower() == wanted.lower()
    ]
    if len(positions) != 1:
        problem = "is no modality of this model" if not positions else "names several channels of this model"
        raise UserError(f"{wanted} {problem}: dataset.json's channel_names are {', '.join(names)}")
    return positions[0]


def _find_cases(folder: Path, file_ending: str, numbers: Sequence[int]) -> FoundCases:
    try:
        named = [path for path in folder.iterdir() if _split(whole_name(path.name), file_ending)[1]]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): pass a folder of images") from error
    slots: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(path for path in named if not is_left_over(path)):
        case, channel = _parse(whole_name(path.name), file_ending)
        if not channel and not _ends_in(path.name, file_ending):
            continue  # a picture of something else; nnU-Net passes over it, too
        slots.setdefault(case, {}).setdefault(channel, []).append(path)
    if not slots:
        raise UserError(f"{folder} holds no image: name them CASE_0000{file_ending}, CASE_0001{file_ending}, ...")
    problems = {case: problem for case, s in slots.items() if (problem := _problem(s, file_ending, numbers))}
    files = {c: [str(s[channel][0]) for channel in sorted(s)] for c, s in slots.items() if c not in problems}
    return FoundCases(files, {case: f"case {case!r}: {problem}" for case, problem in problems.items()})


def _match(file: str, file_ending: str) -> re.Match[str] | None:
    return _CHANNEL.fullmatch(_split(Path(file).name, file_ending)[0])


def _split(name: str, file_ending: str) -> tuple[str, str]:
    """Split a file's name before its ending, which may be in any case; the ending is empty where it is unknown."""
    endings = sorted((file_ending, *_OTHER_ENDINGS), key=len, reverse=True)
    length = next((len(ending) for ending in endings if ending and _ends_in(name, ending)), 0)
    return name[: len(name) - length], name[len(name) - length :]


def _ends_in(name: str, ending: str) -> bool:
    return name.lower().endswith(ending.lower())


def _parse(name: str, file_ending: str) -> tuple[str, str]:
    """Split a file name into case and channel; the channel is empty where the name has none."""
    stem, _ = _split(name, file_ending)
    match = _CHANNEL.fullmatch(stem)
    return (match["case"], match["channel"]) if match else (stem, "")


def _problem(slots: dict[str, list[Path]], file_ending: str, numbers: Sequence[int]) -> str | None:
    paths = [(path, group) for group in slots.values() for path in group]
    return next((problem for path, group in paths if (problem := _file_problem(path, group, file_ending))), None) or (
        _slot_problem(slots, file_ending, numbers)
    )


def _slot_problem(slots: dict[str, list[Path]], file_ending: str, numbers: Sequence[int]) -> str | None:
    known = _positions([int(channel) for channel in slots if channel], numbers)
    for channel, paths in slots.items():
        if not channel:
            return f"{paths[0]} has no channel number: rename it, the first modality is _0000"
        if int(channel) not in known:
            stem, ending = _split(paths[0].name, file_ending)
            return (
                f"{paths[0]} has the unknown channel number {channel} (this model knows "
                f"{_known(tuple(known))}): if it is the patient's number, put that of the modality behind each name, "
                f"as {stem}_0000{ending} for the first modality; otherwise take this file out"
            )
    return None


def _file_problem(path: Path, group: Sequence[Path], file_ending: str) -> str | None:
    if not path.name.isprintable():
        return f"the file name {path.name!r} has characters that cannot be printed: rename it"
    if lacking := no_file(path):
        return lacking
    twin = next((other for other in group if other != path), None)
    if twin:
        return f"{path} and {twin} are the same modality: remove one"
    if not _ends_in(path.name, file_ending):
        return f"{path} does not end in {file_ending}, as the model's data do: convert it"
    return None
