"""Bars: in a terminal they say which case of how many; in a file one line remains; quiet is quiet."""

import io
import logging
import sys

import pytest

from nnunetv2_d2net.base.progress import Bar, is_watched


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logger(caplog):
    logger = logging.getLogger("nnunetv2_d2net")
    level = logger.level
    caplog.set_level(logging.INFO, "nnunetv2_d2net")
    yield logger
    logger.setLevel(level)


def test_a_terminal_sees_which_case_of_how_many(monkeypatch, logger, caplog):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(Bar(iter("abc"), title="convert", total=5, n_done=2)) == ["a", "b", "c"]
    assert "convert: case 2 of 5 |" in sys.stderr.getvalue()
    assert "convert: case 5 of 5 |" in sys.stderr.getvalue()
    assert not caplog.messages
    list(Bar("a", title="", total=1))
    assert "\rcase 0 of 1 |" in sys.stderr.getvalue()


def test_a_file_gets_one_line_with_the_count(monkeypatch, logger, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar(title="train", total=5, unit="step", n_done=2) as bar:
        bar.update()
        bar.set_postfix_str("Dice 0.9")
        bar.update(2)
    assert sys.stderr.getvalue() == ""
    assert caplog.messages == ["train: 3 steps in 00:00"]
    assert list(Bar([], title="convert", total=2, n_done=2)) == []
    assert len(caplog.messages) == 1  # nothing was done


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("way", ["not shown", "quiet"])
def test_nothing_is_said_where_it_is_not_wanted(stream, way, monkeypatch, logger, caplog):
    monkeypatch.setattr(sys, "stderr", stream())
    logger.setLevel(logging.WARNING if way == "quiet" else logging.INFO)
    assert list(Bar("abc", title="convert", total=3, shown=way == "quiet")) == ["a", "b", "c"]
    assert sys.stderr.getvalue() == ""
    assert not caplog.messages


def test_bars_of_others_are_for_whom_watches(monkeypatch, logger):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert is_watched()
    logger.setLevel(logging.WARNING)
    assert not is_watched()
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not is_watched()
