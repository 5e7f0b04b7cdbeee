import json
import os
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.study.scores import evaluate
from nnunetv2_d2net.study.scores.evaluate import ALL_GIVEN, evaluate_folder, read_scores

DATASET = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "file_ending": ".nii.gz",
}
CUBE = np.zeros((6, 10, 10), np.uint8)
CUBE[1:5, 2:8, 2:8] = 1
CUBE[2:4, 4:6, 4:6] = 2


def write(path, array, spacing=(1.0, 1.0, 3.0), origin=(0.0, 0.0, 0.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.asarray(array, np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path):
    """Two cases, of which one lacks T2; every prediction is shifted by one voxel of 3 mm."""
    for case in ("a", "b"):
        write(tmp_path / "labels" / f"{case}.nii.gz", CUBE)
    for subset in ("T1", "T2", "T1+T2"):
        for case in ("a", "b") if subset == "T1" else ("a",):
            write(tmp_path / "predictions" / subset / f"{case}.nii.gz", np.roll(CUBE, 1, 0))
        (tmp_path / "predictions" / subset / "dataset.json").write_text(json.dumps(DATASET), encoding="utf-8")
    return tmp_path


def run(folders, **settings):
    return evaluate_folder(folders / "predictions", folders / "labels", folders / "out", **settings)


@pytest.fixture
def scored(monkeypatch):
    """Say which cases and subsets are really scored."""
    calls = []
    original = evaluate.score_case
    monkeypatch.setattr(evaluate, "score_case", lambda job: calls.append((job.case, job.subset)) or original(job))
    return calls


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.json", "tables.json"])
def test_files_of_others_are_not_written_over(folders, name):
    (folders / "out").mkdir()
    (folders / "out" / name).write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"out/{name} .*-o"):
        run(folders)
    assert [path.name for path in (folders / "out").iterdir()] == [name]
    assert (folders / "out" / name).read_text(encoding="utf-8") == "a,b\n1,2\n"


def test_one_process_at_a_time(folders):
    with locked_folder(folders / "out"), pytest.raises(UserError, match="another process holds"):
        run(folders)


def test_rows(folders):
    found = run(folders)
    assert found.scores == read_scores(folders / "out" / "metrics.csv")
    assert [(row.case, row.subset, row.region) for row in found.scores] == [
        (case, subset, region)
        for case, subset in (("a", "T1"), ("a", "T1+T2"), ("a", "T2"), ("b", "T1"))
        for region in ("whole", "core")
    ]
    for row in found.scores:
        assert row.dice == (0.75 if row.region == "whole" else 0.5)
        assert row.hd95 == 3.0
        assert row.reference_voxels == row.prediction_voxels == (144 if row.region == "whole" else 8)
    assert (found.failures, found.unpredicted, found.modalities) == ([], [], ["T1", "T2"])
    assert found.absent == {"T2": 1, "T1+T2": 1}
    header, first, *_ = (folders / "out" / "metrics.csv").read_bytes().decode().splitlines(keepends=True)
    assert header == "case,subset,region,dice,hd95,assd,surface_dice,reference_voxels,prediction_voxels\n"
    assert first == "a,T1,whole,0.75,3.0,0.654388,0.790125,144,144\n"


def test_processes_give_the_same_rows(folders):
    expected = run(folders).scores
    (folders / "out" / "metrics.csv").unlink()
    assert run(folders, processes=2).scores == expected


def test_processes_and_the_bar_are_as_asked_for(folders, monkeypatch):
    asked = []
    monkeypatch.setattr(evaluate, "run_all", lambda *args, **settings: asked.append((args[2:], settings)) or ())
    run(folders)
    run(folders, processes=2, progress=True)
    words = {"title": "evaluate", "unit": "segmentation"}
    assert asked == [((1,), words | {"progress": False}), ((2,), words | {"progress": True})]


def test_nothing_is_done_twice(folders, scored):
    first = run(folders)
    assert len(scored) == 4
    assert run(folders) == first
    assert len(scored) == 4
    note = folders / "out" / "metrics.json"
    text = note.read_text(encoding="utf-8")
    assert text.startswith(
        '{\n "settings": {\n  "tolerance_mm": 1.0,\n  "regions": {\n   "whole": [\n    1,\n    2\n   ],'
    )
    note.write_text(json.dumps({"settings": json.loads(text)["settings"]}), encoding="utf-8")  # of no files
    assert run(folders) == first
    assert len(scored) == 8
    for foreign in ("elsewhere", {"predictions": 1}):
        note.write_text(json.dumps({"scored": foreign}), encoding="utf-8")
        assert run(folders) == first


@pytest.mark.parametrize("kind", ["predictions", "labels"])
def test_scores_of_other_folders_are_not_replaced_while_those_are_there(kind, folders, scored):
    first = run(folders)
    (folders / "other").mkdir()
    (folders / kind).rename(folders / "other" / kind)
    assert run_in(folders, kind).scores == first.scores  # moved: the same files
    shutil.copytree(folders / "other" / kind, folders / kind)
    written = (folders / "out" / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=rf"out holds the scores of the .*{folders / 'other' / kind}: pass another -o"):
        run(folders)
    assert (folders / "out" / "metrics.csv").read_bytes() == written
    assert len(scored) == 4


def test_where_nothing_was_scored_other_references_may_be_named(folders):
    wrong = folders / "wrong"
    wrong.mkdir()
    assert not evaluate_folder(folders / "predictions", wrong, folders / "out").scores
    assert run(folders).scores


def run_in(folders, kind):
    """Evaluate where one of the folders lies elsewhere."""
    places = {name: folders / ("other" if name == kind else "") / name for name in ("predictions", "labels")}
    return evaluate_folder(places["predictions"], places["labels"], folders / "out")


def test_a_copy_of_predictions_may_have_its_scores_in_it(folders):
    own, copy = folders / "predictions", folders / "copy"
    evaluate_folder(own, folders / "labels", own / "evaluation")
    shutil.copytree(own, copy)
    assert evaluate_folder(copy, folders / "labels", copy / "evaluation").scores


def test_killed_in_the_middle_of_a_line(folders, scored):
    first = run(folders)
    table = folders / "out" / "metrics.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    for left, again in (([*lines[:5], lines[5][:9]], 2), ([*lines[:4], lines[4][:3]], 3), (lines[:1], 4), ([], 4)):
        table.write_text("".join(left), encoding="utf-8")
        scored.clear()
        assert run(folders).scores == first.scores
        assert len(scored) == again
        assert table.read_text(encoding="utf-8").splitlines(keepends=True) == lines


def test_a_stop_keeps_the_rows_so_far(folders, monkeypatch, scored):
    score = evaluate.score_case

    def stop_at_t2(job):
        if job.subset == "T2":
            raise KeyboardInterrupt
        return score(job)

    monkeypatch.setattr(evaluate, "score_case", stop_at_t2)
    with pytest.raises(KeyboardInterrupt):
        run(folders)
    assert len(read_scores(folders / "out" / "metrics.csv")) == 4
    monkeypatch.setattr(evaluate, "score_case", score)
    scored.clear()
    run(folders)
    assert scored == [("a", "T2"), ("b", "T1")]


def test_other_files_and_other_settings_are_scored_again(folders, scored):
    run(folders)
    scored.clear()
    changed = folders / "predictions" / "T2" / "a.nii.gz"
    write(changed, CUBE)
    os.utime(changed, (1, 1))  # older than before, as a copy that keeps its time may be
    assert [row.dice for row in run(folders).scores if row.subset == "T2"] == [1.0, 1.0]
    assert scored == [("a", "T2")]
    scored.clear()
    tight, wide = run(folders).scores, run(folders, tolerance_mm=3.5).scores
    assert len(scored) == 4
    assert tight[0].surface_dice < wide[0].surface_dice == 1.0


def test_a_reference_that_has_changed_is_read_again(folders, scored):
    run(folders)
    scored.clear()
    write(folders / "labels" / "b.nii.gz", np.roll(CUBE, 1, 0))  # the last that was read
    assert [row.dice for row in run(folders).scores if row.case == "b"] == [1.0, 1.0]
    assert scored == [("b", "T1")]


def test_killed_before_rows_of_other_settings_are_gone(folders, monkeypatch):
    tight = run(folders).scores

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "replace_scores", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folders, tolerance_mm=3.5)
    assert run(folders, tolerance_mm=3.5).scores[0].surface_dice == 1.0 > tight[0].surface_dice


