"""Hold simulated patients against real ones: what a network sees of them, measured in the same way in both.

A case is a folder of skull-stripped, co-registered images whose names end in the modality (``flair`` or ``t2f``;
``t1``, ``t1n``; ``t1ce``, ``t1c``, ``t1_post``; ``t2``, ``t2w``), as ``d2net phantom --layout brats2018 --kind varied
-o FOLDER`` writes them. ``seg`` holds BraTS's labels up to 2020 (1 and 3 core, 2 edema, 4 enhancing); ``lesions`` only
says what is left out of normal tissue. All are brought to ``--spacing`` by averaging, so that voxels mean the same.
Levels are medians over that of normal white matter; tissues are the three classes of T1, or of T1ce, away from lesions
and borders.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, gaussian_filter
from skimage.measure import marching_cubes, mesh_surface_area

from nnunetv2_d2net.base.images import read_image
from nnunetv2_d2net.base.text import markdown_table

NAMES = {"flair": "FLAIR", "t2f": "FLAIR", "t1": "T1", "t1n": "T1", "t1ce": "T1ce", "t1c": "T1ce", "t1_post": "T1ce"}
NAMES |= {"t2": "T2", "t2w": "T2", "seg": "seg", "lesions": "lesions"}
ENDING = re.compile(rf"(?:.*[_-])?({'|'.join(sorted(NAMES, key=len, reverse=True))})\.nii(?:\.gz)?")
REGIONS = {"edema": (2,), "core without enhancing": (1, 3), "enhancing": (4,)}
Volume = NDArray[np.floating]
Mask = NDArray[np.bool_]


def main() -> None:
    """Print a table: each measure's range over the simulated and over the real cases, and whether they meet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=Path, nargs="+", required=True, help="folders of folders of cases")
    parser.add_argument("--real", type=Path, nargs="+", required=True, help="the same of real cases")
    parser.add_argument("--spacing", type=int, default=2, help="mm, a multiple of the images' (default %(default)s)")
    parser.add_argument("--cases", action="store_true", help="also print the real cases one by one")
    args = parser.parse_args()
    simulated, real = (
        {folder.name: measure_case(files, args.spacing) for folder, files in find_cases(folders)}
        for folders in (args.simulated, args.real)
    )
    if not simulated or not real:
        parser.error("no case found: pass folders that hold folders of images")
    sys.stdout.write(compare(simulated, real))
    if args.cases:
        measures = sorted({measure for case in real.values() for measure in case})
        rows = [[m, *(f"{case[m]:.2f}" if m in case else "" for case in real.values())] for m in measures]
        sys.stdout.write("\n" + markdown_table([["measure", *real], *rows]))


