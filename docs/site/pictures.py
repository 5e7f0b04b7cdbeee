"""The pictures of the pages, all of simulated patients: ``python docs/site/pictures.py`` writes docs/pictures.

With the page of a benchmark of phantoms, ``python docs/site/pictures.py bench/report.html``, it draws that page alone,
as chromium shows it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageChops

from nnunetv2_d2net import segment
from nnunetv2_d2net.base.palette import REGION_COLORS
from nnunetv2_d2net.data.phantom.case import PhantomCase, simulate_case
from nnunetv2_d2net.data.phantom.mri import MODALITIES
from nnunetv2_d2net.data.phantom.varied import simulate_varied_case

FOLDER = Path(__file__).resolve().parents[1] / "pictures"
LABELS = {2: "edema", 1: "core", 3: "enhancing"}
SEED = 11
SPACING_MM = 2.0
WINDOW = 1300, 2900
WIDTH = 820
STYLE = """<style>
nav, #leads, #curves, #subsets, #setup, #published, .others, .caution, .small { display: none }
.maps { grid-template-columns: repeat(3, 1fr); gap: 0 1rem } th, td { padding: 0.15rem 0.3rem }
</style>"""
"""Of a benchmark's page: the picture shows verdict, figures and cases, three arms beside each other."""


def image_of(voxels: NDArray[Any]) -> sitk.Image:
    """Place voxels ``(z, y, x)`` as the phantom's files do."""
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((SPACING_MM,) * 3)
    return image


def draw_slice(axis: Axes, image: NDArray[Any], title: str = "") -> None:
    """Draw a slice ``(y, x)`` in gray."""
    low, high = np.percentile(image[image > 0], (1, 99.5))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    axis.set_title(title, color="white", fontsize=9)


def draw_labels(axis: Axes, image: NDArray[Any], labels: NDArray[Any], title: str = "") -> None:
    """Draw labels ``(y, x)`` over a slice."""
    draw_slice(axis, image, title)
    for color, value in zip(REGION_COLORS, LABELS, strict=False):
        axis.imshow(np.where(labels == value, 1.0, np.nan), cmap=ListedColormap([color]), alpha=0.75)


def finish(figure: Figure, name: str) -> None:
    """Write a JPEG with the legend of the labels."""
    for axis in figure.axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.set_facecolor("black")
    patches = [Patch(color=color, label=label) for color, label in zip(REGION_COLORS, LABELS.values(), strict=False)]
    figure.legend(handles=patches, loc="lower center", ncols=3, frameon=False, labelcolor="white", fontsize=9)
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / name, pil_kwargs={"quality": 80, "optimize": True})


def canvas(n_rows: int, n_columns: int) -> tuple[Figure, NDArray[Any]]:
    """Make an empty figure with a column for the names of the rows."""
    figure = Figure(figsize=(1.75 * n_columns, 2.1 * n_rows + 0.3), dpi=100, facecolor="black")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.subplots_adjust(0.035, 0.09, 0.995, 0.94, wspace=0.03, hspace=0.06)
    return figure, axes


def tumor_slice(labels: NDArray[Any]) -> int:
    """The slice with most of the tumor."""
    return int(np.argmax((labels > 0).sum((1, 2))))


def draw_row(
    axes: NDArray[Any], case: PhantomCase, given: Collection[str], columns: Mapping[str, NDArray[Any]]
) -> None:
    """Draw the images that are given, then label maps over the first of them."""
    z = tumor_slice(case.labels)
    images = dict(zip(MODALITIES, case.images[:, z], strict=True))
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        if name in given:
            draw_slice(axis, image, name)
        else:
            axis.text(0.5, 0.5, f"{name}: not acquired", color="#999999", ha="center", va="center", fontsize=8)
    below = images[next(name for name in MODALITIES if name in given)]
    for axis, (title, labels) in zip(axes[len(MODALITIES) :], columns.items(), strict=True):
        draw_labels(axis, below, labels[z], title)


def draw_fewer() -> None:
    """One patient, segmented with all and with fewer modalities."""
    case = simulate_case("medium", np.random.SeedSequence(SEED))
    rows = {"all four": MODALITIES, "without T1ce": ("FLAIR", "T1", "T2"), "FLAIR alone": ("FLAIR",)}
    figure, axes = canvas(len(rows), len(MODALITIES) + 2)
    for (name, given), row in zip(rows.items(), axes, strict=True):
        images = {one: image_of(voxels) for one, voxels in zip(MODALITIES, case.images, strict=True) if one in given}
        found = sitk.GetArrayFromImage(segment(images, device="cpu").segmentation)
        draw_row(row, case, given, {"reference": case.labels, "segmentation": found})
        row[0].set_ylabel(name, color="white", fontsize=10)
    finish(figure, "fewer.jpg")


def draw_phantom() -> None:
    """What is simulated, and what each voxel stands for."""
    kinds = {"plain": simulate_case, "varied": simulate_varied_case}
    figure, axes = canvas(len(kinds), len(MODALITIES) + 1)
    for (name, simulate), row in zip(kinds.items(), axes, strict=True):
        case = simulate("medium", np.random.SeedSequence(SEED))
        draw_row(row, case, MODALITIES, {"what it stands for": case.labels})
        row[0].set_ylabel(name, color="white", fontsize=10)
    finish(figure, "phantom.jpg")


def draw_report(page: Path) -> None:
    """Draw what a browser shows of a benchmark's page, cut below where nothing comes any more."""
    with tempfile.TemporaryDirectory() as folder:
        shortened, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        text = page.read_text(encoding="utf-8")
        shortened.write_text(text.replace("</head>", f"{STYLE}</head>", 1), encoding="utf-8")
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=20000"]
        words += [f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={shot}", shortened.as_uri()]
        subprocess.run(["chromium", *words], check=True, capture_output=True)
        image = Image.open(shot).convert("RGB")
    nothing = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    _, _, _, bottom = ImageChops.difference(image, nothing).getbbox() or (0, 0, *image.size)
    image = image.crop((0, 0, image.width, min(bottom + 12, image.height)))
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    image.save(FOLDER / "report.jpg", quality=60, optimize=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        draw_report(Path(sys.argv[1]))
    else:
        draw_fewer()
        draw_phantom()
