import json

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.training.splits import balanced_splits, check_fold, perhaps_trained_on, validation_cases

CASES = [f"c{i}" for i in range(5)]
GOOD = {"train": CASES[:4], "val": CASES[4:]}


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"train": ["c0"],, "val": ["c1"]}]', "is no JSON"),
        (b'[{"train": ["c0"],, "val": ["c1"]}]', "repair it, or move it away to split anew"),
        (json.dumps([GOOD]).encode("utf-16"), "is no text in UTF-8"),
        (b"\xef\xbb\xbf" + json.dumps([GOOD]).encode(), "byte order mark"),
        ([], "no list of folds"),
        (5, "no list of folds"),
        ({"0": GOOD}, "no list of folds"),
        (None, "no list of folds"),
        (["c0"], 'under "train"'),
        ([{"train": CASES}], 'under "val"'),
        ([{"train": CASES, "val": []}], 'under "val"'),
        ([{"train": CASES, "val": [1]}], 'under "val"'),
        ([{"train": "c0", "val": ["c1"]}], 'under "train"'),
        ([{"train": CASES, "val": ["c9"]}], "not preprocessed (c9)"),
    ],
)
def test_splits_that_cannot_be_used_are_told_and_stay(tmp_path, content, words):
    path = written(tmp_path / "splits_final.json", content)
    before = path.read_bytes()
    with pytest.raises(UserError) as error:
        check_fold(path, 0, CASES)
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert path.read_bytes() == before
    check_fold(path, "all", CASES)


def test_validation_cases_are_those_of_the_fold(tmp_path):
    path = tmp_path / "splits_final.json"
    assert validation_cases(path, "0") == []
    written(path, [GOOD, {"train": CASES[1:], "val": CASES[:1]}])
    assert [validation_cases(path, fold) for fold in ("0", 1, "2", "all")] == [["c4"], ["c0"], [], []]
    with pytest.raises(UserError, match='under "val"'):
        validation_cases(written(path, [{"train": CASES}]), 0)


@pytest.mark.parametrize("folder", ["/elsewhere/validation/", "C:\\models\\validation\\"])
def test_cases_on_which_a_model_was_not_validated_may_have_trained_it(tmp_path, folder):
    checkpoint = tmp_path / "fold_0" / "checkpoint_final.pth"
    assert perhaps_trained_on(checkpoint, CASES) == []
    rows = [{"prediction_file": f"{folder}{case}.nii.gz"} for case in ("c1", "c10", "c2")]
    summary = checkpoint.parent / "validation" / "summary.json"
    summary.parent.mkdir(parents=True)
    written(summary, {"metric_per_case": rows})
    assert perhaps_trained_on(checkpoint, ["c2", "c1"]) == []
    assert perhaps_trained_on(checkpoint, ["c3", "c2", "c"]) == ["c", "c3"]
    for damaged in (b"{", [], {}, {"metric_per_case": 5}, {"metric_per_case": [3]}):
        assert perhaps_trained_on(written(summary, damaged).parents[1] / "checkpoint_final.pth", CASES) == []


def test_other_folds_and_cases_do_not_matter(tmp_path):
    path = written(tmp_path / "splits_final.json", [GOOD, {"train": ["gone"]}])
    check_fold(path, 0, [*CASES, "another"])
    check_fold(path, "0", CASES)
    for fold in (2, 7):
        check_fold(path, fold, CASES)  # nnU-Net splits at random


def test_too_few_cases_without_splits(tmp_path):
    path = tmp_path / "splits_final.json"
    with pytest.raises(UserError, match=r"2 training cases cannot make 5 folds: train fold all, or write .*splits"):
        check_fold(path, 0, CASES[:2])
    check_fold(path, "all", CASES[:2])
    check_fold(path, 0, CASES)
    check_fold(written(path, [{"train": ["c0"], "val": ["c1"]}]), 0, CASES[:2])


def test_each_fold_validates_on_each_pattern_and_all_on_every_case_once():
    flags = {f"c{i:02}": [i < 10, True] for i in range(15)}
    splits = balanced_splits(flags)
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == sorted(flags)
    for split in splits:
        assert [flags[case][0] for case in split["val"]] == [True, True, False]
        assert split["train"] == sorted(set(flags) - set(split["val"]))
        assert split["val"] == sorted(split["val"])
    assert balanced_splits(dict(reversed(flags.items())), seed=12345) == splits
    assert balanced_splits(flags, seed=1) != splits


def test_folds_differ_by_one_case_at_most():
    flags = {f"c{i}": [flag, True] for i, flag in enumerate([True] * 4 + [False] * 3)}
    splits = balanced_splits(flags, n_folds=3)
    assert sorted(len(split["val"]) for split in splits) == [2, 2, 3]


def test_cases_that_a_fold_leaves_out_are_told(tmp_path, caplog):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]), encoding="utf-8")
    check_fold(path, 0, ["c", "b", "a"])
    assert not caplog.records
    check_fold(path, 0, ["a", "b", "new", "c"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} leaves preprocessed cases out of fold 0: new"
    ]