def test_removed_predictions_lose_their_rows(folders):
    run(folders)
    (folders / "predictions" / "T1" / "b.nii.gz").unlink()
    found = run(folders)
    assert {row.case for row in found.scores} == {"a"}
    assert found.unpredicted == ["b"]


def damage(folders, kind):
    prediction, reference = folders / "predictions" / "T2" / "a.nii.gz", folders / "labels" / "b.nii.gz"
    if kind == "reference":
        reference.unlink()
    elif kind == "cut":
        prediction.write_bytes(prediction.read_bytes()[:-20])
    elif kind == "text":
        prediction.write_text("no image", encoding="utf-8")
    elif kind == "halves":
        sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(prediction)), sitk.sitkFloat32) * 0.5, str(prediction))
    elif kind == "channels":
        image = sitk.GetImageFromArray(np.stack([CUBE, CUBE], -1), isVector=True)
        sitk.WriteImage(image, str(prediction))
    else:
        arguments = {
            "shape": {"array": CUBE[:5]},
            "spacing": {"array": CUBE, "spacing": (1.0, 1.0, 3.1)},
            "origin": {"array": CUBE, "origin": (0.0, 5.0, 0.0)},
            "label 7": {"array": CUBE * 7},
            "ignore label": {"array": CUBE + 1},
        }
        write(prediction, **arguments[kind])


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("reference", ["case 'b', T1:", "b.nii.gz does not exist"]),
        ("cut", ["case 'a', T2:", "a.nii.gz cannot be read"]),
        ("text", ["case 'a', T2:", "a.nii.gz cannot be read"]),
        ("channels", ["case 'a', T2:", "2 channels"]),
        ("halves", ["case 'a', T2:", "T2/a.nii.gz", "no whole numbers, such as 0.5"]),
        ("shape", ["T2/a.nii.gz and ", "labels/a.nii.gz differ in shape", "5x10x10 and 6x10x10"]),
        ("spacing", ["differ in spacing", "0.1"]),
        ("origin", ["differ in origin"]),
        ("label 7", ["7, 14", "no label of dataset.json"]),
        ("ignore label", ["holds 3,", "no label of dataset.json"]),
    ],
)
def test_what_is_wrong_with_one_case_costs_only_that_case(folders, kind, parts, caplog):
    damage(folders, kind)
    found = run(folders)
    (line,) = found.failures
    assert "\n" not in line
    for part in parts:
        assert part in line
    assert caplog.messages == [line]
    assert len(found.scores) == 6
    assert len(run(folders).failures) == 1  # tried again, told again


