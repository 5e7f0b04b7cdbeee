import json
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.cli.main import main
from tests.refusals import line_of
from tests.unit.conftest import whole_plans

NAMES = ["FLAIR", "T1", "T1ce", "T2"]
REST = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A trained model's folder with fold 0, as far as the command looks into it, and an input folder."""
    folder = tmp_path / "results" / "Dataset007_Toy" / "D2NetTrainer__D2NetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    channels = {str(i): NAMES[i] for i in (2, 0, 3, 1)}  # the order in the file means nothing
    (folder / "dataset.json").write_text(json.dumps({"channel_names": channels, **REST}), encoding="utf-8")
    write_plans(folder, "dynamic_network_architectures.architectures.unet.PlainConvUNet", "torch.nn.Conv3d")
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", "D2NetTrainer")
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_extTrainer", "")  # so that it is restored
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def write_plans(folder, network, layer):
    architecture = {
        "network_class_name": network,
        "arch_kwargs": {"conv_op": layer},
        "_kw_requires_import": ["conv_op"],
    }
    plans = whole_plans({"3d_fullres": {"architecture": architecture}, "derived": {"inherits_from": "3d_fullres"}})
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")


def write_checkpoint(path, trainer):
    logging = {"mean_fg_dice": [torch.rand(1).numpy()[0]]}  # NumPy scalars, as in nnU-Net's log
    content = {"trainer_name": trainer, "logging": logging, "network_weights": {"w": torch.zeros(3)}, "init_args": {}}
    torch.save(content, path)


@pytest.fixture
def predicted(monkeypatch):
    """Stand in for nnU-Net's entry point; say which words and which predictor it gets."""
    module = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    calls = []
    monkeypatch.setattr(module, "predict_entry_point", lambda: calls.append((sys.argv[1:], module.nnUNetPredictor)))
    return calls


def predict(*words, folds=("-f", "0")):
    given = ["-i", "images", "-o", "out", "-d", "7", "-c", "3d_fullres", "-device", "cpu", *folds]
    return main(["predict", *given, *words])


def one_line(capsys, *parts):
    error = line_of(capsys.readouterr().err)
    for part in parts:
        assert part in error, error


def test_one_process_at_a_time_writes_a_folder_or_a_part_of_it(model, predicted, capsys):
    parts = [("-num_parts", "2", "-part_id", str(part)) for part in range(2)]
    with locked_folder(Path("out"), "part_0_of_2"):
        assert predict(*parts[0]) == 1
        one_line(capsys, "another process holds out/")
        assert predict(*parts[1]) == 0
    with locked_folder(Path("out")):
        assert predict() == 1
    assert len(predicted) == 1


@pytest.mark.parametrize(
    ("words", "available"),
    [
        ([], (True, True, True, True)),
        (["--modalities", "T1ce", "FLAIR"], (True, False, True, False)),
        (["--modalities", "flair", "t1CE", "T1", "T2"], (True, True, True, True)),
        (["--drop", "T2"], (True, True, True, False)),
        (["--drop", "t1", "t1ce"], (True, False, False, True)),
    ],
)
def test_modalities_reach_the_predictor(model, predicted, words, available):
    from nnunetv2.inference import predict_from_raw_data

    from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor

    stock = predict_from_raw_data.nnUNetPredictor
    assert predict(*words, "--save_probabilities") == 0
    ((passed, predictor),) = predicted
    assert issubclass(predictor, D2NetPredictor)
    assert predictor.allowed == available
    assert passed == [
        *["-tr", "D2NetTrainer", "-p", "D2NetPlans", "-i", "images", "-o", "out", "-d", "7", "-c", "3d_fullres"],
        *["-device", "cpu", "-f", "0", "--save_probabilities"],
    ]
    assert predict_from_raw_data.nnUNetPredictor is stock
    assert D2NetPredictor.allowed is None


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--drop", "T9"], ["T9", "FLAIR, T1, T1ce, T2"]),
        (["--modalities", "FLAIR", "PD"], ["PD", "FLAIR, T1, T1ce, T2"]),
        (["--drop", *NAMES], ["every modality is dropped"]),
        (
            ["-c", "2d"],
            ["D2NetTrainer__D2NetPlans__2d", "there: D2NetTrainer__D2NetPlans__3d_fullres", "d2net train 7 2d 0"],
        ),
        (["-tr", "nnUNetTrainer"], ["nnUNetTrainer__D2NetPlans__3d_fullres"]),
        (["-d", "8"], ["Dataset008_"]),
        (["-d", "Dataset008_X"], ["Dataset008_X", "d2net train"]),
        (["-f", "1"], ["fold_1", "-f 0"]),
        (["-f", "0", "3"], ["fold_3", "-f 0"]),
        (["-f", "one"], ["one", "all"]),
        (["-chk", "checkpoint_best.pth"], ["checkpoint_best.pth"]),
        (["-i", "nowhere"], ["nowhere", "-i"]),
        (["-o"], ["missing -o"]),
        (["-num_parts", "2", "-part_id", "2"], ["-part_id 2", "-num_parts 2", "from 0"]),
        (["-num_parts", "two"], ["-num_parts two"]),
        (["-num_parts", "2", "-part_id", "-1"], ["-part_id -1"]),
        (["-step_size", "2"], ["-step_size 2", "at most 1"]),
        (["-step_size", "0"], ["-step_size 0", "above 0"]),
        (["-step_size", "nan"], ["-step_size nan"]),
        (["-step_size", "-.5"], ["-step_size -.5"]),
        (["-step_size", "half"], ["-step_size half"]),
        (["-npp", "-1"], ["-npp -1", "0 or more"]),
        (["-nps", "-2"], ["-nps -2", "0 or more"]),
        (["-chk", "checkpoint_final"], ["fold_0/checkpoint_final does not", "-chk checkpoint_final.pth"]),
        (["-o", "images"], ["images holds the images", "another -o"]),
        (["-o", "elsewhere/../images/"], ["another -o"]),
    ],
)
def test_bad_input(model, predicted, words, parts, capsys, tmp_path):
    assert predict(*words) in (1, 2)
    one_line(capsys, *parts)
    assert not predicted
    assert not (tmp_path / "out").exists()


