"""A benchmark as one HTML page that opens with no network, and the same tables as Markdown."""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_text
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.plugin.protocols import as_words
from nnunetv2_d2net.study.report.choices import choice_notes, choice_rows
from nnunetv2_d2net.study.report.curves import Chart, charts, line_style
from nnunetv2_d2net.study.report.heat_maps import availability, lead_group, value_group
from nnunetv2_d2net.study.report.leads import best_rivals, interval, p_value
from nnunetv2_d2net.study.report.results import CASES, Benchmark
from nnunetv2_d2net.study.report.verdict import verdict
from nnunetv2_d2net.study.report.viewer import MOST_CASES, Viewer, make_viewer
from nnunetv2_d2net.study.scores.published import NOTE, published_dice, published_distances
from nnunetv2_d2net.study.scores.tables import METRICS, arms_table, count_inversions, subset_order

_NOTHING = "There is nothing to compare with."
_PAPERS_MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
_SUBTITLE = "what is gained and lost with missing modalities"
_INVERSIONS = "Pairs of a subset and one that holds it, where the smaller has the higher mean Dice"
_CHOICES = "Which network of a companion predicts (Dice of stock and student on the validation cases)"
_SECTIONS = {
    "verdict": "Verdict",
    "values": "Every subset and region",
    "leads": "Difference to the best rival",
    "curves": "By the number of missing modalities",
    "subsets": "More modalities, and which network",
    "viewer": "Cases",
    "setup": "Setup and costs",
    "published": "Published figures",
}
"""What the list of contents calls the page's sections."""
_HEAD = 2000  # characters in which a page says what it is
_LOG = logging.getLogger("nnunetv2_d2net")


def write_report(
    benchmark: Benchmark, page: Path, *, n_cases: int = MOST_CASES, published: bool = False, progress: bool = False
) -> None:
    """Write the page, and Markdown beside it; what cannot be shown of a case is logged, and left out.

    Args:
        benchmark: What was scored.
        page: The file, ``.html``; the Markdown's name ends in ``.md`` instead.
        n_cases: Cases to look at, half of them the worst ones; 0 leaves the viewer out.
        published: Add the figures that papers have printed.
        progress: Show a bar.

    Raises:
        UserError: A file cannot be written, or one of the same name is no report.
    """
    for path, sign in ((page.with_suffix(".md"), _SUBTITLE), (page, "<title>Benchmark of ")):
        if path.is_file() and sign not in path.read_text(encoding="utf-8", errors="replace")[:_HEAD]:
            raise UserError(f"{path} is no report, which would write over it: pass another -o, or move it away")
    viewer = make_viewer(benchmark, n_cases, progress=progress) if n_cases else None
    for problem in viewer.problems if viewer else ():
        _LOG.warning("left out of the viewer: %s", problem)
    drawn = charts(benchmark)
    write_text(page.with_suffix(".md"), markdown_page(benchmark, drawn, published=published))
    write_text(page, html_page(benchmark, drawn, viewer, published=published))


