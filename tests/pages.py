"""The fenced blocks of the documentation, and running those of Python where no variable is set."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


class Block(NamedTuple):
    """A fenced block of a page; where it begins is counted in characters."""

    page: Path
    language: str
    text: str
    start: int


def blocks_of(page: Path) -> list[Block]:
    """Find the fenced blocks of a page."""
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(page, match[2], match[3], match.start()) for match in found]


def run_blocks(folder: Path, *sections: tuple[str, str]) -> str:
    """Run the Python blocks of pages of docs/, each from a heading on, as one program; return what it prints."""
    texts = []
    for name, heading in sections:
        page = DOCS / name
        start = page.read_text(encoding="utf-8").index(heading)
        texts += [block.text for block in blocks_of(page) if block.language == "python" and block.start > start]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join(texts)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
