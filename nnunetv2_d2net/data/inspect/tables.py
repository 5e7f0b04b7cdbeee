"""The cohort in tables: summary.md, and every case and every suspicion in cases.csv and suspicions.csv."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import pandas as pd

from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.orientation import mixed_line
from nnunetv2_d2net.base.text import counted, markdown_table
from nnunetv2_d2net.data.inspect.record import PERCENTILES, STATES, Finding, Inspection, measurements, pattern_name
from nnunetv2_d2net.data.inspect.swaps import count_noticed

_MAX_LISTED = 20
"""Suspicions of one kind that the summary lists; suspicions.csv has all."""

_SIZES = {"shape": "shape {}", "spacing": "spacing {}, mm", "head": "{}, ml", "volume": "{}, ml"}


def write_tables(inspection: Inspection, folder: Path) -> None:
    """Write ``summary.md``, ``cases.csv``, a row per case, and ``suspicions.csv``, a row per suspicion.

    Raises:
        UserError: They cannot be written.
    """
    suspicions = pd.DataFrame(inspection.findings, columns=Finding._fields)
    for name, table in (("cases", _case_table(inspection, suspicions)), ("suspicions", suspicions)):
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\r\n"))
    write_text(folder / "summary.md", _summary(inspection))


def _case_table(inspection: Inspection, suspicions: pd.DataFrame) -> pd.DataFrame:
    names, regions = inspection.dataset.channels, inspection.dataset.regions
    kinds = suspicions.drop_duplicates(["case", "kind"]).groupby("case")["kind"].agg("; ".join)
    unknown = [np.nan] * len(PERCENTILES)
    columns = ["case", *names, "shape (z y x)", "spacing (z y x) mm", "orientation", "head ml"]
    columns += [f"{region} ml" for region in regions]
    columns += [f"{name} p{percentile}" for name in names for percentile in PERCENTILES]
    rows = [
        [
            record.case,
            *record.states,
            " ".join(map(str, record.shape or ())),
            " ".join(f"{mm:.6g}" for mm in record.spacing or ()),
            record.orientation,
            record.head_ml,
            *(record.volumes_ml.get(region) for region in regions),
            *chain.from_iterable(values or unknown for values in record.percentiles),
            kinds.get(record.case, ""),
        ]
        for record in sorted(inspection.records, key=lambda record: record.case)
    ]
    return pd.DataFrame(rows, columns=[*columns, "suspicions"])


def _summary(inspection: Inspection) -> str:
    suspicions = "\n".join(_suspicion_lines(inspection)) or "None.\n"
    parts = [
        f"# {inspection.title}\n",
        f"{counted(len(inspection.records), 'case')}, {len(inspection.suspicious)} of them suspicious. "
        "Pictures: cohort.png, intensities.png, volumes.png. Each case: cases.csv. Each suspicion: suspicions.csv.\n",
        f"## Modalities\n\n{markdown_table(_state_rows(inspection))}",
        f"## Patterns\n\n{markdown_table(_pattern_rows(inspection))}",
        f"## Shapes, spacings and volumes\n\n{markdown_table(_size_rows(inspection))}",
        f"{orientation_line(inspection)}.\n",
        f"## Intensities inside the head, median of the cases\n\n{markdown_table(_intensity_rows(inspection))}",
        f"## Swaps that would be noticed\n\n{_noticed_swaps(inspection)}",
        f"## Suspicions\n\n{suspicions}",
    ]
    return "\n".join(parts)


def orientation_line(inspection: Inspection) -> str:
    """Say how the cases lie, and what to do where that differs."""
    counts = inspection.orientations
    return mixed_line(counts) or f"orientation: {next(iter(counts), '') or 'not known'}"


def _state_rows(inspection: Inspection) -> list[list[str]]:
    rows = [["modality", *STATES]]
    for m, name in enumerate(inspection.dataset.channels):
        counts = Counter(record.states[m] for record in inspection.records)
        rows.append([name, *(str(counts[state]) for state in STATES)])
    return rows


def _pattern_rows(inspection: Inspection) -> list[list[str]]:
    names, total = inspection.dataset.channels, len(inspection.records)
    counts = Counter(record.pattern for record in inspection.records)
    rows = [[pattern_name(pattern, names), str(n), f"{n / total:.0%}"] for pattern, n in counts.most_common()]
    return [["what there is", "cases", "share"], *rows]


def _size_rows(inspection: Inspection) -> list[list[str]]:
    rows = [["", "cases", "smallest", "median", "largest"]]
    for (what, part), values in measurements(inspection.records, inspection.dataset.regions).items():
        known, name = values.dropna(), _SIZES[what].format(part)
        if what == "volume" and (empty := (known == 0).sum()):
            name += f" (none in {counted(empty, 'case')})"
        numbers = [f"{value:.4g}" for value in (known.min(), known.median(), known.max())] if len(known) else [""] * 3
        rows.append([name, str(len(known)), *numbers])
    return rows


def _intensity_rows(inspection: Inspection) -> list[list[str]]:
    rows = [["modality", "cases", *(f"p{percentile}" for percentile in PERCENTILES)]]
    for m, name in enumerate(inspection.dataset.channels):
        known = [record.percentiles[m] for record in inspection.records if record.percentiles[m] is not None]
        medians = pd.DataFrame(known, columns=PERCENTILES).median()
        rows.append([name, str(len(known)), *(f"{value:.4g}" for value in medians)])
    return rows


def _noticed_swaps(inspection: Inspection) -> str:
    names = inspection.dataset.channels
    rows = [
        [f"{names[m]} and {names[k]}", f"{noticed} of {tried}"]
        for (m, k), (noticed, tried) in count_noticed(inspection.records).items()
    ]
    if not rows:
        return "The cohort is too small to tell modalities apart by their intensities.\n"
    table = markdown_table([["exchanged", "noticed"], *rows])
    return f"Two images of one case exchanged in thought, tried with every case that has both:\n\n{table}"


def _suspicion_lines(inspection: Inspection) -> Iterator[str]:
    """Say each suspicion in a line, kind after kind; the folder of the data set is left out of file names."""
    folder = f"{inspection.folder}/"
    for kind, findings in groupby(inspection.findings, lambda finding: finding.kind):
        group = list(findings)
        yield f"**{kind}** ({len(group)})\n"
        for case, _, file, reason, remedy in group[:_MAX_LISTED]:
            where = f"{case}: {file}: " if file else f"{case}: "
            yield f"- {where.replace(folder, '')}{reason.replace(folder, '')}: {remedy}"
        if len(group) > _MAX_LISTED:
            yield f"- and {len(group) - _MAX_LISTED} more, see suspicions.csv"
        yield ""