def html_page(benchmark: Benchmark, drawn: Sequence[Chart], viewer: Viewer | None, *, published: bool = False) -> str:
    """Return the whole page, whose text is escaped and whose scripts are the only ones that may run.

    Args:
        benchmark: What was scored.
        drawn: Its curves.
        viewer: Cases to look at; None leaves the viewer out.
        published: Add the figures that papers have printed.
    """
    names = ("page.js", "decoding.js", "drawing.js", "viewer.js") if viewer else ("page.js",)
    scripts = [Markup(_file(name)) for name in names]
    environment = Environment(
        loader=PackageLoader("nnunetv2_d2net.study.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["availability"] = availability
    leads = [lead_group(benchmark, arm) for arm in benchmark.arms if len(benchmark.arms) > 1]
    subsets = inversion_rows(benchmark), choice_rows(benchmark)
    shown = {"verdict", "values", "setup"}
    shown |= {name for name, there in (("leads", leads), ("curves", drawn), ("viewer", viewer)) if there}
    shown |= {name for name, there in (("subsets", any(subsets)), ("published", published)) if there}
    return environment.get_template("page.html").render(
        contents=[(name, title) for name, title in _SECTIONS.items() if name in shown],
        benchmark=benchmark,
        modalities=benchmark.dataset.channels,
        setup=benchmark.setup,
        verdict=verdict(benchmark),
        nothing=_NOTHING,
        values=[value_group(benchmark, metric) for metric in METRICS],
        leads=leads,
        charts=drawn,
        curve_rows=curve_rows(drawn),
        line_style=line_style,
        setup_rows=setup_rows(benchmark),
        arms=arm_rows(benchmark),
        viewer=viewer,
        content=script_json(viewer.content) if viewer else "",
        stock_notes=choice_notes(benchmark),
        inversions_title=_INVERSIONS,
        inversions=subsets[0],
        choices_title=_CHOICES,
        choices=subsets[1],
        published=published_tables() if published else [],
        published_note=NOTE,
        style=Markup(_file("style.css")),
        scripts=scripts,
        policy=_policy(scripts),
    )


def markdown_page(benchmark: Benchmark, drawn: Sequence[Chart], *, published: bool = False) -> str:
    """Return verdict, tables and setup, in the page's order."""
    judged = verdict(benchmark)
    standings = [[arm, *map(_number, means)] for arm, means in judged.standings.items()]
    parts = [
        f"# {benchmark.setup.get('dataset')}: {_SUBTITLE}",
        *([f"**{line.claim}** {line.figures}" for line in judged.headlines] or [f"**{_NOTHING}**"]),
        *judged.notes,
        "Research use only, not a medical device.",
        _table([["arm", judged.average, "complete input"], *standings, ["cases", *map(str, judged.n_cases)]]),
        "\n".join(f"- {line.claim} {line.figures}" for line in judged.others),
        *choice_notes(benchmark),
        *(
            f"## {arms_table(benchmark.scores, metric, benchmark.dataset.channels, benchmark.weights).markdown()}"
            for metric in METRICS
        ),
        *_leads(benchmark),
    ]
    if drawn:
        parts += ["## Dice by the number of missing modalities", _table(curve_rows(drawn))]
    if inversions := inversion_rows(benchmark):
        parts += [f"## {_INVERSIONS}", _table(inversions)]
    if chosen := choice_rows(benchmark):
        parts += [f"## {_CHOICES}", _table(chosen)]
    parts += ["## Setup and costs", _table([["", ""], *setup_rows(benchmark)]), _table(arm_rows(benchmark))]
    if published:
        parts += ["## Published figures: another data set", f"{NOTE}."]
        parts += [f"{title}\n\n{_table(rows)}" for title, rows in published_tables()]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def setup_rows(benchmark: Benchmark) -> list[tuple[str, str]]:
    """List what all arms share."""
    setup = benchmark.setup
    regions = (f"{name} (labels {_joined(values)})" for name, values in benchmark.dataset.regions.items())
    rows = [
        ("data set", setup.get("dataset")),
        ("cases", f"{len(benchmark.cases)} {CASES['test' if setup.get('cases') == 'test' else 'folds']}"),
        ("modalities", _joined(benchmark.dataset.channels)),
        ("regions", ", ".join(regions)),
        ("plans", setup.get("plans")),
        ("configuration", setup.get("configuration")),
        ("subsets", _joined(as_words(setup.get("subsets", {})))),
        ("folds", _joined(setup.get("folds", ()))),
        ("mirroring in prediction", "yes" if setup.get("mirroring") else "no"),
        ("seed of the trainings", "none" if setup.get("seed") is None else str(setup["seed"])),
        ("command", setup.get("command")),
        ("started", setup.get("started")),
        ("machine", _pairs(setup.get("machine"))),
        ("versions", _pairs(setup.get("versions"))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def duration(seconds: float) -> str:
    """Print a time of training.

    Example:
        >>> duration(50), duration(1230), duration(40000)
        ('50 s', '20.5 min', '11.1 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "epochs": ("epochs", str),
    "steps_per_epoch": ("steps per epoch", str),
    "batch_size": ("batch", str),
    "patch_size": ("patch", lambda sides: " x ".join(map(str, sides))),
    "training_seconds": ("training", duration),
    "step_seconds": ("step (s)", lambda seconds: f"{seconds:.3g}"),
    "peak_memory_GiB": ("peak memory (GiB)", lambda gib: f"{gib:.2f}"),
    "parameters": ("parameters", lambda n: f"{n:,}"),
    "inference_parameters": ("parameters in prediction", lambda n: f"{n:,}"),
    "stored_parameters": ("parameters stored for it", lambda n: f"{n:,}"),
    "inference_gflops": ("GFLOPs per patch in prediction", lambda n: f"{n:,.1f}"),
    "device": ("measured on", str),
}


def arm_rows(benchmark: Benchmark) -> list[list[str]]:
    """Lay out how each arm was trained and what it cost: a header, and a row for each arm."""
    rows = [["arm", *(title for title, _ in _COLUMNS.values())]]
    for arm in benchmark.setup["arms"]:
        known = arm | benchmark.costs[arm["name"]]
        if n_steps := arm.get("steps_before"):
            known["epochs"] = f"({n_steps} steps of a part) + {arm['epochs']}"
        if start := arm.get("start"):
            known["epochs"] = f"{start['epochs']} + {known['epochs']}, from {Path(start['from']).name}"
        cells = ((known.get(key), show) for key, (_, show) in _COLUMNS.items())
        rows.append([arm["name"], *("-" if value is None else show(value) for value, show in cells)])
    return rows


def curve_rows(drawn: Sequence[Chart]) -> list[list[str]]:
    """Lay out the figures of the curves: a header, and a row for each region and arm."""
    curves = [curve for chart in drawn for curve in chart.curves.values()]
    numbers = range(1 + max((number for curve in curves for number in curve), default=0))
    rows = [["region", "arm", *(f"{number} missing" for number in numbers)]]
    for chart in drawn:
        rows += [[chart.region, arm, *(_number(c.get(n)) for n in numbers)] for arm, c in chart.curves.items()]
    return rows


def inversion_rows(benchmark: Benchmark) -> list[list[str]]:
    """Lay out how often more modalities gave less: a header, and a row for each arm; empty if no subset holds one."""
    counts = {arm: count_inversions(scores) for arm, scores in benchmark.scores.items()}
    regions = list(dict.fromkeys(region for by_region in counts.values() for region in by_region))
    rows = [["arm", *regions]] if regions else []
    for arm, by_region in counts.items() if regions else ():
        parts = [by_region.get(region) for region in regions]
        rows.append([arm, *("-" if part is None else f"{part.inverted} of {part.pairs}" for part in parts)])
    return rows


def published_tables() -> list[tuple[str, list[list[str]]]]:
    """Return titles and rows of the figures that papers have printed."""
    columns = [*subset_order(_PAPERS_MODALITIES), "mean of 15"]
    return [
        ("Dice", published_dice(columns)),
        ("Distances in mm, mean of 15 subsets", published_distances()),
    ]


def script_json(content: Any) -> Markup:  # noqa: ANN401 - whatever JSON can hold
    r"""Write JSON that no text in it can end the script element of.

    Example:
        >>> str(script_json({"case": "</script>"}))
        '{"case":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _leads(benchmark: Benchmark) -> list[str]:
    rows = []
    for lead in best_rivals(benchmark, benchmark.focus).values():
        test = lead.test
        cells = [test.subset, test.region, test.rival, lead.marked, interval(test.ci_low, test.ci_high)]
        rows.append([*cells, p_value(test.p), p_value(test.p_holm), str(test.n)])
    if not rows:
        return []
    header = ["available", "region", "best rival", "difference", "95 % interval", "p", "p (Holm)", "n"]
    marks = "\\* p < 0.05, \\*\\* p < 0.01, \\*\\*\\* p < 0.001 after Holm's correction over the subsets."
    return [f"## Dice of {benchmark.focus} minus that of the best rival", marks, _table([header, *rows])]


def _table(rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([[cell.replace("|", "\\|") for cell in row] for row in rows])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _joined(values: Any) -> str:  # noqa: ANN401 - whatever setup.json holds
    return " ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)


def _pairs(values: Any) -> str:  # noqa: ANN401
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value is not None)


def _file(name: str) -> str:
    return (resources.files("nnunetv2_d2net.study.report") / "page" / name).read_text(encoding="utf-8")


def _policy(scripts: list[Markup]) -> str:
    """Forbid the page all network, and all scripts but its own."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
