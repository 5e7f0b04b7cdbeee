import json
import re
import shutil
import zipfile

import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_output, sha256_of
from nnunetv2_d2net.plugin.prediction.export import export_model
from nnunetv2_d2net.plugin.prediction.note import Measured, read_measured, write_measured
from tests.unit.conftest import whole_plans

LABELS = {"background": 0, "lesion": 1}
DATASET_JSON = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": LABELS, "file_ending": ".nii.gz"}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "Dataset007_Tiny" / "D2NetTrainer__D2NetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON), encoding="utf-8")
    (folder / "plans.json").write_text(json.dumps(whole_plans()), encoding="utf-8")
    weights = {"encoder.w": torch.zeros(3), "teacher.w": torch.zeros(5)}
    content = {"network_weights": weights, "trainer_name": "D2NetTrainer", "init_args": {"configuration": "3d_fullres"}}
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder


@pytest.mark.parametrize("name", ["new", "new.zip"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos\nwriting file data/0"), "writing"),
    ],
)
def test_a_full_disk_leaves_nothing(model, tmp_path, monkeypatch, name, error, reason):
    def full(*_):
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=f"{name} cannot be written .*{reason}.*pass another -o") as raised:
        export_model(model, tmp_path / "out" / name)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "out").iterdir())


def test_only_what_prediction_needs_is_written(model, tmp_path):
    (size,) = export_model(model, tmp_path / "out")
    written = tmp_path / "out" / model.parent.name / model.name / size.name
    assert list(torch.load(written, weights_only=True)["network_weights"]) == ["encoder.w"]
    assert (size.name, size.after) == ("fold_0/checkpoint_final.pth", written.stat().st_size)
    for name in ("dataset.json", "plans.json"):
        assert (written.parents[1] / name).read_bytes() == (model / name).read_bytes()


def test_weights_in_half_precision_are_half_as_large_also_where_they_have_several_names(model, tmp_path):
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    shared, table = torch.randn(10**5), torch.tensor([True, False])
    content["network_weights"] = {"encoder.w": shared, "decoder.encoder.w": shared, "by_stock": table}
    torch.save(content, checkpoint)
    (size,) = export_model(model, tmp_path / "out", half=True)
    assert size.after < 0.6 * size.before
    written = tmp_path / "out" / model.parent.name / model.name / size.name
    weights = torch.load(written, weights_only=True)["network_weights"]
    assert torch.equal(weights["encoder.w"], shared.half())
    assert weights["decoder.encoder.w"].data_ptr() == weights["encoder.w"].data_ptr()
    assert torch.equal(weights["by_stock"], table)


@pytest.mark.parametrize("name", ["new", "new.zip"])
def test_one_process_at_a_time(model, tmp_path, name):
    with locked_output(tmp_path / "out" / name), pytest.raises(UserError, match="another process holds"):
        export_model(model, tmp_path / "out" / name)
    export_model(model, tmp_path / "out" / name)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def refused(model, tmp_path, match, **arguments):
    """Nothing is written, neither a folder nor a file."""
    before = sorted(tmp_path.rglob("*"))
    for name in ("new", "new.zip"):
        with pytest.raises(UserError, match=match) as error:
            export_model(model, tmp_path / name, **arguments)
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["../../escaped", "{tmp}/escaped", "..", "Dataset7_X", "Dataset007_../../x", "model", ""]
)
def test_a_name_that_leads_elsewhere(model, tmp_path, name):
    model = shutil.move(model, tmp_path / "downloaded" / model.name)
    (model / "plans.json").write_text(json.dumps(whole_plans(dataset_name=name.format(tmp=tmp_path))), encoding="utf-8")
    refused(model, tmp_path, "Dataset007_")


def test_a_downloaded_model_gets_the_name_of_its_plans(model, tmp_path):
    model = shutil.move(model, tmp_path / "downloaded" / model.name)
    (model / "plans.json").write_text(json.dumps(whole_plans(dataset_name="Dataset012_Other")), encoding="utf-8")
    export_model(model, tmp_path / "new.zip")
    names = zipfile.ZipFile(tmp_path / "new.zip").namelist()
    assert all(name.startswith(f"Dataset012_Other/{model.name}/") for name in names)


