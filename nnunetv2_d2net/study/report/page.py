"""Assembles the page: one file, whose text is escaped and whose scripts are the only ones that may run."""

import base64
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.report.benchmark_folder import Benchmark
from nnunetv2_d2net.study.report.cases import Viewer
from nnunetv2_d2net.study.report.curves import HEIGHT, WIDTH, charts
from nnunetv2_d2net.study.report.facts import arm_table, setup_rows
from nnunetv2_d2net.study.report.heat_maps import lead_groups, value_groups
from nnunetv2_d2net.study.report.verdict import verdict
from nnunetv2_d2net.study.scores.published import NOTE, published_dice, published_distances
from nnunetv2_d2net.study.scores.tables import subset_order

_PAPERS_MODALITIES = ("FLAIR", "T1", "T1ce", "T2")


def html_page(benchmark: Benchmark, viewer: Viewer | None, *, published: bool = False) -> str:
    """Return the whole page.

    Args:
        benchmark: What was scored.
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
    return environment.get_template("page.html").render(
        benchmark=benchmark,
        setup=benchmark.setup,
        verdict=verdict(benchmark),
        values=value_groups(benchmark),
        leads=lead_groups(benchmark),
        charts=charts(benchmark),
        chart_size=(WIDTH, HEIGHT),
        facts=setup_rows(benchmark),
        arms=arm_table(benchmark),
        viewer=viewer,
        content=script_json(viewer.content) if viewer else "",
        published=published_tables() if published else [],
        published_note=NOTE,
        style=Markup(_file("style.css")),
        scripts=scripts,
        policy=_policy(scripts),
    )


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


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror}): free space, or pass another -o") from error


def _file(name: str) -> str:
    return (resources.files("nnunetv2_d2net.study.report") / "page" / name).read_text(encoding="utf-8")


def _policy(scripts: list[Markup]) -> str:
    """Forbid the page all network, and all scripts but its own."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
