import hashlib
import json

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import content_state
from nnunetv2_d2net.plugin.prediction.note import Measured, read_measured
from nnunetv2_d2net.study.scores import measured
from nnunetv2_d2net.study.scores.evaluate import ALL_GIVEN
from nnunetv2_d2net.study.scores.measured import keep_scores, keep_with_model
from nnunetv2_d2net.study.scores.metrics import CaseScore

FOLDS = [f"fold_{fold}/checkpoint_final.pth" for fold in (0, 1)]
DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in FOLDS}


def score(case, subset, region, dice):
    return CaseScore(case, subset, region, dice, 1.0, 1.0, 1.0, 10, 10)


def test_mean_spread_and_number_of_cases_are_kept_without_means_over_regions_and_subsets(tmp_path):
    scores = [score(case, "T1", "core", dice) for case, dice in zip("abc", (0.2, 0.4, 0.6), strict=True)]
    scores += [score(case, "T1", "whole", 1.0) for case in "abc"]
    scores += [score("a", "T1+T2", "core", 0.9), score("a", "T1+T2", "whole", 1.0)]
    keep_scores(scores, tmp_path, "three cases", {"fold_0/checkpoint_final.pth": "0" * 64})
    table = read_measured(tmp_path)
    assert [(subset, *regions) for subset, regions in table.items()] == [
        ("T1", "core", "whole"),
        ("T1+T2", "core", "whole"),
    ]
    assert table["T1"]["core"] == pytest.approx((0.4, 0.2, 3, None, None))
    assert table["T1"]["whole"] == Measured(1.0, 0.0, 3)
    assert table["T1+T2"]["core"] == Measured(0.9, None, 1)
    assert read_measured(tmp_path, {"fold_0/checkpoint_final.pth": "1" * 64}) == {}


@pytest.fixture
def model(tmp_path):
    """Two checkpoints, which say their names."""
    for name in FOLDS:
        (tmp_path / "model" / name).parent.mkdir(parents=True)
        (tmp_path / "model" / name).write_text(name, encoding="utf-8")
    return tmp_path / "model"


def write_note(folder, case, available, checkpoints=DIGESTS, **more):
    folder.mkdir(parents=True, exist_ok=True)
    note = {"available modalities": available, "checkpoints (sha256)": checkpoints, **more}
    (folder / f"{case}.modalities.json").write_text(json.dumps(note), encoding="utf-8")


def test_dice_is_kept_with_the_model_that_made_the_predictions_each_checkpoint_hashed_once(
    tmp_path, model, monkeypatch
):
    hashed, digest_of = [], measured.sha256_of
    monkeypatch.setattr(measured, "sha256_of", lambda path: hashed.append(path) or digest_of(path))
    for case, subset in (("a", "T1"), ("b", "T1"), ("a", "T1+T2")):
        write_note(
            tmp_path / subset, case, subset.split("+"), {FOLDS[0]: DIGESTS[FOLDS[0]]} if case == "b" else DIGESTS
        )
    scores = [score("a", "T1", "core", 0.25), score("a", "T1+T2", "core", 1.0), score("b", "T1", "core", 0.75)]
    path = keep_with_model(iter(scores), tmp_path, model, "two cases")
    assert path == model / "dice_by_subset.json"
    assert read_measured(model, DIGESTS) == {
        "T1": {"core": pytest.approx((0.5, 0.125**0.5, 2, None, None))},
        "T1+T2": {"core": Measured(1.0, None, 1)},
    }
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["measured on"], content["checkpoints"]) == ("two cases", DIGESTS)
    assert hashed == [model / name for name in FOLDS]


def test_the_notes_say_what_the_segmentations_of_a_plain_folder_were_made_from(tmp_path, model):
    write_note(tmp_path, "a", ["T1", "T2"])
    write_note(tmp_path, "b", ["T2"])
    scores = [score(case, ALL_GIVEN, region, 1.0) for case in "ab" for region in ("whole", "core")]
    keep_with_model(scores, tmp_path, model, "two cases")
    once = {region: Measured(1.0, None, 1) for region in ("whole", "core")}
    assert read_measured(model) == {"T1+T2": once, "T2": once}


def test_what_was_found_in_cases_without_a_region_is_kept(tmp_path, model):
    for case, whole, core in (("a", 2.5, 1.0), ("b", 4.5, 7.0), ("c", 90.0, 40.0)):
        write_note(tmp_path / "T1", case, ["T1"], **{"volumes (ml)": {"whole": whole, "core": core}})
    write_note(tmp_path / "T2", "a", ["T2"])
    scores = [score(case, "T1", region, 0.0) for case in "abc" for region in ("whole", "core")]
    absent = {("a", "whole"), ("b", "whole"), ("b", "core")}
    scores = [row._replace(reference_voxels=10 * ((row.case, row.region) not in absent)) for row in scores]
    scores += [score("a", "T2", "whole", 0.0)._replace(reference_voxels=0)]  # its note does not say what was found
    keep_with_model(scores, tmp_path, model, "cases")
    table = read_measured(model)
    assert table["T1"] == {"core": Measured(0.0, 0.0, 3, 7.0, 1), "whole": Measured(0.0, 0.0, 3, 3.5, 2)}
    assert table["T2"] == {"whole": Measured(0.0, None, 1)}


