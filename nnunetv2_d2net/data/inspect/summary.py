"""The cohort in words and small tables: summary.md."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunetv2_d2net.data.inspect.inspect_cohort import Inspection
from nnunetv2_d2net.data.inspect.record import PERCENTILES, STATES, CaseRecord, Finding
from nnunetv2_d2net.data.inspect.swaps import count_noticed
from nnunetv2_d2net.study.scores.subset_table import markdown_table

_MAX_TOLD = 20
"""Suspicions of one kind that the summary lists; suspicions.csv has all."""


def write_summary(seen: Inspection, folder: Path, dataset: Path, title: str) -> None:
    """Write ``summary.md``.

    Args:
        seen: The cohort.
        folder: Where to.
        dataset: Folder of the raw data set, left out of file names.
        title: First line.
    """
    suspicious = len({finding.case for finding in seen.findings})
    parts = [
        f"# {title}\n",
        f"{len(seen.records)} cases, {suspicious} of them suspicious. Pictures: cohort.png, intensities.png, "
        "volumes.png. Each case: cases.csv. Each suspicion: suspicions.csv.\n",
        f"## Modalities\n\n{markdown_table(_state_rows(seen))}",
        f"## Patterns\n\n{markdown_table(_pattern_rows(seen))}",
        f"## Shapes, spacings and volumes\n\n{markdown_table(_range_rows(seen))}",
        f"## Intensities inside the head, median of the cases\n\n{markdown_table(_intensity_rows(seen))}",
        f"## Swaps that would be noticed\n\n{_noticed(seen)}",
        f"## Suspicions\n\n{_told(seen.findings, dataset)}",
    ]
    unfinished = folder / "summary.md.unfinished"
    unfinished.write_text("\n".join(parts), encoding="utf-8")
    unfinished.replace(folder / "summary.md")


def _state_rows(seen: Inspection) -> list[list[str]]:
    rows = []
    for m, name in enumerate(seen.names):
        counts = Counter(record.states[m] for record in seen.records)
        rows.append([name, *(str(counts[state]) for state in STATES)])
    return [["modality", *STATES], *rows]


def _pattern_rows(seen: Inspection) -> list[list[str]]:
    counts = Counter(record.pattern for record in seen.records)
    rows = [[pattern_name(p, seen.names), str(n), f"{n / len(seen.records):.0%}"] for p, n in counts.most_common()]
    return [["what there is", "cases", "share"], *rows]


def pattern_name(pattern: Sequence[bool], names: Sequence[str]) -> str:
    """Say which modalities there are.

    Example:
        >>> pattern_name([True, False, True], ["FLAIR", "T1", "T2"])
        'FLAIR+T2'
        >>> pattern_name([True, True], ["T1", "T2"])
        'all'
    """
    if all(pattern):
        return "all"
    return "+".join(name for name, flag in zip(names, pattern, strict=True) if flag) or "none"


def _range_rows(seen: Inspection) -> list[list[str]]:
    rows = [
        _range_row(f"{what} {axis}{unit}", _along(seen.records, what, i))
        for what, unit in (("shape", ""), ("spacing", ", mm"))
        for i, axis in enumerate("zyx")
    ]
    rows.append(_range_row("head, ml", [r.head_ml for r in seen.records if r.head_ml is not None]))
    for region in seen.regions:
        volumes = [record.volumes_ml[region] for record in seen.records if region in record.volumes_ml]
        empty = sum(volume == 0 for volume in volumes)
        rows.append(_range_row(f"{region}, ml" + (f" (none in {empty} cases)" if empty else ""), volumes))
    return [["", "cases", "smallest", "median", "largest"], *rows]


def _along(records: Sequence[CaseRecord], what: str, axis: int) -> list[float]:
    values = [getattr(record, what) for record in records]
    return [value[axis] for value in values if value is not None and len(value) == 3]


def _range_row(name: str, values: Sequence[float]) -> list[str]:
    if not values:
        return [name, "0", "", "", ""]
    return [name, str(len(values)), *(f"{value:.4g}" for value in (min(values), np.median(values), max(values)))]


def _intensity_rows(seen: Inspection) -> list[list[str]]:
    rows = []
    for m, name in enumerate(seen.names):
        values = [record.percentiles[m] for record in seen.records if record.percentiles[m] is not None]
        medians = np.median(np.array(values, float), axis=0) if values else [float("nan")] * len(PERCENTILES)
        rows.append([name, str(len(values)), *(f"{value:.4g}" for value in medians)])
    return [["modality", "cases", *(f"p{percentile}" for percentile in PERCENTILES)], *rows]


def _noticed(seen: Inspection) -> str:
    rows = [
        [f"{seen.names[m]} and {seen.names[k]}", f"{found} of {tried}"]
        for (m, k), (found, tried) in count_noticed(seen.records).items()
    ]
    if not rows:
        return "The cohort is too small to tell modalities apart by their intensities.\n"
    table = markdown_table([["exchanged", "noticed"], *rows])
    return f"Two images of one case exchanged in thought, tried with every case that has both:\n\n{table}"


def _told(findings: Sequence[Finding], dataset: Path) -> str:
    if not findings:
        return "None.\n"
    lines = []
    for kind in dict.fromkeys(finding.kind for finding in findings):
        group = [finding for finding in findings if finding.kind == kind]
        lines.append(f"**{kind}** ({len(group)})\n")
        for finding in group[:_MAX_TOLD]:
            file = finding.file.replace(f"{dataset}/", "")
            where = f"{finding.case}: {file}: " if file else f"{finding.case}: "
            lines.append(f"- {where}{finding.reason.replace(f'{dataset}/', '')}: {finding.remedy}")
        if len(group) > _MAX_TOLD:
            lines.append(f"- and {len(group) - _MAX_TOLD} more, see suspicions.csv")
        lines.append("")
    return "\n".join(lines)
