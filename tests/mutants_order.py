"""In which order the tests of a mutant are tried; :mod:`tests.mutants` lays this file into the copy as a conftest.py.

pytest stops at the first failure. So first those that have noticed other mutants of the function, then those that have
noticed others of its file, then the quickest.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOTICED, STATS = HERE / "noticed.txt", HERE / "mutmut-stats.json"


def function() -> str:
    """Name the function that is changed in this process; nothing if none is."""
    return os.environ.get("MUTANT_UNDER_TEST", "").rpartition("__mutmut_")[0]


def place_of(changed: str, noticed: list[list[str]], seconds: dict[str, float]) -> Callable[[str], tuple]:
    """Return what tells the place of a test; ``noticed`` are functions, and the test that has noticed a mutant of it.

    Example:
        >>> sorted("abcd", key=place_of("m.f", [["m.f", "c"], ["m.g", "b"], ["n.f", "a"]], {"a": 2, "d": 1}))
        ['c', 'b', 'd', 'a']
    """
    of_function = Counter(test for name, test in noticed if name == changed)
    of_file = Counter(test for name, test in noticed if name.rpartition(".")[0] == changed.rpartition(".")[0])
    return lambda test: (-of_function[test], -of_file[test], seconds.get(test, 0))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort them."""
    if function() and STATS.is_file():
        lines = NOTICED.read_text(encoding="utf-8").splitlines() if NOTICED.is_file() else []
        seconds = json.loads(STATS.read_text(encoding="utf-8"))["duration_by_test"]
        place = place_of(function(), [line.split(" ", 1) for line in lines], seconds)
        items.sort(key=lambda item: place(item.nodeid))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep which test has noticed it."""
    if report.failed and function():
        with NOTICED.open("a", encoding="utf-8") as file:
            file.write(f"{function()} {report.nodeid}\n")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tell tests that a mutant keeps from being imported, which has then been noticed, from tests that were stopped."""
    if function() and exitstatus == pytest.ExitCode.INTERRUPTED and session.testsfailed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
