import re

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.protocols import (
    SUBSETS,
    as_words,
    asked_for,
    drawing_from,
    note_subsets,
    read_protocols,
    subsets_of_training,
    weights_of,
)

NAMES = ("FLAIR", "T1", "T1ce", "T2")


def test_subsets_in_any_order_and_case():
    table = read_protocols(["t2+FLAIR=0.5", "T1", "ALL=3"], None, NAMES)
    assert table == {"FLAIR+T2": 0.5, "T1": 1.0, "FLAIR+T1+T1ce+T2": 3.0}
    weights = weights_of(table, NAMES)
    assert {code: weight for code, weight in enumerate(weights) if weight} == {0b1001: 0.5, 0b0010: 1.0, 0b1111: 3.0}
    assert len(weights) == 16


def test_presence_is_the_product_of_chances_without_the_empty_subset():
    table = read_protocols(None, ["T1ce=0.4", "T2=0.9"], NAMES)
    assert table == {"FLAIR+T1": 0.06, "FLAIR+T1+T2": 0.54, "FLAIR+T1+T1ce": 0.04, "FLAIR+T1+T1ce+T2": 0.36}
    assert read_protocols(None, ["T1=0"], ["T1", "T2"]) == {"T2": 1.0}
    chances = read_protocols(None, ["T1=0.5", "T2=0.5"], ["T1", "T2"])
    assert chances == {"T2": 0.25, "T1": 0.25, "T1+T2": 0.25}


def test_nothing_said_is_nothing():
    assert read_protocols(None, None, NAMES) == {}


@pytest.mark.parametrize(
    ("subsets", "presence", "message"),
    [
        (["PD"], None, "PD is no modality"),
        (["FLAIR+"], None, "--subsets FLAIR+: name modalities"),
        ([""], None, "name modalities"),
        ([], None, "--subsets names no subset"),
        (["T1=-1"], None, "--subsets T1=-1: a weight is a number above 0"),
        (["T1=nan"], None, "a weight is a number above 0"),
        (["T1=0"], None, "a weight is a number above 0"),
        (["T1=inf"], None, "a weight is a number above 0"),
        (["T1=much"], None, "a weight is a number above 0"),
        (["T1+T2", "T2+T1"], None, "T1+T2 is named twice"),
        (["all", "FLAIR+T1+T1ce+T2"], None, "FLAIR+T1+T1ce+T2 is named twice"),
        (None, ["T1=0.5", "t1=0.5"], "T1 is named twice"),
        (None, ["T1"], "--presence T1: give a modality and a probability"),
        (None, ["T1=1.5"], "give a modality and a probability"),
        (None, ["T1=nan"], "give a modality and a probability"),
        (None, ["PD=0.5"], "PD is no modality"),
        (None, [f"{name}=0" for name in NAMES], "no modality would ever be there"),
        (["T1"], ["T1=0.5"], "both say what occurs"),
    ],
)
def test_what_cannot_be_read_is_one_line(subsets, presence, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_protocols(subsets, presence, NAMES)
    assert "\n" not in str(error.value)


def test_words_say_the_same_again():
    table = read_protocols(None, ["T1=0.123456789", "T2=0.3"], NAMES)
    assert read_protocols(as_words(table), None, NAMES) == table


def test_processes_are_asked_and_no_longer_afterwards():
    table = read_protocols(["T1=0.3", "all"], None, NAMES)
    assert asked_for(NAMES) == {}
    with drawing_from(table):
        assert asked_for(NAMES) == table
        with drawing_from({}):
            assert asked_for(NAMES) == table
    assert asked_for(NAMES) == {}


def test_a_training_goes_on_with_what_it_began_with(tmp_path):
    began, other = {"T1": 1.0, "FLAIR+T1": 2.0}, {"T2": 1.0}
    with drawing_from(began):
        assert subsets_of_training(tmp_path, ["T2"], NAMES, goes_on=False) == began
    note_subsets(tmp_path, began)
    assert subsets_of_training(tmp_path, ["T2"], NAMES, goes_on=True) == began
    with drawing_from(dict(reversed(began.items()))):
        assert subsets_of_training(tmp_path, [], NAMES, goes_on=True) == began
    with drawing_from(other), pytest.raises(UserError, match=r"was trained with the subsets T1 FLAIR\+T1=2: go on"):
        subsets_of_training(tmp_path, [], NAMES, goes_on=True)
    assert subsets_of_training(tmp_path, ["T2"], NAMES, goes_on=False) == other  # the trainer's own
    note_subsets(tmp_path, {})
    assert not (tmp_path / SUBSETS).exists()
    with drawing_from(other), pytest.raises(UserError, match="with the subsets all of them"):
        subsets_of_training(tmp_path, [], NAMES, goes_on=True)
