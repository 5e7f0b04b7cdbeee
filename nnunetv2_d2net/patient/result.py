"""What is known of a patient once it is segmented, and the files that say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import (
    explaining_disk_errors,
    make_folder,
    publish,
    unfinished_folder,
    write_json,
    write_text,
)
from nnunetv2_d2net.base.images import write_sitk
from nnunetv2_d2net.patient.preview import Preview, draw_preview
from nnunetv2_d2net.patient.reading import array_of
from nnunetv2_d2net.patient.volumes import Volume, as_csv, as_json
from nnunetv2_d2net.plugin.prediction.writing import NOTE

RESEARCH_ONLY = "Research only, not for diagnosis"

SEGMENTATION, PREVIEW = "segmentation.nii.gz", "preview.png"
FILES = ("volumes.json", "volumes.csv", PREVIEW, f"segmentation{NOTE}", SEGMENTATION)
"""The segmentation comes last: where it is, everything is."""


@dataclass(frozen=True)
class Segmented:
    """A patient's segmentation.

    Attributes:
        segmentation: Label values on the grid of the reference sequence.
        volumes: Of each label and region, in ml.
        note: What there was, what was absent, which model, how unlike its training data the patient is.
        images: The sequences that were there, on the same grid.
        regions: Label values of each region.
        placed: Whether the reference's header says where the patient's sides are.
        place_of: The reference's file, if it is one.
    """

    segmentation: sitk.Image
    volumes: list[Volume]
    note: dict[str, Any]
    images: Mapping[str, sitk.Image]
    regions: Mapping[str, tuple[int, ...]]
    placed: bool = True
    place_of: Path | None = None

    def array(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the label values ``(x, y, z)`` and their affine, as nibabel has them and ``segment`` takes images."""
        return array_of(self.segmentation)

    @property
    def captions(self) -> list[str]:
        """What the preview says in words: volumes, what was absent, the model, and what it is not for."""
        sizes = ", ".join(f"{v.name} {v.ml:.1f} ml" for v in self.volumes if v.kind == "region")
        absent = ", ".join(self.note["absent modalities"]) or "none"
        nothing = "" if any(v.ml for v in self.volumes) else " (nothing was segmented)"
        return [f"{sizes}{nothing}", f"absent: {absent}; model: {self.note['model']}", RESEARCH_ONLY]

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write segmentation, volumes, preview and note.

        Args:
            folder: Made if it does not exist.
            overwrite: Replace these files where they are there.

        Raises:
            UserError: One of the files is there, or cannot be written.
        """
        folder = Path(folder)
        check_output(folder, overwrite=overwrite)
        with explaining_disk_errors(folder), unfinished_folder(folder) as unfinished:
            write_json(unfinished / FILES[0], as_json(self.volumes))
            write_text(unfinished / FILES[1], as_csv(self.volumes))
            preview = Preview(self.images, self.segmentation, self.regions, self.captions, self.placed)
            draw_preview(preview, unfinished / PREVIEW)
            write_json(unfinished / FILES[3], self.note)
            write_sitk(self.segmentation, unfinished / SEGMENTATION, place_of=self.place_of)
            for name in FILES:
                publish(unfinished / name, folder / name)


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or holds one of our files unless they may be replaced.

    Raises:
        UserError: It does.
    """
    there = [folder / name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]} exists: pass another -o, or --overwrite")
    make_folder(folder, "pass another -o")
