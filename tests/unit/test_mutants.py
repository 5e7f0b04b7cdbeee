"""What mutation testing needs: rooms that are there, a copy that is the same code, explanations with a reason."""

import ast
import json

import pytest
import yaml

from tests.mutants import KILLED, ROOMS, ROOT, SURVIVED, forget_tests, is_of, staged
from tests.mutants_order import place_of


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_code_and_tests(room):
    source, tests = ROOMS[room]
    assert list((ROOT / "nnunetv2_d2net" / source).rglob("*.py"))
    assert list((ROOT / tests).rglob("test_*.py"))


def test_every_module_can_be_written_for_mutmut():
    for path in (ROOT / "nnunetv2_d2net").rglob("*.py"):
        written = staged(path.read_text(encoding="utf-8"))
        tree = ast.parse(written)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        decorators = [ast.unparse(decorator) for node in functions for decorator in node.decorator_list]
        assert all(d.endswith(("staticmethod", "classmethod", "overload", "setter")) for d in decorators), path
        assert not any(isinstance(node, ast.Name) and node.id == "cast" for node in ast.walk(tree)), path


def test_decorators_act_as_before():
    source = """
import functools

class Box:
    @property
    def doubled(self):
        return 2 * self.value

    @staticmethod
    def one(): return next(numbers)

    value = 3

numbers = iter("éab")

@functools.cache
@functools.wraps(Box)
def cached(): return next(numbers)
"""
    spaces = [{}, {}]
    for space, text in zip(spaces, (source, staged(source)), strict=True):
        exec(text, space)
    before, after = (space["Box"]() for space in spaces)
    assert before.doubled == after.doubled == 6
    assert before.one() == after.one() == "é"
    for space in spaces:
        assert [space["cached"](), space["cached"](), space["cached"].__name__] == ["a", "a", "Box"]
    assert staged(source).count("@") == 1


def test_explanations_have_a_place_and_a_reason():
    for entry in yaml.safe_load((ROOT / "tests" / "mutants.yaml").read_text(encoding="utf-8")) or []:
        assert entry.keys() == {"room", "in", "to", "why"}
        assert entry["room"] in ROOMS
        assert isinstance(entry["to"], list)
        assert len(entry["why"]) > 10


def test_an_explanation_is_of_one_function_and_one_change():
    diff = "--- a.py\n+++ a.py\n@@ -1,2 +1,2 @@\n def f():\n-    x = 1\n+    x = 2\n"
    entry = {"in": "Box.f", "to": ["x = 2"]}
    assert is_of(entry, "package.a.xǁBoxǁf__mutmut_3", diff)
    assert not is_of(entry, "package.a.x_f__mutmut_3", diff)
    assert not is_of({**entry, "to": ["x = 3"]}, "package.a.xǁBoxǁf__mutmut_3", diff)


def test_a_mutant_that_took_too_long_is_no_killed_one():
    assert {24, 152, -24, -9} <= set(SURVIVED)
    assert not set(SURVIVED) & set(KILLED)


def test_those_that_have_noticed_others_are_tried_first_then_the_quickest():
    noticed = [["m.f", "c"], ["m.g", "b"], ["n.f", "a"]]
    assert sorted("abcd", key=place_of("m.f", noticed, {"a": 2, "d": 1})) == ["c", "b", "d", "a"]
    assert sorted("abcd", key=place_of("n.f", noticed, {"b": 3, "c": 2, "d": 1}))[:2] == ["a", "d"]


def test_what_is_known_of_the_tests_of_a_changed_file_is_forgotten(tmp_path):
    stats, tests = (
        tmp_path / "stats.json",
        ["tests/test_a.py::test_1", "tests/test_a.py::test_2", "tests/test_b.py::test_1"],
    )
    known = {
        "duration_by_test": dict.fromkeys(tests, 1.0),
        "tests_by_mangled_function_name": {"f": tests, "g": tests[:1]},
    }
    stats.write_text(json.dumps(known), encoding="utf-8")
    forget_tests(stats, set())
    assert json.loads(stats.read_text(encoding="utf-8")) == known
    forget_tests(stats, {"tests/test_a.py"})
    left = {"duration_by_test": {tests[2]: 1.0}, "tests_by_mangled_function_name": {"f": tests[2:], "g": []}}
    assert json.loads(stats.read_text(encoding="utf-8")) == left
    forget_tests(stats, {"tests/conftest.py"})
    assert not stats.exists()
