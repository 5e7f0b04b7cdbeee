"""What help prints beyond the arguments of a command: groups, examples, what nnU-Net takes, and the pages."""

import argparse
from pathlib import Path

import nnunetv2_d2net
from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.cli._commands import COMMANDS, GROUPS, Command
from nnunetv2_d2net.cli._nnunet_arguments import ARGUMENTS
from nnunetv2_d2net.cli._words import guess

_COLUMN, _WIDTH = 26, 120


class HelpFormatter(argparse.HelpFormatter):
    """Wraps texts, but for those that have lines of their own, which are laid out already."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _entry(name: str, meaning: str) -> str:
    """Lay out a name and what it means, as argparse does, one below the other where the name is long."""
    gap = " " * (_COLUMN - 2 - len(name)) if len(name) < _COLUMN - 3 else "\n" + " " * _COLUMN
    return f"  {name}{gap}{meaning}"


def overview() -> str:
    """List all commands by group, and the pages."""
    groups = [
        "\n".join([f"{title}:", *(_entry(name, command.summary) for name, command in group.items())])
        for title, group in GROUPS.items()
    ]
    more = "d2net help COMMAND says what a command takes, d2net help PAGE prints a page:\n  "
    return "\n\n".join([*groups, more + " ".join(sorted(pages()))])


def epilog_of(command: Command) -> str:
    """List what nnU-Net's command takes besides, the examples, and where to read on."""
    taken = [_entry(f"{flag} {value}".rstrip(), meaning) for flag, value, meaning in ARGUMENTS.get(command.nnunet, ())]
    parts = ["\n".join([f"handed on to {command.nnunet} as it is:", *taken])] if taken else []
    examples = "\n".join(["examples:", *(f"  {example}" for example in command.examples)])
    return "\n\n".join([*parts, examples, f"read on: d2net help {page_name(command.page)}"])


def pages() -> dict[str, Path]:
    """Return the pages of the documentation, by name: the package brings them, a checkout has them beside it."""
    package = Path(nnunetv2_d2net.__file__).parent
    folder = next(folder for folder in (package / "docs", package.parent / "docs") if (folder / "usage.md").is_file())
    return {page_name(path.stem): path for path in folder.glob("*.md")}


def page_name(stem: str) -> str:
    """Return what ``d2net help`` calls a page: as its file, where a command has the name without ending.

    Example:
        >>> page_name("metrics"), page_name("benchmark")
        ('metrics', 'benchmark.md')
    """
    return f"{stem}.md" if stem in COMMANDS else stem


def page_named(name: str) -> str:
    """Return the text of a page, which may be called as its file is: ``metrics``, ``metrics.md``, ``docs/metrics.md``.

    Raises:
        UsageError: There is no such page.
    """
    known, page = pages(), page_name(name.removeprefix("docs/").removesuffix(".md"))
    if page not in known:
        raise UsageError(f"{name} is no command and no page{guess(name, known)}: d2net help lists them")
    return known[page].read_text(encoding="utf-8")
