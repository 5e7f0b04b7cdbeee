"""Mutation testing: change the code in one place after the other, and see whether a test fails. ``make mutants``.

mutmut does the work, on a copy below ``build/mutants``, so that the tree can be edited meanwhile, and goes on where it
was stopped. In the copy, what mutmut passes over is written so that it does not, and what no test can tell is left out:
see :func:`staged`. Survivors are compared with those that ``mutants.yaml`` explains.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "mutants"
ROOMS = {
    "method": ("method", "tests/unit/method"),
    "training": ("plugin/training", "tests/unit/plugin/training"),
    "scores": ("study/scores", "tests/unit/study/scores"),
    "base": ("base", "tests/unit/base"),
}
"""Folder of the package that is changed, and the tests that must notice."""

KEPT_DECORATORS = ("staticmethod", "classmethod", "overload")
SURVIVED, KILLED = (0, 2, 5, 33, 255, 24, 36, 152, -24, -9), (1, 3, -11)
"""mutmut's exit codes: no test has failed, they were stopped, there is none, pytest was called with one that it does
not know, or it took too long, as all do where the machine is busy; a test has failed, or the process has died."""
Edit = tuple[int, int, str]  # from, to, text instead


def main() -> int:
    """Run the rooms that are named, print the survivors that nobody has explained, return 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; all if none is named")
    rooms = parser.parse_args().rooms or list(ROOMS)
    if unknown := sorted(set(rooms) - set(ROOMS)):
        parser.error(f"there is no room {', '.join(unknown)}: choose from {', '.join(ROOMS)}")
    n_open = 0
    for room in rooms:
        explanations = yaml.safe_load((ROOT / "tests" / "mutants.yaml").read_text(encoding="utf-8")) or []
        explained = [entry for entry in explanations if entry["room"] == room]
        folder = stage(room)
        try_survivors_again(folder, explained)
        collect(folder)
        if mutmut(folder, "run", "--max-children", "1").returncode:
            raise SystemExit(f"mutmut failed in {folder}: do the tests pass without a change?")
        n_open += report(room, folder, explained)
    return int(n_open > 0)


