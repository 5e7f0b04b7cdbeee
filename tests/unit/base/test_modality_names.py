import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import available_from_names, modality_names, subset_name


def test_modality_names_follow_the_channel_numbers():
    assert modality_names({"channel_names": {"10": "K", "2": "C", "0": "A"}}) == ["A", "C", "K"]
    assert modality_names({"modality": {"0": "old"}}) == ["old"]


@pytest.mark.parametrize(
    ("keep", "drop", "available"),
    [
        (None, None, (True, True, True)),
        (["t2", "FLAIR"], None, (True, False, True)),
        (None, ["T1"], (True, False, True)),
        (["T1", "T2"], ["T2"], (False, True, False)),
        (["T1", "t1"], None, (False, True, False)),
        (None, [], (True, True, True)),
    ],
)
def test_names_say_what_is_available(keep, drop, available):
    assert available_from_names(["FLAIR", "T1", "T2"], keep, drop) == available


def test_names_in_their_own_case_win():
    assert available_from_names(["T1", "t1", "T2"], keep=["t1"]) == (False, True, False)


@pytest.mark.parametrize(
    ("names", "keep", "drop", "part"),
    [
        (["A", "B"], ["C"], None, "C is no modality"),
        (["A", "B"], None, ["C"], "C is no modality"),
        (["A", "B"], None, ["b", "a"], "every modality is dropped"),
        (["A", "B"], ["A"], ["A"], "every modality is dropped"),
        (["A", "B"], [], None, "every modality is dropped"),
        (["noNorm", "noNorm"], ["noNorm"], None, "names several channels"),
        (["T1", "t1"], ["T1", "tI"], None, "tI is no modality"),
    ],
)
def test_names_that_make_no_sense(names, keep, drop, part):
    with pytest.raises(UserError, match=part) as error:
        available_from_names(names, keep, drop)
    assert ", ".join(names) in str(error.value)


def test_a_subset_is_named_by_its_modalities():
    assert subset_name([True, True], ["T1", "T2"]) == "T1+T2"
    assert subset_name([False, True], ["T1", "T2 (axial)"]) == "T2 (axial)"


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a+b", "..", ".a", ""])
def test_a_name_that_cannot_be_a_folder(name):
    with pytest.raises(UserError, match="cannot name a folder") as error:
        subset_name([True, False], ["T1", name])
    assert repr(name) in str(error.value)