@pytest.mark.parametrize(
    "name", ["plans.json", "dataset.json", "dice_by_subset.json", "fold_0/checkpoint_final.pth", "fold_0"]
)
def test_links_are_not_followed(model, tmp_path, name):
    path, elsewhere = model / name, tmp_path / "elsewhere"
    if path.exists():
        shutil.move(path, elsewhere)
    else:
        elsewhere.write_text('{"dice": {}}', encoding="utf-8")
    path.symlink_to(elsewhere)
    refused(model, tmp_path, f"{name} is a link.*put the file itself there")


def test_a_model_of_which_the_folder_is_a_link(model, tmp_path):
    (tmp_path / "link").symlink_to(model)
    export_model(tmp_path / "link", tmp_path / "out")
    assert (tmp_path / "out" / model.parent.name / model.name / "plans.json").is_file()


def test_no_path_of_this_machine_is_written(model, tmp_path):
    home = "/home/me/data"
    listed = {"a": {"images": [f"{home}/a_0000.nii.gz"], "label": f"{home}/a.nii.gz"}}
    described = {
        "licence": "https://example.org/a/b",
        "reference": f"see {home}/notes.txt and T1/T2",
        "dataset": listed,
    }
    (model / "dataset.json").write_text(json.dumps(DATASET_JSON | described), encoding="utf-8")
    (model / "plans.json").write_text(json.dumps(whole_plans(source="C:\\Users\\me\\plans.json")), encoding="utf-8")
    measured = {"measured on": f"5 cases of {home}/imagesTs", "checkpoints": {}, "dice": {"FLAIR": {"lesion": 0.5}}}
    (model / "dice_by_subset.json").write_text(json.dumps(measured), encoding="utf-8")
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth")
    checkpoint["init_args"] |= {"plans": whole_plans(source=home), "fold": 0}
    torch.save(checkpoint | {"logging": {"output": home}}, model / "fold_0" / "checkpoint_final.pth")
    export_model(model, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.*"):
        assert not re.search(rb"/home/me|Users|" + str(tmp_path).encode(), path.read_bytes())
    written = tmp_path / "out" / model.parent.name / model.name
    expected = DATASET_JSON | {"licence": "https://example.org/a/b", "reference": "see notes.txt and T1/T2"}
    assert json.loads((written / "dataset.json").read_text(encoding="utf-8")) == expected
    assert json.loads((written / "plans.json").read_text(encoding="utf-8"))["source"] == "plans.json"
    assert (
        json.loads((written / "dice_by_subset.json").read_text(encoding="utf-8"))["measured on"]
        == "5 cases of imagesTs"
    )


def test_what_was_measured_goes_along(model, tmp_path):
    name, dice = "fold_0/checkpoint_final.pth", {"FLAIR": {"lesion": Measured(0.5, 0.1, 5)}}
    write_measured(model, dice, "5 cases", {name: sha256_of(model / name)})
    export_model(model, tmp_path / "out")
    written = tmp_path / "out" / model.parent.name / model.name
    assert sha256_of(written / name) != sha256_of(model / name)
    assert read_measured(written, {name: sha256_of(written / name)}) == dice


DICE = {subset: {"lesion": Measured(0.5, 0.1, 5)} for subset in ("FLAIR", "T1", "FLAIR+T1")}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, ["FLAIR", "T1", "FLAIR+T1"]),
        ({"stock": False}, ["FLAIR"]),
        ({"thresholds": [0.3]}, None),
    ],
)
@pytest.mark.parametrize("says_of_which", [True, False])
def test_what_was_measured_is_not_told_of_what_segments_otherwise(model, tmp_path, settings, kept, says_of_which):
    """A companion whose stock network predicts with T1 and with everything."""
    name = "fold_0/checkpoint_final.pth"
    content = torch.load(model / name)
    content["network_weights"] = {
        "decoder.seg_layers.0.bias": torch.zeros(1),
        "stock.encoder.w": torch.zeros(2),
        "by_stock": torch.tensor([False, False, True, True]),
    }
    torch.save(content, model / name)
    write_measured(model, DICE, "5 cases", {name: sha256_of(model / name)})
    if not says_of_which:  # as older versions wrote it
        measured = json.loads((model / "dice_by_subset.json").read_text(encoding="utf-8"))
        del measured["checkpoints"]
        (model / "dice_by_subset.json").write_text(json.dumps(measured), encoding="utf-8")
    export_model(model, tmp_path / "out", **settings)
    written = tmp_path / "out" / model.parent.name / model.name
    assert read_measured(written, {name: sha256_of(written / name)}) == {s: DICE[s] for s in kept or ()}
    assert (written / "dice_by_subset.json").is_file() is (kept is not None)


