"""Which files of a folder belong to which case and modality."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.errors import UserError

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})", re.DOTALL)
_OTHER_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".png", ".bmp", ".tif", ".tiff")


class FoundCases(NamedTuple):
    """What a folder holds.

    Attributes:
        files: The image files that each case has, in the order of the channels, by case.
        problems: One line for each case that cannot be used, by case.
    """

    files: dict[str, list[str]]
    problems: dict[str, str]


def find_cases(folder: Path, file_ending: str, n_modalities: int) -> FoundCases:
    """List the cases of a folder such as ``imagesTs``; any of a case's files may be absent.

    Args:
        folder: Holds files named ``CASE_XXXX`` and the file ending, where XXXX is the number of the modality.
        file_ending: That of the data set the model was trained on.
        n_modalities: M.

    Raises:
        UserError: The folder cannot be read, or holds no such file.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith((*_OTHER_ENDINGS, file_ending)))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): pass a folder of images") from error
    slots: dict[str, dict[str, list[Path]]] = {}
    for path in paths:
        case, channel = _parse(path.name, file_ending)
        if not channel and not path.name.endswith(file_ending):
            continue  # a picture of something else; nnU-Net passes over it, too
        slots.setdefault(case, {}).setdefault(channel, []).append(path)
    if not slots:
        raise UserError(f"{folder} holds no image: name them CASE_0000{file_ending}, CASE_0001{file_ending}, ...")
    problems = {case: problem for case, s in slots.items() if (problem := _problem(s, file_ending, n_modalities))}
    files = {c: [str(s[channel][0]) for channel in sorted(s)] for c, s in slots.items() if c not in problems}
    return FoundCases(files, {case: f"case {case!r}: {problem}" for case, problem in problems.items()})


def assign_channels(files: Sequence[str], n_modalities: int) -> list[int]:
    """Tell which modality each file of one case holds.

    Args:
        files: Either named with ``_XXXX``, any number; or one per modality, in their order, called otherwise.
        n_modalities: M.

    Raises:
        UserError: Fewer files of which one does not say its modality, an unknown modality, or one twice.
    """
    parsed = [_match(file) for file in files]
    alike = len({match["case"] for match in parsed if match}) == 1 and all(parsed)
    if len(files) == n_modalities and not alike:
        return list(range(n_modalities))
    channels = []
    for file, match in zip(files, parsed, strict=True):
        if not match:
            raise UserError(f"{file} does not say which modality it is: name it CASE_XXXX, or pass all {n_modalities}")
        channels.append(int(match["channel"]))
        if channels[-1] >= n_modalities:
            raise UserError(f"{file} has an unknown channel number: this model knows 0000 to {n_modalities - 1:04d}")
    if len(set(channels)) < len(channels):
        raise UserError(f"{', '.join(map(str, files))}: several files for one modality: keep one of each")
    return channels


def _match(file: str) -> re.Match[str] | None:
    name = Path(file).name
    return next((m for ending in _OTHER_ENDINGS if (m := _CHANNEL.fullmatch(name.removesuffix(ending)))), None)


def _parse(name: str, file_ending: str) -> tuple[str, str]:
    """Split a file name into case and channel; the channel is empty where the name has none."""
    endings = sorted((file_ending, *_OTHER_ENDINGS), key=len, reverse=True)
    stem = name.removesuffix(next(ending for ending in endings if name.endswith(ending)))
    match = _CHANNEL.fullmatch(stem)
    return (match["case"], match["channel"]) if match else (stem, "")


def _problem(slots: dict[str, list[Path]], file_ending: str, n_modalities: int) -> str | None:
    paths = [path for group in slots.values() for path in group]
    return next((problem for path in paths if (problem := _file_problem(path, file_ending))), None) or (
        _slot_problem(slots, n_modalities)
    )


def _slot_problem(slots: dict[str, list[Path]], n_modalities: int) -> str | None:
    for channel, paths in slots.items():
        if not channel:
            return f"{paths[0]} has no channel number: rename it, the first modality is _0000"
        if int(channel) >= n_modalities:
            known = f"0000 to {n_modalities - 1:04d}"
            return f"{paths[0]} has the unknown channel number {channel}: this model knows {known}, rename or remove it"
    return None


def _file_problem(path: Path, file_ending: str) -> str | None:
    if not path.name.isprintable():
        return f"the file name {path.name!r} has characters that cannot be printed: rename it"
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file (a broken link?)"
        return f"{path} is {what}: put the image there, or remove it"
    twin = _twin(path, file_ending)
    if twin:
        return f"{path} and {twin} are the same modality: remove one"
    if not path.name.endswith(file_ending):
        return f"{path} does not end in {file_ending}, as the model's data do: convert it"
    return None


def _twin(path: Path, file_ending: str) -> Path | None:
    stem = next(path.name.removesuffix(e) for e in (file_ending, *_OTHER_ENDINGS) if path.name.endswith(e))
    others: Iterable[Path] = (path.with_name(stem + e) for e in dict.fromkeys((file_ending, *_OTHER_ENDINGS)))
    return next((other for other in others if other != path and other.exists()), None)