@pytest.mark.parametrize(
    ("checkpoints", "culprit"),
    [
        ({**DIGESTS, FOLDS[1]: "0" * 64}, FOLDS[1]),
        ({**DIGESTS, "fold_2/checkpoint_final.pth": "0" * 64}, "fold_2/checkpoint_final.pth"),
        ({}, "no checkpoint"),
    ],
)
def test_dice_of_other_checkpoints_is_refused(tmp_path, model, checkpoints, culprit):
    write_note(tmp_path / "T1", "a", ["T1"], checkpoints)
    with pytest.raises(UserError) as refused:
        keep_with_model([score("a", "T1", "core", 1.0)], tmp_path, model, "a case")
    assert str(refused.value) == (
        f"{tmp_path}/T1/a.modalities.json: {culprit} of {model} did not make this segmentation: "
        "predict anew with this model by d2net predict, or leave out --model"
    )
    assert read_measured(model) == {}


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (None, "cannot be read"),
        ({"checkpoints (sha256)": DIGESTS}, 'lacks "available modalities"'),
        ({"available modalities": ["T1"]}, r'lacks "checkpoints \(sha256\)"'),
        ({"available modalities": "T1", "checkpoints (sha256)": DIGESTS}, "is a text, not a list"),
        ({"available modalities": ["T1"], "checkpoints (sha256)": FOLDS}, "is a list, not an object"),
    ],
)
def test_a_note_that_does_not_say_it_is_refused(tmp_path, model, note, reason):
    if note is not None:
        (tmp_path / "a.modalities.json").write_text(json.dumps(note), encoding="utf-8")
    with pytest.raises(UserError, match=rf"a.modalities.json.* {reason}.*: predict anew .*, or leave out --model$"):
        keep_with_model([score("a", ALL_GIVEN, "core", 1.0)], tmp_path, model, "a case")


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="none is no folder: name the folder of the model"):
        keep_with_model([], tmp_path, tmp_path / "none", "a case")


def test_a_segmentation_that_was_written_over_is_refused(tmp_path, model):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"segmentation")
    write_note(tmp_path, "a", ["T1"], files={".nii.gz": content_state(path), ".npz": [1, "0"]})
    keep_with_model([score("a", ALL_GIVEN, "core", 1.0)], tmp_path, model, "one case")
    path.write_bytes(b"another one's")
    with pytest.raises(UserError, match=rf"^{path} is not what its note a\.modalities\.json is of: predict anew"):
        keep_with_model([score("a", ALL_GIVEN, "core", 1.0)], tmp_path, model, "one case")


def test_folders_of_the_same_modalities_are_not_taken_together(tmp_path, model):
    for folder in ("f0", "f1"):
        write_note(tmp_path / folder, "a", ["T1", "T2"])
    write_note(tmp_path / "T1", "a", ["T1"])
    scores = [score("a", folder, "core", 1.0) for folder in ("f0", "f1", "T1")]
    with pytest.raises(UserError, match=r": f0, f1 hold a with T1\+T2 each: evaluate one of these folders at a time$"):
        keep_with_model(scores, tmp_path, model, "one case")


def keep(folder, model, subsets, cases="ab"):
    for case in cases:
        for subset in subsets:
            write_note(folder / subset, case, subset.split("+"))
    keep_with_model([score(c, s, "core", 0.5) for c in cases for s in subsets], folder, model, f"cases {cases}")


def test_what_was_measured_on_more_is_not_replaced_unasked(tmp_path, model):
    keep(tmp_path / "new", model, ["T1", "T2"])
    for subsets, cases in ((["T1"], "ab"), (["T1", "T2"], "a"), (["T1+T2"], "abcd")):
        with pytest.raises(UserError, match=r"dice_by_subset\.json was measured on more .*such as T.*remove this file"):
            keep(tmp_path / "new", model, subsets, cases)
    assert json.loads((model / "dice_by_subset.json").read_text(encoding="utf-8"))["measured on"] == "cases ab"
    keep(tmp_path / "new", model, ["T1", "T2"])
    keep(tmp_path / "new", model, ["T1", "T2", "T1+T2"], "abc")
    (model / "dice_by_subset.json").unlink()
    keep(tmp_path / "new", model, ["T1"], "a")


def test_what_other_checkpoints_reached_is_replaced(tmp_path, model):
    keep_scores([score(case, "T1", "core", 0.5) for case in "abc"], model, "three cases", {FOLDS[0]: "0" * 64})
    keep(tmp_path, model, ["T2"], "a")
    assert list(read_measured(model)) == ["T2"]
