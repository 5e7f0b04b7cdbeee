import hashlib
import json
from importlib.metadata import version

import pytest

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.prediction.note import (
    FLOOR,
    UNRELIABLE,
    Measured,
    Model,
    closing_line,
    describe_model,
    made_otherwise,
    note,
    read_measured,
    warnings,
    write_measured,
)

NAMES = ["T1", "T1ce", "T2"]
DICE = {
    "T1+T1ce+T2": {"whole": Measured(0.9, 0.05, 5), "enhancing": Measured(0.8, 0.1, 5)},
    "T1+T2": {"whole": Measured(0.85, 0.06, 5), "enhancing": Measured(0.31, 0.2, 5, 0.25, 2)},
    "T1": {"whole": Measured(0.5, None, 1), "enhancing": Measured(0.2, None, 1)},
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "Dataset007_Tiny" / "D2NetTrainer__D2NetPlans__3d_fullres"
    for fold, content in (("fold_0", b"zero"), ("fold_all", b"x" * 3_000_000)):
        (made / fold).mkdir(parents=True)
        (made / fold / "checkpoint_final.pth").write_bytes(content)
    return made


def test_checkpoints_are_hashed(folder):
    model = describe_model(folder, [0, "all"], "checkpoint_final.pth")
    assert model.folder == folder
    assert model.measured == {}
    assert model.checkpoints == {
        "fold_0/checkpoint_final.pth": hashlib.sha256(b"zero").hexdigest(),
        "fold_all/checkpoint_final.pth": hashlib.sha256(b"x" * 3_000_000).hexdigest(),
    }
    assert list(describe_model(folder, ["0"], "checkpoint_final.pth").checkpoints) == ["fold_0/checkpoint_final.pth"]


def test_measured_dice_is_kept_with_the_model(folder):
    assert read_measured(folder) == {}
    write_measured(folder, DICE, "held-out cases")
    assert read_measured(folder) == DICE
    assert describe_model(folder, [0], "checkpoint_final.pth").measured == DICE
    (file,) = folder.glob("*.json")
    assert json.loads(file.read_text(encoding="utf-8"))["measured on"] == "held-out cases"


def test_dice_of_a_checkpoint_that_was_replaced_is_not_told(folder):
    measured = describe_model(folder, [0, "all"], "checkpoint_final.pth").checkpoints
    write_measured(folder, DICE, "held-out cases", measured)
    assert describe_model(folder, [0], "checkpoint_final.pth").measured == DICE
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"trained anew")
    assert describe_model(folder, [0], "checkpoint_final.pth").measured == {}
    assert describe_model(folder, ["all"], "checkpoint_final.pth").measured == DICE


def test_dice_is_not_told_of_checkpoints_that_were_not_measured(folder):
    write_measured(folder, DICE, "held-out cases", describe_model(folder, [0], "checkpoint_final.pth").checkpoints)
    assert describe_model(folder, [0], "checkpoint_final.pth").measured == DICE
    assert describe_model(folder, ["all"], "checkpoint_final.pth").measured == {}
    assert describe_model(folder, [0, "all"], "checkpoint_final.pth").measured == {}


@pytest.mark.parametrize(
    ("made_by", "made_of", "constant", "names", "how"),
    [
        ({"a": "1"}, ["T1", "T2"], [], {"T1", "T2"}, ""),
        ({"a": "2"}, ["T1", "T2"], [], {"T1", "T2"}, "by other checkpoints"),
        ({"a": "1", "b": "1"}, ["T1"], [], {"T1"}, "by other checkpoints"),
        ({}, ["T1"], [], {"T1"}, ""),
        ({"a": "1"}, ["T1"], [], {"T1", "T2"}, "from other modalities (T1)"),
        ({"a": "1"}, ["T1"], ["x_0001.nii.gz"], {"T1", "T2"}, ""),
        ({"a": "1"}, ["T1", "T2"], [], {"T1"}, "from other modalities (T1, T2)"),
        ({"a": "1"}, ["T1"], [], {"T2"}, "from other modalities (T1)"),
        ({"a": "1"}, ["T1"], [], None, ""),
    ],
)
def test_how_a_segmentation_was_made_otherwise(folder, made_by, made_of, constant, names, how):
    content = {"checkpoints (sha256)": made_by, "available modalities": made_of}
    content["constant images, taken as absent"] = constant
    assert made_otherwise(content, Model(folder, {"a": "1"}, {}), names, {}) == how
    assert made_otherwise({}, Model(folder, {"a": "1"}, {}), names, {}) == ""


