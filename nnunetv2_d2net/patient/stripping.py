"""The skull: whether it is still there, and its removal by HD-BET, which does not come with this package."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.base.appearance import CohortAppearance, appearance_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import read_sitk, write_sitk
from nnunetv2_d2net.patient.reading import SequenceImage

TOOL = "hd-bet"
STRIPPED = f"what {TOOL} takes for no brain in {{}} was set to 0"
INSTALL = "pip install hd-bet (it loads its weights from the internet when it first runs)"


def skull_warnings(sequences: Mapping[str, SequenceImage], cohort: CohortAppearance | None) -> list[str]:
    """Say which sequences seem to show more than a brain, unless the model was trained on such images.

    Args:
        sequences: As read, by name.
        cohort: What the model was trained on.
    """
    if cohort is not None and not cohort.is_of_brains:
        return []
    with_skull = [name for name, sequence in sequences.items() if _has_skull(sequence)]
    if not with_skull:
        return []
    names, seems = " and ".join(with_skull), "seem" if len(with_skull) > 1 else "seems"
    remedy = f"strip it, for instance with HD-BET: {INSTALL}, then --strip"
    return [f"{names} {seems} to show the skull, which no image of the training had: {remedy}"]


def _has_skull(sequence: SequenceImage) -> bool:
    return appearance_of(sequence.voxels[None], [True], sequence.image.GetSpacing()[::-1]).has_skull


def strip_skull(images: Mapping[str, sitk.Image], reference: str, device: str = "cpu") -> dict[str, sitk.Image]:
    """Set to 0 what HD-BET takes for no brain in one of the sequences.

    Args:
        images: By sequence, all on one grid.
        reference: The one that HD-BET looks at.
        device: Where it computes.

    Raises:
        UserError: HD-BET is not installed, fails, or finds no brain.
    """
    command = shutil.which(TOOL)
    if command is None:
        raise UserError(f"{TOOL} is not installed, which --strip needs: {INSTALL}, or pass images without the skull")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "head.nii.gz", Path(folder) / "brain.nii.gz"
        write_sitk(images[reference], source)
        words = [command, "-i", str(source), "-o", str(target), "-device", device]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
        if done.returncode or not target.is_file():
            said = next((line for line in done.stderr.splitlines()[::-1] if line.strip()), "it wrote no image")
            raise UserError(f"{TOOL} failed on {reference} ({said.strip()}): run it yourself, and pass what it writes")
        brain = sitk.GetArrayFromImage(read_sitk(target)) != 0
    if not brain.any():
        raise UserError(f"{TOOL} found no brain in {reference}: see that it is an image of a head")
    return {name: _masked(image, brain) for name, image in images.items()}


def _masked(image: sitk.Image, brain: np.ndarray) -> sitk.Image:
    masked = sitk.GetImageFromArray(np.where(brain, sitk.GetArrayViewFromImage(image), np.float32(0)))
    masked.CopyInformation(image)
    return masked
