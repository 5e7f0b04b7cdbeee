"""Which image below a patient's folder is which sequence, by the names of files and the scanner's of DICOM series."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.dicom import Series, find_series
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import is_left_over, whole_name
from nnunetv2_d2net.base.modality_names import modalities_beside, modalities_of, words_of
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.data.convert.cases import other_images, walk

_LOG = logging.getLogger("nnunetv2_d2net")

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Of the files that are taken for images; DICOM may be called anyhow."""

_NO_AGENT = {"", "no", "none", "nein", "keines", "ohne", "n", "na", "sans", "sin", "0"}
"""How ContrastBolusAgent begins where there is none."""


class FoundSequences(NamedTuple):
    """What a patient's folder holds.

    Attributes:
        images: File or series by sequence, in the order of the model's channels.
        passed_over: Images that are none of the sequences, such as segmentations and localizers.
    """

    images: dict[str, Path | Series]
    passed_over: list[Path | Series]


def find_sequences(folder: Path, channels: Sequence[str], named: Collection[str] = ()) -> FoundSequences:
    """Find a patient's sequences; files of different folders, and those of other formats, are told in the log.

    Args:
        folder: Holds them at any depth.
        channels: Names of the sequences that the model knows.
        named: Those that the user has given elsewhere, which are not looked for; with their files, those are no others.

    Raises:
        UserError: It is no folder, or holds none of the sequences, two of one, or an image that may be two.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: pass that of one patient, or each file, {_options(channels)}")
    found, unread = _images_below(folder)
    given = {Path(file).absolute() for file in named.values()} if isinstance(named, Mapping) else set()
    left = [image for image in found if given.isdisjoint(path.absolute() for path in _places(image))]
    fitting = {image: _channels_of(image, channels, folder, left) for image in left}
    images = {}
    for channel in (channel for channel in channels if channel not in named):
        candidates = [image for image, fits in fitting.items() if channel in fits]
        unclear = next((image for image in candidates if len(fitting[image]) > 1), None)
        if unclear is not None:
            may_be = " or ".join(fitting[unclear])
            by = "description, protocol and contrast agent" if isinstance(unclear, Series) else "name"
            raise UserError(f"{unclear} may be {may_be} by its {by}: say which image is which, {_options(channels)}")
        if len(candidates) > 1:
            which = " or ".join(map(str, candidates))
            raise UserError(f"{folder}: {channel} may be {which}: say which, {_options([channel])}")
        if candidates:
            images[channel] = candidates[0]
    passed_over = [image for image, fits in fitting.items() if not fits]
    if not images and not named:
        there = listed([str(image) for image in (*passed_over, *unread)]) or "no image"
        known = f"nothing called like {', '.join(channels)}"
        remedy = f"{_how_to_read(unread)}, or " if unread else ""
        remedy += f"say which image is which, {_options(channels)}"
        raise UserError(f"{folder} holds {known} (there: {there}): {remedy}")
    _tell_folders(images)
    if unread:
        _LOG.warning("not read: %s: %s what is of this patient", listed(unread), _how_to_read(unread))
    return FoundSequences(images, passed_over)


def described(images: Mapping[str, object], channels: Sequence[str]) -> list[str]:
    """Say what was taken for which sequence, a line each, and what is absent."""
    return [f"{channel} = {images[channel]}" if channel in images else f"{channel} is absent" for channel in channels]


def _tell_folders(images: Mapping[str, Path | Series]) -> None:
    folders = sorted({image.parent for image in images.values() if isinstance(image, Path)})
    if len(folders) > 1:
        _LOG.warning("the images lie in different folders, %s: see that they belong together", listed(folders))


def _images_below(folder: Path) -> tuple[list[Path | Series], list[Path]]:
    """Return the images, and the files of formats that are not read."""
    files = sorted(walk(folder))
    images = [path for path in files if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")]
    series = find_series(path for path in files if path not in set(images))
    told_elsewhere = {path for one in series for path in one.files}
    cut = [path for path in files if path.name != whole_name(path.name) and not is_left_over(path)]
    unread = [
        path for path in {*cut, *other_images(folder)} if path not in told_elsewhere and not path.name.startswith(".")
    ]
    return [*images, *series], [
        path for path in sorted(unread) if not path.name.lower().endswith((*ENDINGS, ".img", ".dcm"))
    ]


def _how_to_read(unread: Collection[Path]) -> str:
    """Say what to do about files that are not read."""
    are_cut = {path.name != whole_name(path.name) for path in unread}
    ways = {True: "finish the download, unpack or rename", False: "convert to NIfTI"}
    return ", or ".join(way for is_cut, way in ways.items() if is_cut in are_cut)


def _places(image: Path | Series) -> list[Path]:
    return [*image.files, image.files[0].parent] if isinstance(image, Series) else [image]


def _folder_of_its_own(image: Path | Series, images: Collection[Path | Series], patient: Path) -> str:
    """Return the name of the innermost folder that means a modality, if the image is the only one below it."""
    for folder in _places(image)[0].parents:
        if folder == patient or patient not in folder.parents:
            break
        if modalities_of(folder.name):
            return folder.name if sum(folder in _places(one)[0].parents for one in images) == 1 else ""
    return ""


def _channels_of(
    image: Path | Series, channels: Sequence[str], patient: Path, images: Collection[Path | Series], called: str = ""
) -> list[str]:
    """Return the channels that an image may be, and behind them what else it may be that the model does not know."""
    file, text = (image.files[0], image.description) if isinstance(image, Series) else (image, _stem(image.name))
    text = f"{called} {text}".strip()
    beside = [] if file.parent == patient else [file.parent.name]
    if not isinstance(image, Series):
        meant = modalities_beside(text, beside)
    elif _is_other(*image.kind):
        meant = set()
    else:
        agent = next(iter(words_of(image.agent)), "") not in _NO_AGENT
        meant = modalities_beside(text, [image.protocol, *beside], agent=agent)
    fits = [channel for channel in channels if _fits(channel, meant, words_of(text))]
    if not (fits or called) and (own := _folder_of_its_own(image, images, patient)):
        return _channels_of(image, channels, patient, images, own)
    return [*fits, *sorted(meant.difference(*map(modalities_of, channels)))] if fits else []


def _is_other(modality: str, image_type: str) -> bool:
    """Tell whether a series is no sequence, whatever it is called: no MR, a subtraction, a map, a projection."""
    return modality not in {"", "MR"} or not modalities_of(f"T1 {image_type}")


def _fits(channel: str, meant: set[str], words: Sequence[str]) -> bool:
    """Tell whether words mean a channel: by the modality that both mean, or by its own name where it is another one."""
    modality, own = modalities_of(channel), words_of(channel)
    if modality:
        return not modality.isdisjoint(meant)
    return any(list(words[start : start + len(own)]) == own for start in range(len(words)))


def _stem(name: str) -> str:
    ending = next(ending for ending in ENDINGS if name.lower().endswith(ending))
    return name[: -len(ending)]


def _options(channels: Sequence[str]) -> str:
    return " ".join(f"--{channel} FILE" for channel in channels)
