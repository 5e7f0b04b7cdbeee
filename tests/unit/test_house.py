"""What exists once, and must not grow back: writers, readers, pools, comparisons; which room knows which; sizes."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import nnunetv2_d2net

PACKAGE = Path(nnunetv2_d2net.__file__).resolve().parent
NAME = PACKAGE.name
FILES, IMAGES, PROCESSES = "base/files.py", "base/images.py", "base/processes.py"
DICOM = "base/dicom.py"

MOST_LINES = 26_390
"""Of the package without the method: 7,740 more than when its rooms were made look at what comes in, or are new."""

LONGEST_FUNCTION = 60
"""Lines, with its docstring."""

PLACE_NAMES = {
    "spacing",
    "origin",
    "direction",
    "affine",
    "original_affine",
    "itk_stuff",
    "sitk_stuff",
    "nibabel_stuff",
}


@cache
def parsed(room: str = "") -> dict[str, ast.Module]:
    """Files of a room, by their path in the package."""
    paths = sorted((PACKAGE / room).rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Everything that is imported, with its full name and line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call, with what is called as it is written."""
    yield from ((ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def mentioning(*names: str) -> Callable[[ast.AST], Iterator[int]]:
    """Make a rule against names, wherever they come from: imported, as an attribute or bare."""

    def lines(tree: ast.AST) -> Iterator[int]:
        yield from (line for name, line in imports(tree) if name.rsplit(".", 1)[-1] in names)
        for node in ast.walk(tree):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.expr) and name in names:
                yield node.lineno

    return lines


def json_is_read(tree: ast.AST) -> Iterator[int]:
    yield from (call.lineno for called, call in calls(tree) if called in ("json.load", "json.loads"))
    yield from (line for name, line in imports(tree) if name in ("json.load", "json.loads"))
    yield from mentioning("load_json", "JSONDecoder")(tree)


def image_is_read(tree: ast.AST) -> Iterator[int]:
    yield from mentioning("ReadImage", "ImageFileReader", "ImageSeriesReader")(tree)
    yield from (call.lineno for called, call in calls(tree) if called in ("nib.load", "nibabel.load"))
    yield from (line for name, line in imports(tree) if name in ("nibabel.load", "nibabel.loadsave.load"))


def reader_is_called(tree: ast.AST) -> Iterator[int]:
    """nnU-Net's readers are passed on to ours, which looks at the file first."""
    passed_on = {id(node) for part in ast.walk(tree) if isinstance(part, ast.Lambda) for node in ast.walk(part)}
    for called, call in calls(tree):
        if called.endswith((".read_images", ".read_seg")) and id(call) not in passed_on:
            yield call.lineno


def file_is_moved(tree: ast.AST) -> Iterator[int]:
    """A path's methods take one argument, those of a text two; keywords are those of tables and of dataclasses."""
    for called, call in calls(tree):
        of_path = called.endswith((".replace", ".rename")) and len(call.args) == 1 and not call.keywords
        if of_path or called in ("os.replace", "os.rename", "os.renames", "shutil.move"):
            yield call.lineno


def place_is_compared(tree: ast.AST) -> Iterator[int]:
    """Functions that speak of places and compare with something small, by whatever means."""
    for function in functions(tree):
        nodes = list(ast.walk(function))
        names = {n.id for n in nodes if isinstance(n, ast.Name)} | {
            n.attr for n in nodes if isinstance(n, ast.Attribute)
        }
        names |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if names & PLACE_NAMES:
            yield from (node.lineno for node in nodes if isinstance(node, ast.expr) and _compares_closely(node))


def _compares_closely(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rsplit(".", 1)[-1] in ("allclose", "isclose", "assert_allclose")
    if not isinstance(node, ast.Compare):
        return False
    sides = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
    small = any(isinstance(p, ast.Constant) and isinstance(p.value, float) and 0 < p.value < 0.1 for p in sides)
    return small or any(isinstance(p, ast.Name) and "TOLERANCE" in p.id.upper() for p in sides)


def tolerance_is_set(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant):
            names = ast.unparse(node).split("=", 1)[0].upper()
            if "TOLERANCE" in names and isinstance(node.value.value, float) and node.value.value < 0.1:
                yield node.lineno


def file_is_hashed(tree: ast.AST) -> Iterator[int]:
    """Texts may be hashed anywhere, such as settings; they are encoded on the spot."""
    for called, call in calls(tree):
        if re.fullmatch(r"hashlib\.\w+", called) and not (
            call.args and isinstance(call.args[0], ast.Call) and ast.unparse(call.args[0].func).endswith(".encode")
        ):
            yield call.lineno
    yield from (line for name, line in imports(tree) if name.startswith("hashlib."))


class Rule(NamedTuple):
    """Something that stands in one file only.

    Attributes:
        lines: Finds it.
        home: The files where it is.
        offence: Code that the rule must find.
        fine: Code that looks alike, and that it must not find.
    """

    lines: Callable[[ast.AST], Iterator[int]]
    home: set[str]
    offence: str
    fine: str = ""


RULES = {
    "pools": Rule(
        mentioning("ProcessPoolExecutor", "Pool"),
        {PROCESSES},
        "with multiprocessing.get_context('spawn').Pool(2): ...",
        "pool = ThreadPoolExecutor(2)",
    ),
    "JSON": Rule(json_is_read, {FILES}, "from json import loads", "json.dumps(read_json(path, remedy))"),
    "images": Rule(image_is_read, {IMAGES, DICOM}, "import SimpleITK\nSimpleITK.ReadImage('a')", "np.load('a')"),
    "nnU-Net's readers": Rule(
        reader_is_called,
        set(),
        "voxels, _ = reader.read_seg(file)",
        "read_image(f, lambda f: reader.read_images((f,)))",
    ),
    "moving": Rule(
        file_is_moved,
        {FILES},
        "Path('a').replace(other)",
        "'a'.replace('b', 'c')\ndataclasses.replace(a, b=1)\ntable.rename(columns=names)\ntime.replace(tzinfo=None)",
    ),
    "temporary files": Rule(
        mentioning("NamedTemporaryFile", "mkstemp", "mkdtemp", "fsync"),
        {FILES},
        "os.fsync(3)",
        "tempfile.TemporaryDirectory()",
    ),
    "places": Rule(
        place_is_compared,
        set(),
        "def f(a, b):\n    return abs(a['spacing'] - b['spacing']).max() > 1e-3",
        "def f(spacing):\n    return spacing > 1.5\ndef g(p):\n    return p < 0.05",
    ),
    "tolerances": Rule(tolerance_is_set, {IMAGES}, "_SHIFT_TOLERANCE: float = 0.01", "TOLERANCE_MM = 1.0"),
    "closeness": Rule(mentioning("allclose", "isclose"), {"base/headers.py"}, "np.allclose(a, b)"),
    "hashes": Rule(
        file_is_hashed, {FILES, IMAGES}, "hashlib.sha256(path.read_bytes())", "hashlib.sha256(repr(settings).encode())"
    ),
    "fcntl": Rule(mentioning("fcntl", "flock"), set(), "import fcntl"),
}


@pytest.mark.parametrize("name", RULES)
def test_what_exists_once(name):
    lines = {file: sorted(set(RULES[name].lines(tree))) for file, tree in parsed().items()}
    elsewhere = {file: of_file for file, of_file in lines.items() if of_file and file not in RULES[name].home}
    assert not elsewhere
    assert {file for file, of_file in lines.items() if of_file} == RULES[name].home


@pytest.mark.parametrize("name", RULES)
def test_the_rules_find_what_they_are_for(name):
    assert list(RULES[name].lines(ast.parse(RULES[name].offence)))
    assert not list(RULES[name].lines(ast.parse(RULES[name].fine)))


@pytest.mark.parametrize(
    ("room", "known"),
    [
        ("base", {"base"}),
        ("method", {"method"}),
        ("plugin", {"base", "method", "plugin"}),
        ("data", {"base", "method", "plugin", "data"}),
        ("patient", {"base", "plugin", "data", "patient"}),
        ("study", {"base", "method", "plugin", "data", "study"}),
        ("study/benchmark", {"base", "method", "plugin", "data", "study"}),
    ],
)
def test_rooms_know_those_below_them(room, known):
    """Also within functions and for types, where the import contracts do not look closely."""
    seen = {
        (file, name)
        for file, tree in parsed(room).items()
        for name, _ in imports(tree)
        if name.split(".")[0] == NAME and name.split(".")[1] not in known
    }
    assert {(file, name) for file, name in seen if name != f"{NAME}.__version__" or room in ("base", "method")} == set()


def text_without_encoding(tree: ast.AST) -> Iterator[int]:
    """Where ruff's rule does not look: what other programs print, and paths whose type it does not see."""
    for called, call in calls(tree):
        named = {keyword.arg for keyword in call.keywords}
        bare = {".read_text": 0, ".write_text": 1}.get(f".{called.rsplit('.', 1)[-1]}", -1) == len(call.args)
        if (bare or named & {"text", "universal_newlines"}) and "encoding" not in named:
            yield call.lineno


@pytest.mark.parametrize("root", [PACKAGE, Path(__file__).parents[1], PACKAGE.parent / "benchmarks"])
def test_text_is_utf8_whatever_the_machine_speaks(root):
    files = sorted(root.rglob("*.py"))
    assert files
    found = {file: list(text_without_encoding(ast.parse(file.read_text(encoding="utf-8")))) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}
    offences = "run(words, text=True)\npath.read_text()\npath.write_text('a')"
    assert list(text_without_encoding(ast.parse(offences))) == [1, 2, 3]


def commands() -> list[str]:
    return [file for file in parsed("cli") if not Path(file).name.startswith("_") and file != "cli/main.py"]


@pytest.mark.parametrize("file", commands())
def test_commands_are_words_arguments_and_one_call(file):
    tree = parsed()[file]
    assigned = {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "HELP" in assigned
    assert {"add_arguments", "run"} <= defined
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] == []


def test_every_command_has_a_file():
    assert len(commands()) >= 15


def test_functions_fit_on_a_screen():
    sizes = {
        (file, function.name): (function.end_lineno or 0) - function.lineno + 1
        for file, tree in parsed().items()
        for function in functions(tree)
    }
    assert len(sizes) > 500
    assert {name: size for name, size in sizes.items() if size > LONGEST_FUNCTION} == {}


def test_the_house_does_not_grow():
    lines = {file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in parsed()}
    assert sum(n for file, n in lines.items() if not file.startswith("method/")) <= MOST_LINES