def test_parts_reach_the_predictor_which_nnunet_does_not_tell_without_processes(model, predicted):
    assert predict("-npp", "0", "-nps", "0", "-num_parts", "3", "-part_id", "1") == 0
    assert predict("-step_size", "1") == 0
    assert [predictor.part for _, predictor in predicted] == [(1, 3), (0, 1)]


def test_nan_may_be_taken_as_zero(model, predicted):
    assert predict("--nan_outside_as_zero") == 0
    assert predict() == 0
    assert [predictor.nan_outside_as_zero for _, predictor in predicted] == [True, False]
    assert "--nan_outside_as_zero" not in predicted[0][0]


def test_nnunets_default_folds_are_checked(model, predicted, capsys):
    assert predict(folds=()) == 1
    one_line(capsys, "fold_1", "-f 0")
    for fold in range(1, 5):
        (model / f"fold_{fold}").mkdir()
        write_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pth", "D2NetTrainer")
    assert predict(folds=()) == 0


def test_modalities_and_drop_exclude_each_other(model, capsys):
    with pytest.raises(SystemExit) as stop:
        predict("--drop", "T1", "--modalities", "T2")
    assert stop.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_checkpoint_of_another_trainer(model, predicted, capsys):
    write_checkpoint(model / "fold_0" / "checkpoint_final.pth", "nnUNetTrainerModalityDropout")
    assert predict() == 1
    one_line(capsys, "checkpoint_final.pth", "nnUNetTrainerModalityDropout__D2NetPlans__3d_fullres")
    assert not predicted


def test_a_model_of_another_trainer_predicts_under_its_name(model, predicted):
    other = model.rename(model.with_name("nnUNetTrainer__nnUNetPlans__3d_fullres"))
    write_checkpoint(other / "fold_0" / "checkpoint_final.pth", "nnUNetTrainer")
    assert predict("-tr", "nnUNetTrainer", "-p", "nnUNetPlans", "--drop", "T1") == 0
    assert predicted[0][1].allowed == (True, False, True, True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_checkpoint(model, predicted, content, capsys):
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(content)
    assert predict() == 1
    one_line(capsys, "checkpoint_final.pth")
    assert not predicted


def test_a_checkpoint_that_would_run_code_is_not_loaded(model, predicted, capsys):
    torch.save({"trainer_name": "D2NetTrainer", "run": Path("x")}, model / "fold_0" / "checkpoint_final.pth")
    assert predict() == 1
    one_line(capsys, "checkpoint_final.pth", "someone you trust")
    assert not predicted


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("torch.hub.load", "torch.nn.Conv3d"),
        ("dynamic_network_architectures.architectures.unet.PlainConvUNet", "os.system"),
    ],
)
def test_plans_that_name_code_from_elsewhere(model, predicted, network, layer, capsys):
    write_plans(model, network, layer)
    assert predict() == 1
    one_line(capsys, "plans.json", "code from elsewhere")
    assert not predicted


def test_a_model_whose_dataset_json_names_no_channels(model, capsys):
    (model / "dataset.json").write_text("{}", encoding="utf-8")
    assert predict() == 1
    one_line(capsys, "dataset.json", "channel_names")


def test_a_model_without_dataset_json(model, capsys):
    (model / "dataset.json").unlink()
    assert predict() == 1
    one_line(capsys, "dataset.json", "cannot be read")


def test_no_subset_per_pass_is_refused(capsys):
    assert main(["predict", "--all_subsets", "--subsets_per_pass", "0"]) == 2
    assert line_of(capsys.readouterr().err) == "d2net: error: --subsets_per_pass 0: choose at least 1"


def test_some_of_all_subsets(model, predicted, capsys):
    assert predict("--all_subsets", "--subsets", "T2+flair", "all") == 0
    ((_, predictor),) = predicted
    assert predictor.only == [(True, False, False, True), (True,) * 4]
    assert predict("--all_subsets") == 0
    assert not predicted[1][1].only
    capsys.readouterr()
    for words, parts in (
        (["--subsets", "T1"], ["--all_subsets", "--modalities"]),
        (["--all_subsets", "--subsets", "T1", "T1"], ["T1 is named twice"]),
    ):
        assert predict(*words) in (1, 2)
        one_line(capsys, *parts)
