"""What ``d2net convert`` prints: what a source holds, what was converted, and what is wrong."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.modality_names import LABEL
from nnunetv2_d2net.base.text import counted, listed, shortened
from nnunetv2_d2net.data.convert.cases import CaseReport, Layout
from nnunetv2_d2net.data.convert.convert import Checked, Converted
from nnunetv2_d2net.data.convert.doubts import cohort_oddities

_MOST_ALIKE = 5  # notes of one kind that are listed one by one


def describe_check(checked: Checked) -> str:
    """Describe a source that was read: what it holds, which case has which modality, notes, disk space."""
    good = [report for report in checked.reports if report.problem is None]
    lines = [
        *_source_lines(checked.layout, good, checked.stray),
        *_case_lines(checked.layout, good),
        *_notes(good),
    ]
    lines += [f"disk: {checked.space}"] if checked.space else []
    return "\n".join(lines) + "\n"


def describe_conversion(converted: Converted) -> str:
    """Describe a data set: what it holds, notes, what an earlier run had done, what left the source."""
    reports, folder, vanished = converted.reports, converted.folder, converted.vanished
    lines = [*_source_lines(converted.layout, reports, converted.stray), *_notes(reports)]
    if converted.n_done:
        lines.append(f"{counted(converted.n_done, 'case')} had been converted before")
    if vanished:
        lines.append(
            f"note: no longer in the source, but staying in the data set: {counted(len(vanished), 'case')} "
            f"({listed(vanished)}): "
            f"to leave them out, remove {folder} and convert again"
        )
    n_test = len(reports) - converted.n_train
    lines.append(f"{folder}: {counted(converted.n_train, 'training case')} and {counted(n_test, 'test case')}")
    return "\n".join(lines) + "\n"


def _source_lines(layout: Layout, reports: Sequence[CaseReport], stray: Sequence[Path]) -> list[str]:
    """Describe a source: cases, modalities, subsets, label values, geometry, stray files."""
    n_train = sum(report.split == "Tr" for report in reports)
    n_labels = sum(bool(report.voxels) for report in reports if report.split == "Ts")
    n_test = len(reports) - n_train
    lines = [
        f"cases: {n_train} for training, {n_test} for testing ({n_labels} of these with a segmentation)",
        *_modality_lines(layout, reports),
        *_name_lines(layout, reports),
        *_label_lines(layout, reports),
    ]
    for key in ("size", "spacing", "orientation"):
        counts = Counter(report.geometry[key] for report in reports)
        if counts:
            lines.append(f"{key}: " + listed([f"{value} ({n})" for value, n in counts.most_common()]))
    if stray:
        lines.append(f"{len(stray)} NIfTI files belong to no case:")
        lines += [f"  {line}" for line in shortened([str(path) for path in stray])]
    return lines


def _case_lines(layout: Layout, reports: Sequence[CaseReport]) -> list[str]:
    """Draw which case has which modality, incomplete cases first."""
    lines = []
    for report in sorted(reports, key=lambda report: (len(report.modalities), report.case)):
        names = [(name if name in report.modalities else "-").ljust(len(name)) for name in layout.modalities]
        split = "training" if report.split == "Tr" else "test    "
        lines.append(f"{' '.join(names)}  {split}  {report.case}")
    return ["modalities per case:", *(f"  {line}" for line in shortened(lines))]


def _notes(reports: Sequence[CaseReport]) -> list[str]:
    """List what the user should know: notes of the cases, images that are the same, mixed orientations."""
    notes = [*_by_kind(reports), *_twins(reports)]
    orientations = Counter(report.geometry["orientation"] for report in reports)
    if len(orientations) > 1:
        counts = ", ".join(f"{name} {n}" for name, n in orientations.most_common())
        notes.append(f"cases differ in orientation ({counts}): nnU-Net turns none, a network learns better from one")
    return [f"note: {note}" for note in shortened(notes)]


def _by_kind(reports: Sequence[CaseReport]) -> list[str]:
    """List the notes of the cases; where many headers are odd in the same way, the first and how many there are."""
    kinds: dict[str, list[str]] = {}
    for note in (note for report in reports for note in report.notes):
        _, has, what = note.partition(" has ")
        kinds.setdefault(re.sub(r"[\d.]+", "#", what) if has else note, []).append(note)
    lines = []
    for notes in kinds.values():
        many = len(notes) > _MOST_ALIKE
        lines += [f"{notes[0]}; the like in {len(notes) - 1} other cases"] if many else notes
    return lines


def _twins(reports: Sequence[CaseReport]) -> list[str]:
    """Say which images hold the very same voxels as another one."""
    seen: dict[str, str] = {}
    lines = []
    for report in reports:
        for name, digest in report.digests.items():
            here = f"{name} of {report.case!r}"
            other = seen.setdefault(digest, here)
            if other != here:
                lines.append(f"{other} and {here} hold the same voxels")
    return lines


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
        *(f"note: no case has {name}" for name in layout.modalities if reports and not present[name]),
    ]


def _name_lines(layout: Layout, reports: Sequence[CaseReport]) -> list[str]:
    """Say which files were taken for what, by what their names have beside the case's."""
    names = {slot: Counter() for slot in (*layout.modalities, LABEL)}
    for report in reports:
        for slot, path in (report.images | ({LABEL: report.label} if report.label else {})).items():
            names[slot][Path(path).name.removeprefix(report.case)] += 1
    lines = [f"  {slot}: " + listed([f"{name} ({n})" for name, n in c.most_common()]) for slot, c in names.items() if c]
    return ["files:", *lines] if lines else []


def _label_lines(layout: Layout, reports: Sequence[CaseReport]) -> list[str]:
    voxels, cases = Counter(), Counter()
    for report in reports:
        voxels.update(report.voxels)
        cases.update(report.voxels.keys())
    if not voxels:
        return ["label values: none, no case has a segmentation"]
    values, names = layout.scheme.values, layout.scheme.names
    lines = [
        f"{v} -> {values[v]}  {names[v]}: {n} voxels in {counted(cases[v], 'case')}" for v, n in sorted(voxels.items())
    ]
    oddities = cohort_oddities(layout, {report.case: report.voxels for report in reports if report.voxels})
    return ["label values:", *(f"  {line}" for line in lines), *(f"note: {oddity}" for oddity in oddities)]
