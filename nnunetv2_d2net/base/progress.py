"""Progress: a bar where somebody watches, one line with a count in a file, nothing where it is not wanted."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from nnunetv2_d2net.base.text import counted

_LOG = logging.getLogger("nnunetv2_d2net")
_FORMAT = "{desc}{unit} {n_fmt} of {total_fmt} |{bar}| {elapsed}, {remaining} left{postfix}"


def is_watched() -> bool:
    """Whether bars are wanted and somebody sees them move; for those of others, which know no line in a file."""
    return _LOG.level < logging.WARNING and sys.stderr.isatty()


class _Nobody:
    """A stream that nobody reads."""

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


class Bar(tqdm):
    """A progress bar on stderr; where that is no terminal it says at its end how much there was, and how long it took.

    Args:
        items: What to go through; None for calls of ``update``.
        title: Of the bar.
        total: How many there are, with those that are done.
        unit: What one is.
        n_done: How many are done already.
        shown: Whether to say anything.
    """

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        *,
        title: str,
        total: int,
        unit: str = "case",
        n_done: int = 0,
        shown: bool = True,
    ) -> None:
        shown = shown and _LOG.level < logging.WARNING  # which -q sets
        self.is_told = shown and not sys.stderr.isatty()
        stream = _Nobody() if self.is_told else sys.stderr
        settings = {
            "desc": f"{title}: " if title else "",
            "unit": unit,
            "initial": n_done,
            "bar_format": _FORMAT,
            "disable": not shown,
        }
        super().__init__(items, total=total, file=stream, **settings)

    def __iter__(self) -> Iterator[Any]:
        """Go through the items; tqdm's types say that they are texts."""
        yield from super().__iter__()

    def close(self) -> None:
        """Leave the bar; in a file, say what it counted."""
        if self.is_told and not self.disable and self.n > self.initial:
            seconds = self.format_interval(self.format_dict["elapsed"])
            _LOG.info("%s%s in %s", self.desc, counted(self.n - self.initial, self.unit), seconds)
        super().close()
