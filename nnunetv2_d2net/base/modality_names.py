"""The names of modalities: in dataset.json, on the command line, in the names of folders."""

from collections.abc import Sequence

from nnunetv2_d2net.base.errors import UserError


def modality_names(dataset_json: dict) -> list[str]:
    """List the modalities of a data set in the order of its channels.

    Args:
        dataset_json: Content of dataset.json; ``channel_names``, or ``modality`` as older files call it, maps the
            channel's number to its name.

    Returns:
        M names, as they are written there.

    Example:
        >>> modality_names({"channel_names": {"1": "T2", "0": "FLAIR"}})
        ['FLAIR', 'T2']
    """
    channels = dataset_json["channel_names"] if "channel_names" in dataset_json else dataset_json["modality"]
    return [channels[number] for number in sorted(channels, key=int)]


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
        if not name or {"/", "\\", "+"} & set(name) or name.startswith("."):
            raise UserError(
                f"modality {name!r} cannot name a folder: "
                "leave / \\ + and a leading dot out of dataset.json's channel_names"
            )
    return "+".join(name for name, flag in zip(names, available, strict=True) if flag)


def _position(names: Sequence[str], wanted: str) -> int:
    positions = [i for i, name in enumerate(names) if name == wanted] or [
        i for i, name in enumerate(names) if name.lower() == wanted.lower()
    ]
    if len(positions) != 1:
        problem = "is no modality of this model" if not positions else "names several channels of this model"
        raise UserError(f"{wanted} {problem}: dataset.json's channel_names are {', '.join(names)}")
    return positions[0]