def test_labels_that_a_resampling_has_moved_a_little(folders):
    """0.99999 counts as 1, in predictions and references alike."""
    expected = run(folders).scores
    for path in (folders / "labels" / "a.nii.gz", folders / "predictions" / "T2" / "a.nii.gz"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) * 0.99999, str(path))
    assert run(folders).scores == expected


@pytest.mark.parametrize(("shift", "n_failures"), [(0.005, 0), (0.02, 2)])
def test_an_origin_that_a_program_has_rounded(folders, shift, n_failures):
    write(folders / "labels" / "a.nii.gz", CUBE, origin=(0.0, shift, 0.0))
    write(folders / "predictions" / "T1+T2" / "a.nii.gz", CUBE, origin=(0.0, shift, 0.0))
    found = run(folders)
    assert len(found.failures) == n_failures
    assert [row.dice for row in found.scores if row.subset == "T1+T2"] == [1.0, 1.0]


def test_not_a_number_is_no_label(folders, caplog):
    voxels = np.where(CUBE == 2, np.nan, CUBE.astype(np.float32))
    for path in (folders / "labels" / "b.nii.gz", folders / "predictions" / "T2" / "a.nii.gz"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    found = run(folders)
    assert [(row.case, row.subset) for row in found.scores] == [("a", "T1")] * 2 + [("a", "T1+T2")] * 2
    assert [line.split(": ")[0] for line in found.failures] == ["case 'a', T2", "case 'b', T1"]
    assert all("holds NaN" in line for line in found.failures)
    assert sorted(caplog.messages) == found.failures


def test_two_matrices_that_disagree_are_told_once_a_case(folders, caplog):
    for path in (folders / "labels" / "a.nii.gz", *folders.glob("predictions/*/a.nii.gz")):
        image = nibabel.load(path)
        moved = image.affine.copy()
        moved[1, 3] += 12.4
        image.set_qform(moved, 1)
        image.set_sform(image.affine, 1)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
    found = run(folders, processes=2)
    assert (len(found.scores), found.failures) == (8, [])
    (line,) = caplog.messages
    assert line.startswith(
        f"case 'a': {folders / 'labels' / 'a.nii.gz'} has a qform and an sform that differ by 12.4 mm"
    )
    caplog.clear()
    assert run(folders).scores == found.scores
    assert caplog.messages == []


def test_nothing_is_written_unless_asked(folders, capsys):
    there = sorted(folders.rglob("*"))
    found = evaluate_folder(str(folders / "predictions"), str(folders / "labels"))
    assert sorted(folders.rglob("*")) == there
    assert capsys.readouterr() == ("", "")
    assert found == run(folders)


def test_a_dataset_json_without_names_of_channels(folders):
    for path in folders.glob("predictions/*/dataset.json"):
        path.write_text(
            json.dumps({key: value for key, value in DATASET.items() if key != "channel_names"}), encoding="utf-8"
        )
    found = run(folders)
    assert (len(found.scores), found.modalities) == (8, [])


def test_ignored_voxels_of_the_reference(folders):
    reference = CUBE.copy()
    reference[:, :, 5:] = 3
    write(folders / "labels" / "a.nii.gz", reference)
    row = run(folders).scores[0]
    assert row.reference_voxels == row.prediction_voxels == 4 * 6 * 3


def test_a_plain_folder(folders, tmp_path):
    (folders / "dataset.json").write_text(json.dumps(DATASET), encoding="utf-8")  # beside labels, as in a raw data set
    plain = folders / "plain"
    write(plain / "a.nii.gz", CUBE)
    found = evaluate_folder(plain, folders / "labels", plain / "evaluation")
    assert [(row.subset, row.dice) for row in found.scores] == [(ALL_GIVEN, 1.0)] * 2
    assert found.unpredicted == ["b"]


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda f: (f / "labels").rename(f / "elsewhere"), "labels is no folder"),
        (lambda f: (f / "predictions").rename(f / "elsewhere"), "predictions is no folder"),
        (lambda f: (f / "out").write_text("a file", encoding="utf-8"), "out cannot be written"),
        (lambda f: [p.unlink() for p in f.glob("predictions/*/*.nii.gz")], "no segmentation .nii.gz"),
        (lambda f: [p.unlink() for p in f.glob("predictions/*/dataset.json")], "no dataset.json"),
        (
            lambda f: [p.write_text("{", encoding="utf-8") for p in f.glob("predictions/*/dataset.json")],
            "predictions/T1/dataset.json is no JSON .*: copy the data set's$",
        ),
        (
            lambda f: [p.write_text("{}", encoding="utf-8") for p in f.glob("predictions/*/dataset.json")],
            'predictions/T1/dataset.json lacks "labels".*: copy the data set\'s$',
        ),
    ],
)
def test_nothing_to_score(folders, spoil, part):
    spoil(folders)
    with pytest.raises(UserError, match=part):
        run(folders)