def stage(room: str) -> Path:
    """Copy what the room's tests need, files that have changed only, so that mutmut keeps what it knows."""
    folder = BUILD / room
    source, tests = ROOMS[room]
    settings = f'only_mutate = ["nnunetv2_d2net/{source}/*"]\npytest_add_cli_args_test_selection = ["{tests}"]\n'
    project = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").replace("[tool.mutmut]\n", f"[tool.mutmut]\n{settings}")
    )
    write(folder / "pyproject.toml", project)
    write(folder / "conftest.py", (ROOT / "tests" / "mutants_order.py").read_text(encoding="utf-8"))
    changed = set()
    for top in ("nnunetv2_d2net", "trainers", "planners", "tests"):
        files = {path for path in (ROOT / top).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for path in files:
            target = folder / path.relative_to(ROOT)
            if top == "nnunetv2_d2net" and path.suffix == ".py":
                write(target, staged(path.read_text(encoding="utf-8")))
            elif not target.exists() or target.read_bytes() != path.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
                if path.is_relative_to(ROOT / tests) or path.name == "conftest.py":
                    changed.add(str(path.relative_to(ROOT)))
        for gone in (path for path in (folder / top).rglob("*.py") if ROOT / path.relative_to(folder) not in files):
            gone.unlink()
            (folder / "mutants" / gone.relative_to(folder)).unlink(missing_ok=True)
    forget_tests(folder / "mutants" / "mutmut-stats.json", changed)
    return folder


def forget_tests(stats: Path, changed: set[str]) -> None:
    """Forget which functions the tests of changed files reach, as mutmut looks again at tests of new names only."""
    if not changed or not stats.is_file():
        return
    if any(not Path(file).name.startswith("test_") for file in changed):  # what others use
        stats.unlink()
        return
    known = json.loads(stats.read_text(encoding="utf-8"))
    durations, reached = known["duration_by_test"], known["tests_by_mangled_function_name"]
    gone = {test for test in durations if test.partition("::")[0] in changed}
    known["duration_by_test"] = {test: seconds for test, seconds in durations.items() if test not in gone}
    known["tests_by_mangled_function_name"] = {name: sorted(set(tests) - gone) for name, tests in reached.items()}
    stats.write_text(json.dumps(known), encoding="utf-8")


def write(path: Path, text: str) -> None:
    """Write a text unless it stands there already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def staged(source: str) -> str:
    """Write a module so that mutmut changes all that a test could notice, and nothing else.

    Decorators become assignments behind the function, because mutmut passes decorated functions over. ``strict=True``
    of a zip, which only an error in the code itself could trip, is left out, and of a cast the value is left.

    Example:
        >>> print(staged("@cache\\ndef f(x):\\n    return list(zip(x, x, strict=True))\\n"))
        def f(x):
            return list(zip(x, x))
        f = cache(f)
        <BLANKLINE>
    """
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    text = source.encode()

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    def span(node: ast.expr | ast.keyword | ast.stmt) -> tuple[int, int]:
        return at(node.lineno, node.col_offset), at(node.end_lineno or 0, node.end_col_offset or 0)

    edits: list[Edit] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            edits += moved_decorators(node, text, span)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            edits += left_out(node, text, span)
    for start, end, instead in sorted(edits, reverse=True):
        text = text[:start] + instead.encode() + text[end:]
    return text.decode()


def moved_decorators(node: ast.FunctionDef | ast.AsyncFunctionDef, text: bytes, span) -> Iterator[Edit]:
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    if not names or any(name.endswith((*KEPT_DECORATORS, ".setter")) for name in names):
        return
    start = text.rindex(b"@", 0, span(node.decorator_list[0])[0])
    yield start, span(node)[0], ""
    call = node.name
    for name in reversed(names):
        call = f"{name}({call})"
    _, end = span(node)
    yield end, end, f"\n{' ' * node.col_offset}{node.name} = {call}"


def left_out(node: ast.Call, text: bytes, span) -> Iterator[Edit]:
    assert isinstance(node.func, ast.Name)
    if node.func.id == "zip" and len(node.keywords) == 1 and node.keywords[0].arg == "strict":
        yield span(node.args[-1])[1], span(node.keywords[0])[1], ""
    elif node.func.id == "cast":
        (start, end), (first, last) = span(node), span(node.args[1])
        yield start, first, "("
        yield last, end, ")"


def metas(folder: Path) -> Iterator[tuple[Path, dict]]:
    """What mutmut knows of each file."""
    for path in sorted((folder / "mutants").rglob("*.meta")):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def try_survivors_again(folder: Path, explained: list[dict]) -> None:
    """Forget survivors that are not explained: mutmut would not try them again, whatever tests have come."""
    diffs = diffs_of_survivors(folder)
    for path, content in metas(folder):
        codes = content["exit_code_by_key"]
        for name, code in codes.items():
            if code in SURVIVED and not any(is_of(entry, name, diffs[name]) for entry in explained):
                codes[name] = None
        path.write_text(json.dumps(content), encoding="utf-8")


_DIFFS = """
import json, sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant
names = json.load(sys.stdin)
json.dump({name: get_diff_for_mutant(name, path=find_mutant(name).path) for name in names}, sys.stdout)
"""


def diffs_of_survivors(folder: Path) -> dict[str, str]:
    """Say by survivor what it has changed: ``mutmut show`` for all at once, as it takes its time to start."""
    codes = {name: code for _, content in metas(folder) for name, code in content["exit_code_by_key"].items()}
    names = json.dumps([name for name, code in codes.items() if code in SURVIVED])
    words = [sys.executable, "-c", _DIFFS]
    done = subprocess.run(words, cwd=folder, input=names, encoding="utf-8", check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def collect(folder: Path) -> None:
    """Let mutmut see which tests reach which function in its own process: in a fork, tests that start others crash.

    Given a name that no mutant has, it stops behind this step.
    """
    settings = folder / "pyproject.toml"
    project = settings.read_text(encoding="utf-8")
    write(settings, project.replace('process_isolation = "forkserver"', 'process_isolation = "fork"'))
    done = mutmut(folder, "run", "none", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    write(settings, project)
    if "nothing matches" not in done.stdout:
        raise SystemExit(f"{done.stdout}\nmutmut failed in {folder}: do the tests pass without a change?")


def mutmut(folder: Path, *words: str, **settings) -> subprocess.CompletedProcess:
    """Call mutmut in the copy, with one thread and nothing of the caller's that changes what tests do."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONPATH": ""}
    command = [str(Path(sys.executable).with_name("mutmut")), *words]
    return subprocess.run(command, cwd=folder, env=environment, check=False, **settings)


def report(room: str, folder: Path, explained: list[dict]) -> int:
    """Print a room's figures and the diff of every survivor that is not explained; return how many there are."""
    codes = {name: code for _, content in metas(folder) for name, code in content["exit_code_by_key"].items()}
    survivors = diffs_of_survivors(folder)
    n_killed, n_open = sum(code in KILLED for code in codes.values()), 0
    used: list[dict] = []
    for name, diff in survivors.items():
        found = [entry for entry in explained if is_of(entry, name, diff)]
        used += found
        if not found:
            n_open += 1
            say(f"\n# {name}\n{diff.strip()}")
    for entry in explained:
        if entry not in used:
            say(f"\n{room}: explained, but not among the survivors: {entry['in']}: {entry['to']}")
    n_untried = len(codes) - n_killed - len(survivors)
    say(
        f"\n{room}: {len(codes)} mutants, {n_killed} killed, {len(survivors) - n_open} survivors explained, "
        f"{n_open} not explained, {n_untried} not tried"
    )
    return n_open + n_untried


def is_of(entry: dict, name: str, diff: str) -> bool:
    """Whether an explanation is of this mutant: the function's name and the lines that it has become."""
    function = (
        name.rpartition("__mutmut_")[0].rpartition(".")[2].removeprefix("xǁ").removeprefix("x_").replace("ǁ", ".")
    )
    added = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    return f"{name.rpartition('.')[0]}.{function}".endswith(f".{entry['in']}") and " ".join(added) in entry["to"]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