def test_what_was_measured_with_an_older_checkpoint_does_not(model, tmp_path):
    name = "fold_0/checkpoint_final.pth"
    write_measured(model, {"FLAIR": {"lesion": Measured(0.5)}}, "5 cases", {name: "0" * 64})
    export_model(model, tmp_path / "out")
    written = tmp_path / "out" / model.parent.name / model.name
    assert read_measured(written, {name: sha256_of(written / name)}) == {}


def test_a_folder_that_nnunet_would_not_find(model, tmp_path):
    good, folder = model.name, model.parent
    names = (
        "MyBestModel",
        "D2NetTrainer__D2NetPlans",
        "nnUNetTrainer__D2NetPlans__3d_fullres",
        f"{good}__2",
        f"{good}_2",
    )
    for name in names:
        model = model.rename(folder / name)
        refused(model, tmp_path, f"{name} is not named as nnU-Net looks for it: rename it to {good}, then export")
    export_model(model.rename(folder / "D2NetTrainer__Mine__3d_fullres"), tmp_path / "out")


def test_what_the_output_is_called(model, tmp_path):
    for name in ("x.tar.gz", "x.TGZ", "x.7z", "x.pth"):
        with pytest.raises(UserError, match=f"{name}: export writes a .zip or a folder, no .*: pass another -o"):
            export_model(model, tmp_path / name)
        assert not (tmp_path / name).exists()
    export_model(model, tmp_path / "x.ZIP")
    assert zipfile.is_zipfile(tmp_path / "x.ZIP")
    export_model(model, tmp_path / "model.v2")
    with pytest.raises(UserError, match=r"x\.ZIP exists: pass another -o, or remove it$"):
        export_model(model, tmp_path / "x.ZIP")
    with pytest.raises(UserError, match=r"exists: pass another -o$"):  # it may be nnUNet_results
        export_model(model, tmp_path)


@pytest.mark.parametrize("folds", [None, ["0"]])
def test_a_checkpoint_without_its_ending(model, tmp_path, folds):
    match = r"fold_.*/checkpoint_final does not exist: pass -chk checkpoint_final\.pth$"
    refused(model, tmp_path, match, checkpoint_name="checkpoint_final", folds=folds)


@pytest.mark.parametrize("fold", ["../fold_0", "0/../../x", "first"])
def test_a_fold_that_is_none(model, tmp_path, fold):
    refused(model, tmp_path, "is no fold", folds=[fold])


def test_a_hostile_model(model, tmp_path):
    plans = whole_plans()
    network = plans["configurations"]["3d_fullres"]["architecture"]
    network["arch_kwargs"]["dropout_op"] = "torch.nn.modules.module.torch.os.system"
    (model / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    refused(model, tmp_path, r"plans\.json: configuration 3d_fullres names code from elsewhere")


@pytest.mark.parametrize("key", [*DATASET_JSON, None])
def test_a_dataset_json_of_another_form(model, tmp_path, key):
    (model / "dataset.json").write_text("[]" if key is None else json.dumps(DATASET_JSON | {key: 5}), encoding="utf-8")
    refused(model, tmp_path, rf"dataset\.json.*{key or 'list'}")