def test_a_tolerance_is_a_distance(folders):
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"a tolerance of {tolerance} is none: choose a distance in mm"):
            run(folders, tolerance_mm=tolerance)
    assert run(folders, tolerance_mm=0.0).scores[0].surface_dice < run(folders).scores[0].surface_dice


def test_another_file_called_metrics_csv(folders):
    run(folders)
    (folders / "out" / "metrics.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no table of d2net evaluate \(other columns\)"):
        run(folders)


def test_segmentations_that_would_not_be_looked_at_are_refused(folders):
    (folders / "predictions" / "T1" / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"T1 holds segmentations and no dataset\.json, .* move the folder away"):
        run(folders)
    assert not (folders / "out").exists()
    (folders / "predictions" / "T1").rename(folders / "away")
    write(folders / "predictions" / "a.nii.gz", CUBE)
    with pytest.raises(UserError, match="predictions holds segmentations, and so do subfolders"):
        run(folders)
    (folders / "predictions" / "a.nii.gz").unlink()
    (folders / "predictions" / "notes").mkdir()
    assert {row.subset for row in run(folders).scores} == {"T2", "T1+T2"}


def test_a_label_called_as_the_mean_is_refused(folders):
    labels = DATASET["labels"] | {"mean": 2}
    for subset in ("T1", "T2", "T1+T2"):
        path = folders / "predictions" / subset / "dataset.json"
        path.write_text(json.dumps(DATASET | {"labels": labels}), encoding="utf-8")
    with pytest.raises(UserError, match="a label is called mean, as the mean over labels is"):
        run(folders)


def test_names_with_breaks_of_lines_are_read_back(folders):
    for subset in ("T1", "T2", "T1+T2"):
        path = folders / "predictions" / subset / "dataset.json"
        path.write_text(json.dumps(DATASET).replace("whole", "whole\u2028tumor"), encoding="utf-8")
    first = run(folders).scores
    assert {row.region for row in first} == {"whole\u2028tumor", "core"}
    assert run(folders).scores == first


def test_a_label_of_several_points_in_time_is_no_reason_to_stop(folders):
    image = nibabel.Nifti1Image(np.zeros((10, 10, 6, 2), np.uint8), np.eye(4))
    for path in (folders / "labels" / "b.nii.gz", folders / "predictions" / "T1" / "b.nii.gz"):
        nibabel.save(image, path)
    found = run(folders)
    assert {row.case for row in found.scores} == {"a"}
    assert len(found.failures) == 1
    assert "b.nii.gz" in found.failures[0]
    assert "Traceback" not in found.failures[0]
