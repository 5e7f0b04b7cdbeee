"""Pages that are made while the site is built: all commands, the Python face, and what lies outside of docs/."""

import io
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import nnunetv2_d2net
from nnunetv2_d2net import cli
from nnunetv2_d2net.cli.main import main

ROOT = Path(__file__).resolve().parents[2]

FROM_ROOT = {
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "model_card.md": ROOT / "nnunetv2_d2net" / "weights" / "MODEL_CARD.md",
}
"""Pages of the site that lie elsewhere in the repository."""


def command_names() -> list[str]:
    """All commands: each has a file."""
    names = (path.stem for path in Path(cli.__path__[0]).glob("*.py"))
    return sorted(name for name in names if not name.startswith("_") and name != "main")


def help_of(*words: str) -> str:
    """Return what a command prints for ``--help``."""
    printed = io.StringIO()
    with redirect_stdout(printed), patch.dict("os.environ", {"COLUMNS": "100"}), suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def commands_page() -> str:
    """All commands with their help, as they print it."""
    helps = [f"## d2net {name}\n\n```text\n{help_of(name)}```\n" for name in command_names()]
    return "\n".join(["# Commands", f"```text\n{help_of()}```\n", *helps])


def python_page() -> str:
    """Every public name of the package, by its docstring."""
    names = [name for name in nnunetv2_d2net.__all__ if name != "__version__"]
    return "\n\n".join(["# The package from Python", *(f"::: nnunetv2_d2net.{name}" for name in names)])


def from_root(path: Path) -> str:
    """Return a page of the repository with its links as they are in the site."""
    return re.sub(r"\]\(docs/", "](", path.read_text(encoding="utf-8"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    pages = {"commands.md": commands_page(), "api.md": python_page()}
    for name, content in (pages | {name: from_root(path) for name, path in FROM_ROOT.items()}).items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ into those to their pages in the site."""
    for name, path in FROM_ROOT.items():
        markdown = markdown.replace(f"](../{path.relative_to(ROOT).as_posix()}", f"]({name}")
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take Sphinx's roles away, which docstrings hold and mkdocs does not read."""
    return re.sub(r":?(?:class|func|meth|mod|attr):(?=<code>)", "", html)
