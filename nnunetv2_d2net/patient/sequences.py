"""Which image below a patient's folder is which sequence, by the names of files and the scanner's of DICOM series."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_d2net.base.dicom import Series, find_series
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import modalities_of, words_of
from nnunetv2_d2net.base.text import listed
from nnunetv2_d2net.data.convert.cases import walk

_LOG = logging.getLogger("nnunetv2_d2net")

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Of the files that are taken for images; DICOM may be called anyhow."""


class FoundSequences(NamedTuple):
    """What a patient's folder holds.

    Attributes:
        images: File or series by sequence, in the order of the model's channels.
        passed_over: Images that are none of the sequences, such as segmentations and localizers.
    """

    images: dict[str, Path | Series]
    passed_over: list[Path | Series]


def find_sequences(folder: Path, channels: Sequence[str], named: Collection[str] = ()) -> FoundSequences:
    """Find a patient's sequences; series of different studies and files of different folders are told in the log.

    Args:
        folder: Holds them at any depth.
        channels: Names of the sequences that the model knows.
        named: Those that the user has given elsewhere, which are not looked for.

    Raises:
        UserError: It is no folder, or holds none of the sequences, two of one, an image that may be two, or series of
            two patients.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: pass that of one patient, or each file, {_options(channels)}")
    fitting = {image: _channels_of(image, channels) for image in _images_below(folder)}
    images = {}
    for channel in (channel for channel in channels if channel not in named):
        candidates = [image for image, fits in fitting.items() if channel in fits]
        unclear = next((image for image in candidates if len(fitting[image]) > 1), None)
        if unclear is not None:
            may_be = " or ".join(fitting[unclear])
            raise UserError(f"{unclear} may be {may_be} by its name: say which image is which, {_options(channels)}")
        if len(candidates) > 1:
            which = " or ".join(map(str, candidates))
            raise UserError(f"{folder}: {channel} may be {which}: say which, {_options([channel])}")
        if candidates:
            images[channel] = candidates[0]
    passed_over = [image for image, fits in fitting.items() if not fits]
    if not images and not named:
        there = listed([str(image) for image in passed_over]) or "no image"
        known = f"nothing called like {', '.join(channels)}"
        raise UserError(f"{folder} holds {known} (there: {there}): say which image is which, {_options(channels)}")
    _check_patient(folder, images)
    return FoundSequences(images, passed_over)


def described(images: Mapping[str, object], channels: Sequence[str]) -> list[str]:
    """Say what was taken for which sequence, a line each, and what is absent."""
    return [f"{channel} = {images[channel]}" if channel in images else f"{channel} is absent" for channel in channels]


def _check_patient(folder: Path, images: Mapping[str, Path | Series]) -> None:
    series = [image for image in images.values() if isinstance(image, Series)]
    patients = {one.patient: f"{one} is of PatientID {one.patient}" for one in series if one.patient}
    if len(patients) > 1:
        remedy = f"pass the folder of one patient, or each file, {_options(list(images))}"
        raise UserError(f"{folder} holds different patients, {' and '.join(patients.values())}: {remedy}")
    studies = {one.study: f"{one} of {one.study[1] or 'no date'}" for one in series}
    if len(studies) > 1:
        _LOG.warning(
            "the series are of different studies, %s: see that they belong together", listed([*studies.values()])
        )
    folders = sorted({image.parent for image in images.values() if isinstance(image, Path)})
    if len(folders) > 1:
        _LOG.warning("the images lie in different folders, %s: see that they belong together", listed(folders))


def _images_below(folder: Path) -> list[Path | Series]:
    files = sorted(walk(folder))
    images = [path for path in files if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")]
    return [*images, *find_series(path for path in files if path not in set(images))]


def _channels_of(image: Path | Series, channels: Sequence[str]) -> list[str]:
    text = image.description if isinstance(image, Series) else _stem(image.name)
    meant, words = modalities_of(text), words_of(text)
    return [channel for channel in channels if _fits(channel, meant, words)]


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
