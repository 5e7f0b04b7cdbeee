"""The report's tables as Markdown."""

import math
from collections.abc import Sequence

from nnunetv2_d2net.study.report.benchmark_folder import Benchmark
from nnunetv2_d2net.study.report.contest import p_words, signed
from nnunetv2_d2net.study.report.curves import charts
from nnunetv2_d2net.study.report.facts import arm_table, setup_rows
from nnunetv2_d2net.study.report.heat_maps import lead_contests
from nnunetv2_d2net.study.report.page import published_tables
from nnunetv2_d2net.study.report.verdict import verdict
from nnunetv2_d2net.study.scores.published import NOTE
from nnunetv2_d2net.study.scores.subset_table import markdown_table
from nnunetv2_d2net.study.scores.tables import METRICS, arms_table


def markdown_page(benchmark: Benchmark, *, published: bool = False) -> str:
    """Return verdict, tables and setup, in the page's order."""
    found = verdict(benchmark)
    parts = [
        f"# {benchmark.setup.get('dataset')}: what is gained and lost with missing modalities",
        *(f"**{line.claim}** {line.figures}".rstrip() for line in found.headlines),
        *found.notes,
        "Research use only, not a medical device.",
        _table(
            [
                ["arm", found.average, "complete input"],
                *([s.arm, _number(s.average), _number(s.complete)] for s in found.standings),
            ]
        ),
        "\n".join(f"- {line}" for line in found.others),
        *(f"## {arms_table(benchmark.scores, metric, benchmark.modalities).markdown()}" for metric in METRICS),
        *_leads(benchmark),
        *_curves(benchmark),
        "## Setup and costs",
        _table([["", ""], *setup_rows(benchmark)]),
        _table(arm_table(benchmark)),
    ]
    if published:
        parts += ["## Published figures: another data set", f"{NOTE}."]
        parts += [f"{title}\n\n{_table(rows)}" for title, rows in published_tables()]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _leads(benchmark: Benchmark) -> list[str]:
    rows = [["available", "region", "best rival", "difference", "95 % interval", "p", "p (Holm)", "n"]]
    rows += [
        [
            c.subset,
            c.region,
            c.rival,
            f"{signed(c.difference)}{c.mark}",
            f"{signed(c.ci_low)} to {signed(c.ci_high)}" if math.isfinite(c.ci_low) else "-",
            p_words(c.p),
            p_words(c.p_holm),
            str(c.n),
        ]
        for c in lead_contests(benchmark, benchmark.focus).values()
    ]
    if len(rows) == 1:
        return []
    marks = "\\* p < 0.05, \\*\\* p < 0.01, \\*\\*\\* p < 0.001 after Holm's correction over the subsets."
    return [f"## Dice of {benchmark.focus} minus that of the best rival", marks, _table(rows)]


def _curves(benchmark: Benchmark) -> list[str]:
    found = charts(benchmark)
    if not found:
        return []
    numbers = range(len(found[0].x_ticks))
    rows = [["region", "arm", *(f"{n} missing" for n in numbers)]]
    rows += [
        [chart.region, curve.arm, *(_number(curve.values.get(n)) for n in numbers)]
        for chart in found
        for curve in chart.curves
    ]
    return ["## Dice by the number of missing modalities", _table(rows)]


def _table(rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([[cell.replace("|", "\\|") for cell in row] for row in rows])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