def find_cases(folders: list[Path]) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Find the folders that hold images of a known name."""
    for folder in sorted({path.parent for root in folders for path in root.rglob("*.nii*") if path.is_file()}):
        found = {NAMES[m[1]]: path for path in sorted(folder.iterdir()) if (m := ENDING.fullmatch(path.name.lower()))}
        if "T1" in found or "T1ce" in found:
            yield folder, found


def compare(simulated: Mapping[str, Mapping[str, float]], real: Mapping[str, Mapping[str, float]]) -> str:
    """Lay both ranges of each measure out, and say how many real cases lie in the range of nine simulated of ten."""
    rows = [["measure", "simulated: 5 %, median, 95 %", "real: least, median, most", "real cases within"]]
    for measure in sorted({measure for case in real.values() for measure in case}):
        ours, theirs = (
            np.array([case[measure] for case in cases.values() if np.isfinite(case.get(measure, np.nan))])
            for cases in (simulated, real)
        )
        if len(ours) and len(theirs):
            low, middle, high = np.percentile(ours, (5, 50, 95))
            within = int(((theirs >= low) & (theirs <= high)).sum())
            spread = f"{theirs.min():.2f}, {np.median(theirs):.2f}, {theirs.max():.2f}"
            told = f"{within} of {len(theirs)}"
            rows.append([measure, f"{low:.2f}, {middle:.2f}, {high:.2f}", spread, told if within else f"**{told}**"])
    counts = f"{len(simulated)} simulated and {len(real)} real cases"
    return f"{counts}\n\n{markdown_table(rows)}"


def measure_case(files: Mapping[str, Path], spacing: int) -> dict[str, float]:
    """Measure one case; what it lacks is left out."""
    images, labels, lesion = {}, None, None
    for name, path in files.items():
        image = read_image(path)
        factor = factor_of(path, image.properties["spacing"], spacing)
        if name in ("seg", "lesions"):
            labels = vote(image.voxels[0], factor) if name == "seg" else labels
            lesion = average(image.voxels[0] > 0, factor) >= 0.5
        else:
            images[name] = average(image.voxels[0], factor)
    brain = np.any([image > 0 for image in images.values()], axis=0)
    away = brain if lesion is None else brain & ~binary_dilation(lesion, iterations=max(8 // spacing, 1))
    tissues = classify(images.get("T1", images.get("T1ce")), away)
    found: dict[str, float] = {}
    for name, image in images.items():
        white = float(np.median(image[tissues["white matter"]]))
        found |= {f"{name}: {key}": value for key, value in measure_image(image / white, tissues, spacing).items()}
        if labels is not None:
            found |= {f"{name}: {key}": v for key, v in measure_lesion(image / white, labels, brain).items()}
    if "T1ce" in images:
        found |= measure_bright(
            images["T1ce"] / np.median(images["T1ce"][tissues["white matter"]]), away, brain, spacing
        )
    if labels is not None and labels.any():
        found |= measure_shape(labels > 0, spacing)
        white = tissues["white matter"]
        if "FLAIR" in images:
            flair = images["FLAIR"] / np.median(images["FLAIR"][white])
            found["FLAIR: border 10 to 90 %, mm"] = border_width(flair, labels, brain, spacing)
    return found


def factor_of(path: Path, edges: Sequence[float], spacing: int) -> int:
    """Say how many voxels, along each axis, make one of those that are measured; refuse those that do not fit."""
    factor = round(spacing / edges[0])
    if not np.allclose(factor * np.array(edges), spacing, rtol=0.02):
        sizes = " x ".join(f"{edge:.3g}" for edge in edges)
        raise SystemExit(f"{path} has voxels of {sizes} mm: resample it to cubes, such as of 1 mm")
    return factor


def average(image: NDArray, factor: int) -> Volume:
    """Average blocks of voxels."""
    z, y, x = (n // factor for n in image.shape)
    blocks = image[: z * factor, : y * factor, : x * factor].reshape(z, factor, y, factor, x, factor)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def vote(labels: NDArray, factor: int) -> NDArray[np.integer]:
    """Give each block of voxels its most frequent label."""
    return np.argmax(np.stack([average(labels == label, factor) for label in range(5)]), axis=0)


def classify(image: Volume, away: Mask) -> dict[str, Mask]:
    """Find pure gray matter, white matter and CSF: three classes of brightness, without what touches another class."""
    values = image[away]
    centers = np.percentile(values, (5, 40, 80))
    for _ in range(30):
        kind = np.abs(values[:, None] - centers).argmin(axis=1)
        centers = np.array([np.median(values[kind == k]) for k in range(3)])
    classes = np.full(image.shape, -1)
    classes[away] = kind
    classes[image > 1.25 * centers[2]] = -1  # vessels
    return {
        name: binary_erosion(classes == k) if k else binary_erosion(classes == k, np.ones((2, 2, 2)))
        for k, name in enumerate(("CSF", "gray matter", "white matter"))
    }


def measure_image(image: Volume, tissues: Mapping[str, Mask], spacing: int) -> dict[str, float]:
    """Measure normal tissue, noise by axis, and where the field of view ends."""
    found = {}
    for name, mask in tissues.items():
        if mask.sum() > 20:
            low, middle, high = np.percentile(image[mask], (16, 50, 84))
            found |= {f"{name}, level": middle, f"{name}, spread": (high - low) / 2}
    lags = [[variogram(image, tissues["white matter"], axis, lag) for lag in (1, 3)] for axis in range(3)]
    near, far = np.array(lags).T
    found["noise, SD between neighbors"] = float(np.sqrt(near.mean()))
    found["noise, likeness of neighbors"] = float(1 - near.mean() / far.mean())
    found["blur, least over greatest of axes"] = float(near.min() / near.max())
    found["field of view, flattest end"] = flattest_end(image > 0)
    return found


def variogram(image: Volume, mask: Mask, axis: int, lag: int) -> float:
    """Half of the mean squared difference of voxels at a distance along an axis, both in the mask."""
    a, b = (np.moveaxis(x, axis, 0) for x in (image, mask))
    both = b[lag:] & b[:-lag]
    return float(((a[lag:] - a[:-lag])[both] ** 2).mean() / 2) if both.any() else float("nan")


def flattest_end(mask: Mask) -> float:
    """Area of the outermost slice over that of the largest one, the largest of the six ends: near 1 where it is cut."""
    areas = [mask.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return float(max(max(a[a > 0][0], a[a > 0][-1]) / a.max() for a in areas))


def measure_lesion(image: Volume, labels: NDArray, brain: Mask) -> dict[str, float]:
    """Measure level and spread of each region."""
    found = {}
    for name, members in REGIONS.items():
        mask = np.isin(labels, members) & brain & (image > 0)
        if mask.sum() > 20:
            low, middle, high = np.percentile(image[mask], (16, 50, 84))
            found |= {f"{name}, level": middle, f"{name}, spread": (high - low) / 2}
    return found


def measure_bright(image: Volume, away: Mask, brain: Mask, spacing: int) -> dict[str, float]:
    """Measure which share of normal tissue is brighter than 1.6 of white matter in T1ce, inside and in the rim."""
    depth = distance_transform_edt(brain) * spacing
    shares = {"inside": away & (depth > 4), "outer 4 mm": away & (depth <= 4)}
    return {f"T1ce: bright, {name}, %": float(100 * (image[mask] > 1.6).mean()) for name, mask in shares.items()}


def measure_shape(lesion: Mask, spacing: int) -> dict[str, float]:
    """Measure volume, and sphericity: the surface of a ball of the same volume over the lesion's."""
    volume = lesion.sum() * spacing**3
    vertices, faces, *_ = marching_cubes(gaussian_filter(np.pad(lesion, 3).astype(np.float32), 1), 0.5)
    surface = mesh_surface_area(vertices * spacing, faces)
    return {
        "whole tumor, ml": float(volume / 1000),
        "whole tumor, sphericity": float(np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / surface),
    }


def border_width(image: Volume, labels: NDArray, brain: Mask, spacing: int) -> float:
    """Measure over how many mm the mean profile across the border of edema rises from 10 to 90 %."""
    whole = labels > 0
    depth = (distance_transform_edt(whole) - distance_transform_edt(~whole)) * spacing
    depth -= np.sign(depth) * spacing / 2
    edges = np.arange(-10, 10.1, 1.0)
    ring = brain & (whole & (labels == 2) | ~whole) & (image > 0.6)  # without CSF, which is dark whatever the border
    bins = [image[ring & (depth >= low) & (depth < low + max(spacing, 1))] for low in edges[:-1]]
    if min(map(len, bins)) < 10:
        return float("nan")
    profile = np.array([values.mean() for values in bins])
    low, high = profile[:3].mean(), profile[-4:].max()
    share = np.maximum.accumulate((profile - low) / (high - low))
    centers = edges[:-1] + max(spacing, 1) / 2
    ten, ninety = (float(np.interp(level, share, centers)) for level in (0.1, 0.9))
    return ninety - ten


if __name__ == "__main__":
    main()
