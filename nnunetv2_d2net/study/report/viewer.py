"""The cases of the viewer: which ones, and what of each travels with the page."""

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.palette import REGION_COLORS
from nnunetv2_d2net.base.processes import run_all
from nnunetv2_d2net.study.report import pictures
from nnunetv2_d2net.study.report.heat_maps import availability
from nnunetv2_d2net.study.report.pictures import Window
from nnunetv2_d2net.study.report.results import Benchmark

MOST_CASES = 24
_ALL_CHARACTERS = 11_500_000
"""Of the pictures of all cases together. What is longer loses slices, evenly; the label maps come on top."""


class Viewer(NamedTuple):
    """The viewer's content.

    Attributes:
        content: For the page's script: names, colors, and for each case where its pictures are among ``blobs``.
        blobs: Pictures as data URIs, and label maps in Base64.
        problems: One line for each thing that had to be left out.
        n_left_out: How many cases were not asked for.
    """

    content: dict[str, Any]
    blobs: list[str]
    problems: list[str]
    n_left_out: int


def make_viewer(benchmark: Benchmark, n_cases: int = MOST_CASES, *, progress: bool = False) -> Viewer:
    """Gather the pictures of the worst and best cases of the arm in focus.

    Args:
        benchmark: What was scored.
        n_cases: How many cases at most; half of them the worst ones.
        progress: Show a bar.

    Returns:
        What could be read; what could not is among the problems.
    """
    ranked = rank_cases(benchmark)
    n_best = n_cases // 2
    chosen = ranked if len(ranked) <= n_cases else ranked[: n_cases - n_best] + ranked[len(ranked) - n_best :]
    try:
        maker = _Maker(benchmark, _ALL_CHARACTERS // max(len(chosen), 1))
    except UserError as error:  # the images were moved since; all else can still be told
        return Viewer({"cases": []}, [], [str(error)], 0)
    cases = [content for _, content in run_all(maker.case, chosen, title="report", progress=progress) if content]
    modalities = list(benchmark.dataset.channels)
    available = {name: availability(name, modalities) or [True] * len(modalities) for name in benchmark.subsets}
    content = {
        "modalities": modalities,
        "subsets": [{"name": name, "available": flags} for name, flags in available.items()],
        "arms": benchmark.arms,
        "focus": benchmark.arms.index(benchmark.focus),
        "regions": maker.regions(),
        "nLabels": len(maker.labels),
        "cases": cases,
    }
    return Viewer(content, maker.blobs, maker.problems, len(ranked) - len(chosen))


def rank_cases(benchmark: Benchmark) -> list[str]:
    """Order the cases by the mean Dice of the arm in focus, worst first."""
    dice: dict[str, list[float]] = {}
    for score in benchmark.scores[benchmark.focus]:
        dice.setdefault(score.case, []).append(score.dice)
    return sorted(dice, key=lambda case: (fmean(dice[case]), case))


class _Maker:
    """Reads cases one after another and collects their pictures."""

    def __init__(self, benchmark: Benchmark, max_characters: int) -> None:
        self.benchmark, self.dataset, self.max_characters = benchmark, benchmark.dataset, max_characters
        self.labels = self.dataset.known_values
        self.blobs: list[str] = []
        self.problems: list[str] = []
        self.files = self.dataset.find_cases(Path(benchmark.setup["images"])).files
        self.scores = {
            arm: {(s.case, s.subset, s.region): round(s.dice, 3) for s in scores}
            for arm, scores in benchmark.scores.items()
        }

    def regions(self) -> list[dict[str, Any]]:
        """Name the regions, their colors and their labels' positions, the widest first, so that others lie on top."""
        colors = dict(zip(self.dataset.regions, cycle(REGION_COLORS), strict=False))
        order = sorted(self.dataset.regions.items(), key=lambda item: -len(item[1]))
        places = {name: [self.labels.index(value) for value in values if value] for name, values in order}
        return [{"name": name, "color": colors[name], "labels": labels} for name, labels in places.items()]

    def case(self, case: str) -> dict[str, Any] | None:
        """Read all that there is of a case; None, and a problem, if its reference or its images cannot be read."""
        try:
            return self._read(case)
        except UserError as error:
            self.problems.append(f"case {case} is left out: {error}")
            return None

    def _read(self, case: str) -> dict[str, Any]:
        labels, placing = self._labels(Path(self.benchmark.setup["references"]), case)
        images = self._images(case, labels.shape)
        window, encoded = self._encode(images, labels > 0)
        shown = window.cut(labels)
        n, height, width = shown.shape
        return {
            "name": case,
            "width": width,
            "height": height,
            "columns": pictures.tile_columns(n, height, width),
            "slices": [index + 1 for index in window.slices],
            "ofSlices": len(labels),
            "start": window.start,
            **placing,
            "images": [None if picture is None else self._keep(picture) for picture in encoded],
            "reference": self._keep_labels([pictures.encode_runs(shown, len(self.labels))]),
            "predictions": [self._predictions(case, arm, labels.shape, window) for arm in self.benchmark.arms],
            "dice": [self._dice(case, arm) for arm in self.benchmark.arms],
        }

    def _images(self, case: str, shape: tuple[int, ...]) -> list[NDArray[np.generic] | None]:
        n_modalities, files = len(self.dataset.channels), self.files.get(case, [])
        if not files:
            raise UserError(f"{self.benchmark.setup['images']} holds no image of it")
        images: list[NDArray[np.generic] | None] = [None] * n_modalities
        for file, channel in zip(files, self.dataset.assign_channels(files), strict=True):
            volume, _ = pictures.read_volume(Path(file))
            if volume.shape[1:] != shape:
                raise UserError(f"{file} has another shape than its reference")
            if len(volume) == n_modalities and len(files) == 1:
                return list(volume)
            images[channel] = volume[0]
        return images

    def _encode(
        self, images: Sequence[NDArray[np.generic] | None], reference: NDArray[np.bool_]
    ) -> tuple[Window, list[str | None]]:
        """Encode the modalities, with fewer slices if all would take too much room."""
        step, there = 1, [image for image in images if image is not None]
        while True:
            window = pictures.choose_window(there, reference, step)
            encoded = [None if image is None else pictures.encode_picture(window.cut(image)) for image in images]
            excess = sum(len(picture) for picture in encoded if picture) / self.max_characters
            if excess <= 1 or len(window.slices) == 1:
                return window, encoded
            step = max(step + 1, math.ceil(step * excess))

    def _predictions(self, case: str, arm: str, shape: tuple[int, ...], window: Window) -> dict[str, Any]:
        """Label maps of all subsets, packed together; a size of 0 says that there is none."""
        maps = []
        for subset in self.benchmark.subsets:
            try:
                labels, _ = self._labels(self.benchmark.folder / arm / "predictions" / subset, case)
                if labels.shape != shape:
                    raise UserError("it has another shape than its reference")
                maps.append(pictures.encode_runs(window.cut(labels), len(self.labels)))
            except UserError as error:
                maps.append(b"")
                if (case, subset, next(iter(self.dataset.regions))) in self.scores[arm]:
                    self.problems.append(f"{arm}, {subset}, case {case}: {error}")
        return {"blob": self._keep_labels(maps), "sizes": [len(encoded) for encoded in maps]}

    def _labels(self, folder: Path, case: str) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Read labels as their positions in the list; one that is in no region becomes background."""
        (labels, *_), placing = pictures.read_volume(folder / f"{case}{self.dataset.file_ending}")
        positions = np.zeros(labels.shape, np.uint8)
        for position, value in enumerate(self.labels[1:], 1):
            positions[labels == value] = position
        return positions, placing

    def _dice(self, case: str, arm: str) -> list[list[float | None]]:
        scores, names = self.scores[arm], [region["name"] for region in self.regions()]
        return [[scores.get((case, subset, name)) for name in names] for subset in self.benchmark.subsets]

    def _keep_labels(self, maps: Iterable[bytes]) -> int:
        return self._keep(base64.b64encode(zlib.compress(b"".join(maps), 9)).decode())

    def _keep(self, blob: str) -> int:
        self.blobs.append(blob)
        return len(self.blobs) - 1
