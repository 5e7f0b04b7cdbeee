"""Every fenced block of every page is run: its commands by bash where no variable is set, and read by the real parsers.

The programs that bash finds write down how they were called, and do nothing. Blocks of Python run for real, in
``tests/integration/test_python_pages.py`` and ``test_segment.py``.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.training import variants
from tests.pages import PAGES, ROOT, blocks_of

TESTS = ROOT / "tests"
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer")
PROGRAMS = (
    *("d2net", "make", "pip", "python", "python3", "torchrun", "git", "docker", "basedpyright", "codespell"),
    *(point.name for point in distribution("nnunetv2").entry_points if point.group == "console_scripts"),
)

NEED = {
    "phantom": VARIABLES[:1],
    "convert": VARIABLES[:1],
    "inspect": VARIABLES[:1],
    "convert_back": VARIABLES[:1],
    "extract_fingerprint": VARIABLES[:2],
    "plan_and_preprocess": VARIABLES[:2],
    "plan": VARIABLES[:2],
    "preprocess": VARIABLES[:2],
    "train": VARIABLES[1:3],
    "predict": VARIABLES[2:3],
    "benchmark": VARIABLES[:3],
    "study": VARIABLES[:3],
}
"""Which of nnU-Net's variables a command reads."""

NEED_NONE = {
    "convert": "--check",
    "phantom": "--layout",
    "predict": "-m",
    "convert_back": "--mapping",
    "study": "--list",
}
"""With this word a command reads none of them."""

ENTRY_POINTS = {
    "plan_and_preprocess": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "train": "nnunetv2.run.run_training",
    "predict": "nnunetv2.inference.predict_from_raw_data",
}
"""Where nnU-Net declares the words that these commands pass on."""

pytestmark = pytest.mark.skipif(not PAGES[0].is_file(), reason="an installed package has no pages")


BLOCKS = [block for page in PAGES if page.is_file() for block in blocks_of(page)]


def pages_with(language: str) -> list[str]:
    return list(
        dict.fromkeys(block.page.relative_to(ROOT).as_posix() for block in BLOCKS if block.language == language)
    )


class Call(NamedTuple):
    """A program that a page calls, and which of nnU-Net's variables were set."""

    program: str
    words: tuple[str, ...]
    variables: frozenset[str]


