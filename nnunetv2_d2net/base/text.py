"""How things are said: counts, lists, tables, reasons, versions."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def last_line(error: BaseException) -> str:
    r"""Say what an exception says in one line; ITK's messages have many, the reason is in the last.

    Example:
        >>> last_line(RuntimeError("Exception thrown in ReadImage:\nno such file\n")), last_line(EOFError())
        ('no such file', 'EOFError')
    """
    return next((line.strip() for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)


def reason_of(error: BaseException) -> str:
    """Say why something failed: in the system's words where it has any, else in the exception's."""
    return getattr(error, "strerror", None) or last_line(error)


def counted(n: int, noun: str) -> str:
    """Put a number before a noun.

    Example:
        >>> counted(1, "case"), counted(3, "case")
        ('1 case', '3 cases')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(items: Sequence[object], most: int = 5) -> str:
    """Name the first items and count the others.

    Example:
        >>> listed("abc"), listed("abcdefg")
        ('a, b, c', 'a, b, c, d, e and 2 more')
    """
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more} more" if more > 0 else "")


def shortened(lines: Sequence[str], most: int = 30) -> list[str]:
    """Keep the first lines, and say how many are left out."""
    more = len(lines) - most
    return [*lines[:most], *([f"... and {more} more"] if more > 0 else [])]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of cells out as a Markdown table, aligned so that it also reads well in a terminal.

    Args:
        rows: The header first, all of one length.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]) + "\n"


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
