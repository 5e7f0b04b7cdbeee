"""The pages as a site, built strictly: a link or an anchor that leads nowhere is an error."""

import os
import re
import subprocess
import sys
from functools import cache
from html import unescape
from pathlib import Path

import pytest

import nnunetv2_d2net
from nnunetv2_d2net import cli

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings_handlers.python")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build it, where no variable is set."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return folder


@cache
def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_is_there_and_in_the_navigation(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"commands", "api", "changelog", "contributing"}
    assert pages <= {path.stem for path in site.glob("*.html")}
    start = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page}.html"' in start for page in pages - {"index"})


def test_every_command_has_its_help(site):
    text = text_of(site / "commands.html")
    names = {path.stem for path in Path(cli.__path__[0]).glob("[!_]*.py")} - {"main"}
    assert len(names) > 20
    assert all(f"usage: d2net {name}" in text for name in names)


def test_every_name_of_the_package_has_its_docstring(site):
    text = text_of(site / "api.html")
    for name in set(nnunetv2_d2net.__all__) - {"__version__"}:
        summary = (getattr(nnunetv2_d2net, name).__doc__ or "").split(".")[0].split("``")[0].strip()
        assert summary
        assert summary in text, name
    assert ":class:" not in text


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]*src="(?:https?:)?//|<link[^>]*stylesheet[^>]*href="http', text)
        assert not loaded, page


def test_pictures_are_small():
    pictures = [*(ROOT / "docs").rglob("*.jpg"), *(ROOT / "docs").rglob("*.png")]
    assert len(pictures) >= 3
    assert all(path.stat().st_size < 200_000 for path in pictures)