def calls_of(page: str, folder: Path) -> list[Call]:
    """Run the commands of a page from top to bottom, and return which programs they called."""
    log, programs = folder / "log", folder / "programs"
    programs.mkdir()
    names = " ".join(f'"${{{name}:+{name}}}"' for name in VARIABLES)
    script = f'#!/bin/bash\n{{ printf \'%s\\037\' "${{0##*/}}" {names} "$@"; echo; }} >> {log}\n'
    script += '[ "$1" != trainers ] || pwd\n'
    for name in PROGRAMS:
        (programs / name).write_text(script, encoding="utf-8")
        (programs / name).chmod(0o755)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(programs)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")  # its scripts run, and what they call does nothing
    commands = "".join(block.text for block in BLOCKS if block.page == ROOT / page and block.language == "sh")
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder)}
    bash = [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(bash, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\037")[:-1] for line in log.read_text(encoding="utf-8").splitlines()]
    n = len(VARIABLES)
    return list(dict.fromkeys(Call(name, tuple(words[n:]), frozenset(words[:n])) for name, *words in lines))


def flags(words: tuple[str, ...]) -> Iterator[str]:
    yield from (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word))


def source_of(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def judge_d2net(call: Call, monkeypatch, capsys) -> None:
    """See that the real parser takes the words, that nnU-Net knows those that are passed on, and the variables."""
    name, *_ = call.words
    taken: list[list[str]] = []
    monkeypatch.setattr(import_module(f"nnunetv2_d2net.cli.{name}"), "run", lambda _, *extra: taken.extend(extra) or 0)
    assert main(call.words) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([name, "--help"])
    known = capsys.readouterr().out + (source_of(ENTRY_POINTS[name]) if name in ENTRY_POINTS else "")
    unknown = {flag for words in taken for flag in flags(tuple(words)) if not re.search(rf"{flag}\b", known)}
    assert not unknown, f"{name} knows no {unknown}"
    if NEED_NONE.get(name) not in call.words:
        assert set(NEED.get(name, ())) <= call.variables, f"d2net {name} reads variables that the page does not set"


def judge_nnunet(call: Call) -> None:
    """See that nnU-Net's own command would find a trainer of ours."""
    ours = [word for word in call.words if word.partition("_")[0] in variants.__all__]
    assert not ours or "nnUNet_extTrainer" in call.variables, f"{call.program} finds no {ours}: set nnUNet_extTrainer"


def judge_script(words: tuple[str, ...]) -> None:
    """See that a script is there and knows its flags."""
    if words[:1] != ("-m",):
        text = (ROOT / words[0]).read_text(encoding="utf-8")
        assert all(f'"{flag}"' in text for flag in flags(words[1:])), words


@pytest.mark.parametrize("page", pages_with("sh"))
def test_the_commands_of_a_page(page, tmp_path, monkeypatch, capsys):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for call in calls_of(page, tmp_path):
        words = call.words
        if call.program == "torchrun":
            assert "nnunetv2_d2net.cli" in words
            words = words[words.index("nnunetv2_d2net.cli") + 1 :]
        if call.program in ("d2net", "torchrun"):
            judge_d2net(call._replace(words=words), monkeypatch, capsys)
        elif call.program.startswith("nnUNetv2_"):
            judge_nnunet(call)
        elif call.program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), f"make knows no {words[0]}"
        elif call.program in ("python", "python3"):
            judge_script(words)


RUNNERS = [*(TESTS / "integration").glob("test_*.py"), TESTS / "unit" / "data" / "convert" / "test_mapping.py"]
"""Where blocks that are no commands are run or read: by ``run_blocks`` from a heading on, or one after the other."""


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_is_run_by_a_test(page):
    name = Path(page).name
    tests = "".join(path.read_text(encoding="utf-8") for path in RUNNERS)
    headings = re.findall(rf'\("{name}", "([^"]+)"\)', tests)
    text = (ROOT / page).read_text(encoding="utf-8")
    start = min((text.index(heading) for heading in headings), default=len(text))
    alone = [block for block in blocks_of(ROOT / page) if block.language == "python" and block.start < start]
    assert not alone, f"no test runs {[block.text for block in alone]}"


def test_mapping_files_of_the_pages_are_read_by_a_test():
    tests = RUNNERS[-1].read_text(encoding="utf-8")
    assert pages_with("yaml") == ["docs/data.md", "docs/pretrained.md", "docs/real_patients.md"]
    numbers = {int(number) for number in re.findall(r"documented\((\d)\)", tests)}
    assert numbers == set(range(sum(block.language == "yaml" for block in BLOCKS)))


def test_every_block_says_what_it_is():
    assert len(BLOCKS) > 40
    assert {block.language for block in BLOCKS} <= {"sh", "python", "yaml", "text"}


def test_what_must_be_noticed(tmp_path, monkeypatch, capsys):
    def judge(*words, variables=VARIABLES):
        judge_d2net(Call("d2net", words, frozenset(variables)), monkeypatch, capsys)

    judge("predict", "-i", "a", "-o", "b", "-d", "4", "-c", "2d", "--all_subsets")
    with pytest.raises(AssertionError, match="knows no"):
        judge("predict", "-i", "a", "-o", "b", "-d", "4", "--no_such_flag")
    with pytest.raises(AssertionError, match="variables"):
        judge("train", "4", "2d", "0", variables=VARIABLES[:1])
    with pytest.raises(AssertionError, match="finds no"):
        judge_nnunet(Call("nnUNetv2_predict", ("-tr", "D2NetTrainer_5epochs"), frozenset(VARIABLES[:3])))
    with pytest.raises(FileNotFoundError):
        judge_script(("benchmarks/none.py",))
    monkeypatch.setenv("nnUNet_raw", "set")
    assert calls_of("CONTRIBUTING.md", tmp_path)[0] == Call("make", ("test",), frozenset({""}))
