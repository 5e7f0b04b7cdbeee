"""What ``d2net convert`` tells: what was found, and what is wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nnunetv2_d2net.base.modality_names import subset_name
from nnunetv2_d2net.data.convert.cases import Found, Problem
from nnunetv2_d2net.data.convert.layouts import Layout
from nnunetv2_d2net.data.convert.report import CaseReport, digest_twins

_SHOWN = 30
"""How many lines of one kind are shown."""


class Space(NamedTuple):
    """Bytes on a disk: about how many are needed, and how many are free."""

    needed: int
    free: int

    def __str__(self) -> str:
        return f"about {self.needed / 1e6:,.0f} MB needed, {self.free / 1e6:,.0f} MB free"


def describe_found(layout: Layout, found: Found, reports: Sequence[CaseReport]) -> str:
    """Describe a source: cases, modalities, subsets, label values, geometry, stray files.

    Args:
        layout: Of the source.
        found: What is in it.
        reports: Of the cases that were read.
    """
    good = [report for report in reports if report.problem is None]
    n_train = sum(report.split == "Tr" for report in good)
    n_labels = sum(bool(report.counts) for report in good if report.split == "Ts")
    lines = [
        f"cases: {n_train} for training, {len(good) - n_train} for testing ({n_labels} of these with a segmentation)",
        *_modality_lines(layout, good),
        *_label_lines(layout, good),
        *_geometry_lines(good),
    ]
    if found.stray:
        lines.append(f"{len(found.stray)} NIfTI files belong to no case:")
        lines += [f"  {line}" for line in shortened([str(path) for path in found.stray])]
    return "\n".join(lines) + "\n"


def describe_cases(layout: Layout, reports: Iterable[CaseReport]) -> str:
    """Draw which case has which modality, incomplete cases first."""
    good = [report for report in reports if report.problem is None]
    good.sort(key=lambda report: (len(report.modalities), report.case))
    lines = [
        " ".join((name if name in report.modalities else "-").ljust(len(name)) for name in layout.modalities)
        + f"  {'training' if report.split == 'Tr' else 'test    '}  {report.case}"
        for report in good
    ]
    return "modalities per case:\n" + "".join(f"  {line}\n" for line in shortened(lines))


def notes_of(reports: Sequence[CaseReport]) -> list[str]:
    """List what the user should know: notes of the cases, images that are the same, mixed orientations."""
    good = [report for report in reports if report.problem is None]
    notes = [note for report in good for note in report.notes]
    notes += digest_twins(good)
    orientations = Counter(report.geometry["orientation"] for report in good)
    if len(orientations) > 1:
        told = ", ".join(f"{name} {n}" for name, n in orientations.most_common())
        notes.append(f"cases differ in orientation ({told}): nnU-Net turns none, a network learns better from one")
    return notes


def shortened(lines: Sequence[str]) -> list[str]:
    """Leave out what nobody reads to the end."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def count_problems(problems: Sequence[Problem]) -> str:
    """Count problems by kind.

    Example:
        >>> count_problems([Problem("a", "geometry", ""), Problem("b", "NaN", ""), Problem("c", "geometry", "")])
        '2 geometry, 1 NaN'
    """
    return ", ".join(f"{n} {kind}" for kind, n in Counter(problem.kind for problem in problems).most_common())


def _modality_lines(layout: Layout, reports: Sequence[CaseReport]) -> list[str]:
    present = Counter(name for report in reports for name in report.modalities)
    subsets = Counter(
        subset_name([name in report.modalities for name in layout.modalities], layout.modalities) for report in reports
    )
    width = max((len(name) for name in subsets), default=0)
    return [
        "modalities: " + ", ".join(f"{name} {present[name]}" for name in layout.modalities),
        "subsets:",
        *(f"  {name.ljust(width)}  {n}" for name, n in subsets.most_common()),
    ]


def _label_lines(layout: Layout, reports: Sequence[CaseReport]) -> list[str]:
    voxels, cases = Counter(), Counter()
    for report in reports:
        voxels.update(report.counts)
        cases.update(report.counts.keys())
    if not voxels:
        return ["label values: none, no case has a segmentation"]
    scheme = layout.scheme
    return [
        "label values:",
        *(
            f"  {value} -> {scheme.values[value]}  {scheme.names[value]}: {n} voxels in {cases[value]} cases"
            for value, n in sorted(voxels.items())
        ),
    ]


def _geometry_lines(reports: Sequence[CaseReport]) -> list[str]:
    lines = []
    for key in ("size", "spacing", "orientation"):
        counted = Counter(report.geometry[key] for report in reports).most_common()
        told = [f"{value} ({n})" for value, n in counted[:5]]
        if told:
            more = [f"{len(counted) - 5} others"] if len(counted) > 5 else []
            lines.append(f"{key}: " + ", ".join(told + more))
    return lines
