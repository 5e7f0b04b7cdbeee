"""How the arms were trained, on what and where, and what they cost: tables of names and values."""

from collections.abc import Callable
from typing import Any

from nnunetv2_d2net.study.report.benchmark_folder import Benchmark


def setup_rows(benchmark: Benchmark) -> list[tuple[str, str]]:
    """List what all arms share."""
    setup = benchmark.setup
    regions = ", ".join(f"{name} (labels {_words(values)})" for name, values in benchmark.regions.items())
    which = "test cases" if setup.get("cases") == "test" else "validation cases of the folds"
    rows = [
        ("data set", setup.get("dataset")),
        ("cases", f"{benchmark.n_cases} {which}"),
        ("modalities", _words(benchmark.modalities)),
        ("regions", regions),
        ("plans", setup.get("plans")),
        ("configuration", setup.get("configuration")),
        ("folds", _words(setup.get("folds", ()))),
        ("mirroring in prediction", "yes" if setup.get("mirroring") else "no"),
        ("command", setup.get("command")),
        ("started", setup.get("started")),
        ("machine", _pairs(setup.get("machine"))),
        ("versions", _pairs(setup.get("versions"))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def arm_table(benchmark: Benchmark) -> list[list[str]]:
    """Lay out how each arm was trained and what it cost: a header, and a row for each arm."""
    described = {arm["name"]: arm for arm in benchmark.setup["arms"]}
    rows = [["arm", *(title for title, _, _ in _COLUMNS)]]
    for arm in benchmark.arms:
        known = described[arm] | benchmark.costs[arm]
        rows.append([arm, *(_cell(known.get(key), show) for _, key, show in _COLUMNS)])
    return rows


def duration(seconds: float) -> str:
    """Print a time of training.

    Example:
        >>> duration(50), duration(1230), duration(40000)
        ('50 s', '20.5 min', '11.1 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _words(values: Any) -> str:  # noqa: ANN401 - whatever setup.json holds
    return " ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)


_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("epochs", "epochs", str),
    ("steps per epoch", "steps_per_epoch", str),
    ("batch", "batch_size", str),
    ("patch", "patch_size", lambda sides: " x ".join(map(str, sides))),
    ("training", "training_seconds", duration),
    ("step (s)", "step_seconds", lambda seconds: f"{seconds:.3g}"),
    ("peak memory (GiB)", "peak_memory_GiB", lambda gib: f"{gib:.2f}"),
    ("parameters", "parameters", lambda n: f"{n:,}"),
    ("parameters in prediction", "inference_parameters", lambda n: f"{n:,}"),
    ("GFLOPs per patch in prediction", "inference_gflops", lambda n: f"{n:,.1f}"),
    ("measured on", "device", str),
)


def _cell(value: Any, show: Callable[[Any], str]) -> str:  # noqa: ANN401
    return "-" if value is None else show(value)


def _pairs(values: Any) -> str:  # noqa: ANN401
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value is not None)
