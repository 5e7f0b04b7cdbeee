"""Every case and every suspicion: cases.csv and suspicions.csv."""

import csv
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.data.inspect.inspect_cohort import Inspection
from nnunetv2_d2net.data.inspect.record import PERCENTILES, Finding


def write_tables(seen: Inspection, folder: Path) -> None:
    """Write ``cases.csv``, a row per case, and ``suspicions.csv``, a row per suspicion.

    Args:
        seen: The cohort.
        folder: Where to.
    """
    _write_csv(folder / "cases.csv", _case_rows(seen))
    _write_csv(folder / "suspicions.csv", [Finding._fields, *seen.findings])


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    unfinished.replace(path)


def _case_rows(seen: Inspection) -> list[Sequence[object]]:
    kinds: dict[str, list[str]] = {}
    for finding in seen.findings:
        kinds.setdefault(finding.case, []).append(finding.kind)
    header = [
        "case",
        *seen.names,
        "shape (z y x)",
        "spacing (z y x) mm",
        "head ml",
        *(f"{region} ml" for region in seen.regions),
        *(f"{name} p{percentile}" for name in seen.names for percentile in PERCENTILES),
        "suspicions",
    ]
    rows = [
        [
            record.case,
            *record.states,
            " ".join(map(str, record.shape or ())),
            " ".join(f"{mm:.6g}" for mm in record.spacing or ()),
            _number(record.head_ml),
            *(_number(record.volumes_ml.get(region)) for region in seen.regions),
            *(_number(p) for values in record.percentiles for p in values or [None] * len(PERCENTILES)),
            "; ".join(dict.fromkeys(kinds.get(record.case, ()))),
        ]
        for record in sorted(seen.records, key=lambda record: record.case)
    ]
    return [header, *rows]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