@pytest.mark.parametrize(
    ("noted", "images", "known", "how"),
    [
        ({"T1": [1, "a"], "T2": [1, "b"]}, {"T1": [1, "a"], "T2": [1, "b"]}, True, ""),
        ({"T1": [1, "a"], "T2": [1, "b"]}, {"T1": [1, "c"], "T2": [1, "b"]}, True, "from other images (T1)"),
        ({"T1": [1, "a"], "T2": [1, "b"]}, {"T1": [1, "a"]}, True, "from other modalities (T1, T2)"),
        ({"T1": [1, "a"]}, {"T1": [1, "a"]}, True, ""),  # one file that holds both
        ({"T1": [1, "a"], "T2": [1, "b"]}, {"T1": [2, "c"]}, False, "from other images (T1)"),
        ({}, {"T1": [1, "c"], "T2": [1, "b"]}, True, ""),  # an earlier version's
        ({}, {"T1": [1, "c"]}, True, "from other modalities (T1, T2)"),
    ],
)
def test_other_images_of_the_same_name_are_seen(noted, images, known, how):
    content = {"available modalities": ["T1", "T2"], "images of the case (size, sha256)": noted}
    assert made_otherwise(content, None, images if known else None, images) == how


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"T1": {"whole": 0.5}}',
        '{"dice": {"T1": {"whole": 0.5}}, "sd": {"T1": {"whole": "x"}}}',
        '{"dice": {"T1": {"whole": 0.5}}, "n": [5]}',
        '{"dice": {"T1": 0.5}}',
        '{"dice": {"T1": {"w": null}}}',
    ],
)
def test_measurements_that_are_something_else(folder, content):
    (folder / "dice_by_subset.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"dice_by_subset.json (does not hold|is no JSON|holds a list|lacks \"dice\").* remove it"
    ):
        describe_model(folder, [0], "checkpoint_final.pth")


def test_a_note_says_what_was_used(folder):
    model = describe_model(folder, [0], "checkpoint_final.pth")
    content = note(model, (True, False, False), NAMES, ["in/a_0002.nii.gz"], ["a and b hold the same voxels"])
    assert json.loads(json.dumps(content)) == content
    assert content.pop("versions") == {
        "nnunetv2_d2net": __version__,
        "nnunetv2": version("nnunetv2"),
        "torch": version("torch"),
    }
    assert content == {
        "available modalities": ["T1"],
        "absent modalities": ["T1ce", "T2"],
        "constant images, taken as absent": ["in/a_0002.nii.gz"],
        "model": "D2NetTrainer__D2NetPlans__3d_fullres",
        "data set": "Dataset007_Tiny",
        "checkpoints (sha256)": {"fold_0/checkpoint_final.pth": hashlib.sha256(b"zero").hexdigest()},
        "remarks on the images": ["a and b hold the same voxels"],
        "compared with the training data": [],
        "Dice measured on": "never measured",
    }


def test_a_model_from_memory_has_a_note_too():
    content = note(None, (True, True, True), NAMES)
    assert content["available modalities"] == NAMES
    assert content["absent modalities"] == []
    assert (content["model"], content["data set"], content["checkpoints (sha256)"]) == (None, None, {})


def test_a_note_says_what_to_expect(folder):
    write_measured(folder, DICE, "held-out cases")
    content = note(describe_model(folder, [0], "checkpoint_final.pth"), (True, False, True), NAMES)
    assert content["Dice measured on"] == "held-out cases"
    assert content["mean Dice measured with these modalities"] == {"whole": 0.85, "enhancing": 0.31}
    assert content["SD over cases of the measured Dice"] == {"whole": 0.06, "enhancing": 0.2}
    assert content["cases of the measured Dice"] == {"whole": 5, "enhancing": 5}
    assert content["mean ml found in cases without the region"] == {"whole": None, "enhancing": 0.25}
    assert content["cases without the region"] == {"whole": None, "enhancing": 2}
    content["volumes (ml)"] = {"whole": 3.0, "enhancing": 1.0}
    assert closing_line(content).startswith("whole 3.0 ml, enhancing 1.0 ml (mean of 2 cases without it: 0.2 ml); Dice")
    content["cases without the region"] = {}
    assert closing_line(content).startswith("whole 3.0 ml, enhancing 1.0 ml; Dice")
    assert content["warnings"] == [
        "enhancing is unreliable without T1ce: mean Dice 0.31 instead of 0.80 with all modalities"
    ]


def test_a_subset_that_was_not_measured(folder):
    content = note(Model(folder, {}, DICE), (False, False, True), NAMES)
    assert content["mean Dice measured with these modalities"] == {}
    assert content["Dice measured on"] == "never measured"
    assert closing_line(content) == "no volumes; Dice with T2: never measured"
    assert content["warnings"] == []


def test_all_modalities_need_no_warning(folder):
    assert note(Model(folder, {}, DICE), (True, True, True), NAMES)["warnings"] == []


@pytest.mark.parametrize(("reached", "n_lines"), [(1.0, 0), (0.8, 0), (UNRELIABLE * 0.75, 0), (0.599, 1), (0.0, 1)])
def test_a_region_is_unreliable_below_a_share_of_the_best(reached, n_lines):
    dice = {"all": {"core": Measured(0.75)}, "some": {"core": Measured(reached)}}
    assert len(warnings(dice, "some", "all", ["T1"])) == n_lines


@pytest.mark.parametrize(("reached", "n_lines"), [(FLOOR, 0), (FLOOR - 0.01, 1), (0.0, 1)])
def test_a_region_may_be_unreliable_whatever_there_is(reached, n_lines):
    lines = warnings({"all": {"core": Measured(reached)}}, "all", "all", [])
    assert lines == [f"core is unreliable even with all modalities: mean Dice {reached:.2f}"][:n_lines]


def test_a_region_that_is_poor_with_all_is_so_without_some():
    dice = {"all": {"core": Measured(0.4)}, "some": {"core": Measured(0.36)}}
    assert warnings(dice, "some", "all", ["T1"]) == ["core is unreliable without T1: mean Dice 0.36"]
    assert warnings({"some": dice["some"]}, "some", "all", ["T1"]) == warnings(dice, "some", "all", ["T1"])


def test_the_closing_line(folder):
    content = note(Model(folder, {}, DICE, "cases of A"), (True, False, True), NAMES)
    line = closing_line({**content, "volumes (ml)": {"whole": 63.26, "enhancing": 0.0}})
    figures = "whole 0.85 ± 0.06, enhancing 0.31 ± 0.20 (mean ± SD over 5 cases) on cases of A"
    assert line == f"whole 63.3 ml, enhancing 0.0 ml (mean of 2 cases without it: 0.2 ml); Dice with T1, T2: {figures}"


def test_the_closing_line_of_one_case_and_of_an_older_table(folder):
    one = note(Model(folder, {}, DICE, "cases of A"), (True, False, False), NAMES)
    assert closing_line(one).endswith("Dice with T1: whole 0.50, enhancing 0.20 (of 1 case) on cases of A")
    (folder / "dice_by_subset.json").write_text(
        '{"measured on": "12 cases", "dice": {"T1": {"whole": 0.5}}}', encoding="utf-8"
    )
    older = note(describe_model(folder, [0], "checkpoint_final.pth"), (True, False, False), NAMES)
    assert closing_line(older) == "no volumes; Dice with T1: whole 0.50 on 12 cases"


def test_a_warning_names_region_and_absent_modalities():
    lines = warnings(DICE, "T1", "T1+T1ce+T2", ["T1ce", "T2"])
    assert [line.split(":")[0] for line in lines] == [
        "whole is unreliable without T1ce, T2",
        "enhancing is unreliable without T1ce, T2",
    ]
