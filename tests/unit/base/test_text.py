import errno

import numpy as np
import pytest

from nnunetv2_d2net.base.text import counted, last_line, listed, markdown_table, reason_of, shortened, version_of


@pytest.mark.parametrize(
    ("error", "line", "reason"),
    [
        (OSError(errno.ENOSPC, "No space", "a.nii"), f"[Errno {errno.ENOSPC}] No space: 'a.nii'", "No space"),
        (OSError("no number"), "no number", "no number"),
        (ValueError("first\n\n  last  \n \n"), "last", "last"),
        (ValueError(""), "ValueError", "ValueError"),
        (ValueError("\n"), "ValueError", "ValueError"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (KeyError("key"), "'key'", "'key'"),
        (RuntimeError("first\r\nlast\r\n"), "last", "last"),
    ],
)
def test_why_something_failed(error, line, reason):
    assert last_line(error) == line
    assert reason_of(error) == reason


def test_counts():
    assert [counted(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


@pytest.mark.parametrize(
    ("n", "most", "text"),
    [(0, 5, ""), (1, 5, "0"), (5, 5, "0, 1, 2, 3, 4"), (6, 5, "0, 1, 2, 3, 4 and 1 more"), (3, 1, "0 and 2 more")],
)
def test_lists(n, most, text):
    assert listed(range(n), most) == text
    assert listed([*range(n)], most) == listed(np.arange(n), most) == text
    assert most != 5 or listed(range(n)) == text


def test_long_outputs_are_shortened():
    lines = [str(i) for i in range(31)]
    assert shortened(lines[:30]) == lines[:30]
    assert shortened(lines) == [*lines[:30], "... and 1 more"]
    assert shortened(lines, 2) == ["0", "1", "... and 29 more"]
    assert shortened([]) == []


def test_a_table_is_aligned():
    rows = [["", "Dice"], ["whole tumor", "0.9"], ["a", ""]]
    assert markdown_table(rows) == (
        "|             | Dice |\n|-------------|------|\n| whole tumor | 0.9  |\n| a           |      |\n"
    )


def test_versions():
    assert version_of("numpy") == np.__version__
    assert version_of("no-such-package-anywhere") is None
