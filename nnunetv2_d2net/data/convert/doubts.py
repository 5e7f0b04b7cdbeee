"""What may mean something else than it was taken for: files beside a case, and labels of another year."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import counted, listed
from nnunetv2_d2net.data.convert.cases import Contents, Layout, nifti_stem, other_images
from nnunetv2_d2net.data.convert.scheme import CAVITY, CORE, EDEMA, ENHANCING, IGNORE, LabelScheme

_NO_TUMOR = re.compile(
    "(?<![a-z])(brain|parenchyma|skull|head|vessel|ventric|bias|adc|swi|dwi|dti|asl|hardi|cbv|cbf|dsc|dce)",
    re.IGNORECASE,
)
_IMAGE = re.compile("t1|t2|flair|(?<![a-z])(ce|gd|gad|mr|fl|pd)(?![a-z])|contrast|post|pre", re.IGNORECASE)
_LABEL = re.compile("seg|mask|label|roi|gtv|glistr|tumou?r|lesion|manual|annot", re.IGNORECASE)

_LARGEST_TUMOR = 0.5  # of the head; those of BraTS stay below a third
_BRIGHT = 1.25  # in T1ce over T1, each relative to its head; fluid takes up no contrast agent

_FEWEST = 50  # voxels whose brightness says something

_INNER = 0.1  # edema surrounds the core; as seen from outside it has many times its share


def is_of_no_tumor(name: str) -> bool:
    """Tell whether a file's name says that it is a mask of something else, or no anatomical image.

    Example:
        >>> is_of_no_tumor("P1_brain_segmentation.nii.gz"), is_of_no_tumor("P1_tumor_segmentation.nii.gz")
        (True, False)
    """
    return _NO_TUMOR.search(name) is not None


def refuse_lost_files(source: Path, contents: Contents, modalities: Sequence[str]) -> None:
    """Refuse a source where a case lacks an image or its segmentation, and a file beside it may be just that.

    Raises:
        UserError: There are such files, whose names say neither what they are nor that they are something else.
    """
    cases, lost = {case.name: case for case in contents.cases}, {}
    for path in [*contents.stray, *other_images(source)]:
        stem = nifti_stem(path.name) or path.name
        ends = [mark.start() for mark in re.finditer("[_.-]", stem) if stem[: mark.start()] in cases]
        if not ends:
            continue
        case, rest = cases[stem[: ends[-1]]], stem[ends[-1] :]
        of_image = len(case.images) < len(modalities) and _IMAGE.search(rest) and not _LABEL.search(rest)
        of_label = case.label is None and _LABEL.search(rest)
        if (of_image or of_label) and not is_of_no_tumor(rest):
            lost.setdefault(rest, []).append(path)
    if lost:
        kinds = listed([f"{rest} ({counted(len(paths), 'file')}, such as {paths[0]})" for rest, paths in lost.items()])
        others = any(nifti_stem(path.name) is None for paths in lost.values() for path in paths)
        remedy = "convert them to NIfTI" if others else "say in a mapping file what they are (d2net help data)"
        raise UserError(
            f"{source} has cases that lack an image or a segmentation, and files beside them of unknown meaning, "
            f"{kinds}: {remedy}, or move them away"
        )


def refuse_foreign_labels(source: Path, layout: Layout, values: Iterable[tuple[str, Collection[int] | None]]) -> None:
    """Refuse label values that nothing can be learned from, or that another year gave another meaning.

    Args:
        source: The folder, for messages.
        layout: Of the source.
        values: Each case, and the label values of its segmentation if it has one; read until there is no doubt.

    Raises:
        UserError: Nothing is labelled, or what is called resection cavity may be enhancing tumor.
    """
    numbers = {name: value for value, name in layout.scheme.names.items()}
    is_doubtful = CAVITY in numbers and not layout.labels_are_known
    n_empty, n_labels, of_cavity = 0, 0, None
    for case, present in values:
        if present is None:
            continue
        if numbers[ENHANCING] in present if is_doubtful else any(present):
            return
        n_empty, n_labels = n_empty + (not any(present)), n_labels + 1
        if is_doubtful and numbers[CAVITY] in present:
            of_cavity = of_cavity or case
    if of_cavity:
        raise UserError(
            f"{source} has label {numbers[CAVITY]}, which is {CAVITY} in BraTS 2024 and {ENHANCING} in BraTS 2021, "
            f"such as in {of_cavity!r}, and no case has {numbers[ENHANCING]}: say what it is by --labels brats2023 or "
            "--labels brats2021"
        )
    if n_labels and n_empty == n_labels:
        raise UserError(
            f"{source} has {counted(n_empty, 'segmentation')}, all without any label: are they the right files?"
        )


def label_oddities(
    labels: NDArray[Any], images: Mapping[str, NDArray[Any]], scheme: LabelScheme, *, are_known: bool
) -> Iterator[tuple[str, str | None]]:
    """Say what no tumor of the head looks like, in a few words that follow the segmentation's name.

    Args:
        labels: With the data set's values, ``(z, y, x)``.
        images: By modality, on the same grid.
        scheme: What the values mean.
        are_known: Whether that is known from more than names.

    Yields:
        The words, and the remedy where the case is to be refused for it.
    """
    tumor, head = labels > 0, np.any([image != image.flat[0] for image in images.values()], axis=0)
    share = tumor.sum() / max(head.sum(), 1)
    if ENHANCING in scheme.names.values() and share > _LARGEST_TUMOR:
        yield (
            f"covers {share:.0%} of the head, as no tumor does",
            "is it a mask of the brain? Put the tumor's in its place",
        )
    if (tumor & ~head).sum() > 0.5 * tumor.sum():
        yield "lies outside the head for the most part: is it of another patient?", None
    numbers = {name: scheme.values[value] for value, name in scheme.names.items()}
    core, edema = (labels == numbers.get(name, -1) for name in (CORE, EDEMA))
    if min(core.sum(), edema.sum()) >= _FEWEST and _at_surface(edema, tumor) < _INNER * _at_surface(core, tumor):
        yield f"has {EDEMA} within the {CORE}: do their values have each other's name?", None
    remedy = "say what it is by --labels brats2023 or --labels brats2021, and convert several years one by one"
    cavity = labels == numbers.get(CAVITY, -1)
    if cavity.sum() >= _FEWEST and {"T1", "T1ce"} <= images.keys():
        plain, enhanced = (
            np.median(image[cavity]) / np.median(image[head]) for image in (images["T1"], images["T1ce"])
        )
        if np.isfinite(plain) and plain > 0 and enhanced > _BRIGHT * plain:
            yield (
                f"has a {CAVITY} that is brighter in T1ce than in T1, as {ENHANCING} is",
                None if are_known else remedy,
            )


def _at_surface(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    """Return which share of a part's voxels have a neighbor outside the whole."""
    outside = ~whole
    near = np.any([np.roll(outside, step, axis) for axis in range(3) for step in (-1, 1)], axis=0)
    return float((part & near).sum() / part.sum())


def cohort_oddities(layout: Layout, values: Mapping[str, Collection[int]]) -> list[str]:
    """Say which classes no case has, and which cases have none.

    Args:
        layout: Of the source.
        values: Label values of the source in each case that has a segmentation.
    """
    present, scheme = {value for of_case in values.values() for value in of_case}, layout.scheme
    seen = {scheme.names[value] for value in present} | scheme.optional | {IGNORE}
    absent = [name for name in dict.fromkeys(scheme.names.values()) if name not in seen]
    empty = [name for name, of_case in values.items() if not any(of_case)]
    notes = [
        f"no case has the label {name!r}: is it another year's or somebody else's data?" for name in absent if values
    ]
    if empty:
        notes.append(f"{counted(len(empty), 'segmentation')} without any label ({listed(empty)})")
    numbers = {name: value for value, name in scheme.names.items()}
    pair = {numbers.get(CAVITY), numbers.get(ENHANCING)}
    is_doubtful = pair <= present and not layout.labels_are_known
    if is_doubtful and not any(pair <= set(of_case) for of_case in values.values()):
        notes.append(f"no case has both {CAVITY} and {ENHANCING}: were data of several years mixed? See --labels")
    return notes
