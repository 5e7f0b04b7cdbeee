import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.cli import train
from nnunetv2_d2net.cli._nnunet import trainer_class
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.planning.planner import (
    D2NetPaperPlanner,
    D2NetResEncPlanner,
    D2NetSmallPlanner,
    D2NetWholeHeadPlanner,
)
from tests.refusals import line_of
from tests.unit.conftest import whole_plans

DATASET = "Dataset007_Toy"
REST = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz", "numTraining": 1}


@pytest.fixture
def roots(tmp_path, monkeypatch, preprocessed_cases):
    """nnU-Net's three folders with one data set of two modalities, planned and preprocessed for 3d_fullres."""
    folders = {name: tmp_path / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for name, folder in folders.items():
        (folder / DATASET).mkdir(parents=True)
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("nnUNet_extTrainer", "")  # so that it is restored
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        write_json(folders[name] / DATASET / "dataset.json", {"channel_names": {"0": "FLAIR", "1": "T1"}, **REST})
    preprocessed = folders["nnUNet_preprocessed"] / DATASET
    configurations = {
        "3d_fullres": {"data_identifier": "D2NetPlans_3d_fullres"},
        "2d": {"data_identifier": "D2NetPlans_2d"},
        "heir": {"inherits_from": "3d_fullres"},
    }
    write_json(preprocessed / "D2NetPlans.json", whole_plans(configurations))
    shutil.copytree(preprocessed_cases, preprocessed / "D2NetPlans_3d_fullres")
    write_raw_files(folders["nnUNet_raw"] / DATASET)
    return folders


@pytest.fixture(scope="session")
def preprocessed_cases(tmp_path_factory):
    """Folder of five cases of two channels, as nnU-Net leaves it."""
    return save_cases(tmp_path_factory.mktemp("cases"), 2)


def save_cases(folder, n_channels):
    for case in range(5):
        images = np.ones((n_channels, 2, 2, 2), np.float32)
        nnUNetDatasetBlosc2.save_case(images, images[:1].astype(np.int16), {}, str(folder / f"c{case}"))
    return folder


def write_raw_files(folder):
    """Empty files of one complete case."""
    for name in ("imagesTr/c0_0000", "imagesTr/c0_0001", "labelsTr/c0"):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def one_line(capsys, *parts):
    """Assert that stderr is our one line and names every part; return it."""
    error = line_of(capsys.readouterr().err)
    for part in parts:
        assert part in error, error
    return error


@pytest.fixture
def planned(monkeypatch):
    """Stand in for nnU-Net's entry point; say which words it gets and which planner it would find."""
    entrypoints = pytest.importorskip("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints")
    calls = []

    def entry():
        calls.append((sys.argv[1:], find_planner(sys.argv[len(sys.argv) - 1 - sys.argv[::-1].index("-pl") + 1])))

    monkeypatch.setattr(entrypoints, "plan_and_preprocess_entry", entry)
    return calls


def find_planner(name):
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = os.path.join(nnunetv2.__path__[0], "experiment_planning")  # noqa: PTH118 - as nnU-Net does
    return recursive_find_python_class(folder, name, "nnunetv2.experiment_planning")


@pytest.mark.parametrize("name", ["D2NetPlanner", "D2NetResEncPlanner", "D2NetSmallPlanner", "ExperimentPlanner"])
def test_plan_lets_nnunet_find_the_planner_for_this_call_only(roots, planned, name):
    from nnunetv2_d2net.plugin.planning import planner as ours

    chosen = [] if name == "D2NetPlanner" else ["-pl", name]
    ours_before = find_planner(name)
    assert main(["plan_and_preprocess", "-d", "7", *chosen, "-gpu_memory_target", "4", "--clean"]) == 0
    ((words, found),) = planned
    assert words[-(5 + len(chosen)) :] == ["-d", "7", *chosen, "-gpu_memory_target", "4", "--clean"]
    assert found.__name__ == name
    if name in ours.__all__:
        assert found is getattr(ours, name)
    assert find_planner(name) is ours_before


def test_plan_passes_several_data_sets(roots, planned):
    (roots["nnUNet_raw"] / "Dataset008_Other").mkdir()
    write_json(roots["nnUNet_raw"] / "Dataset008_Other" / "dataset.json", {"modality": {"0": "A", "1": "B"}, **REST})
    assert main(["plan_and_preprocess", "-d", "7", "8", "--no_pp"]) == 0
    assert planned[0][0][-4:] == ["-d", "7", "8", "--no_pp"]


@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        (["3d_fullres"], 1, "D2NetPlans.json has no configuration 3d_fullres, so nothing was preprocessed: it has 2d"),
        (["2d", "3d_lowres"], 0, "D2NetPlans.json has no configuration 3d_lowres, so nothing is preprocessed for it"),
        (["2d"], 0, ""),
        (["3d_fullres", "--no_pp"], 0, ""),
    ],
)
def test_plan_tells_configurations_that_are_not_planned(wanted, code, said, roots, planned, capsys):
    folder = roots["nnUNet_preprocessed"] / DATASET
    folder.mkdir(exist_ok=True)
    write_json(folder / "D2NetPlans.json", {"configurations": {"2d": {}}})
    assert main(["plan_and_preprocess", "-d", "7", "-c", *wanted]) == code
    told = capsys.readouterr().err
    assert said in told
    assert ("no configuration" in told) == bool(said)
    assert ("1 training case preprocessed" in told) == (code == 0 and "--no_pp" not in wanted)


def test_plan_restores_nnunet_after_a_failure(roots, monkeypatch):
    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner

    def fail():
        raise KeyError("no spacing")

    before, words = vars(default_experiment_planner).get("D2NetSmallPlanner"), list(sys.argv)
    monkeypatch.setattr(plan_and_preprocess_entrypoints, "plan_and_preprocess_entry", fail)
    with pytest.raises(KeyError, match="no spacing"):
        main(["plan_and_preprocess", "-d", "7", "-pl", "D2NetSmallPlanner"])
    assert vars(default_experiment_planner).get("D2NetSmallPlanner") is before
    assert sys.argv == words


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["-d"]),
        (["-d"], ["-d"]),
        (["-d", "9"], ["Dataset009_", "nnUNet_raw"]),
        (["-d", "seven"], ["seven"]),
        (["-d", "7", "-pl", "NoSuchPlanner"], ["NoSuchPlanner", "D2NetPlanner"]),
    ],
)
def test_plan_bad_input(roots, planned, words, parts, capsys):
    assert main(["plan_and_preprocess", *words]) in (1, 2)
    one_line(capsys, *parts)
    assert not planned


def test_plan_refuses_one_modality(roots, planned, capsys):
    path = roots["nnUNet_raw"] / DATASET / "dataset.json"
    write_json(path, {"channel_names": {"0": "CT"}, **REST})
    assert main(["plan_and_preprocess", "-d", "7"]) == 1
    one_line(capsys, str(path), "CT", "at least 2", "ExperimentPlanner")
    assert main(["plan_and_preprocess", "-d", "7", "-pl", "ExperimentPlanner"]) == 0
    assert len(planned) == 1


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "cannot be read"), ("{", "is no JSON"), ("{}", "channel_names"), ("[]", "holds a list")],
)
def test_plan_refuses_an_unusable_dataset_json(roots, planned, content, part, capsys):
    path = roots["nnUNet_raw"] / DATASET / "dataset.json"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["plan_and_preprocess", "-d", "7"]) == 1
    one_line(capsys, str(path), part)
    assert not planned


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (["plan_and_preprocess", "-d", "7"], "nnUNet_raw"),
        (["plan_and_preprocess", "-d", "7"], "nnUNet_preprocessed"),
        (["train", "7", "3d_fullres", "0"], "nnUNet_preprocessed"),
        (["train", "7", "3d_fullres", "0"], "nnUNet_results"),
        (["predict", "-i", ".", "-o", "out", "-d", "7", "-c", "3d_fullres"], "nnUNet_results"),
    ],
)
def test_missing_environment_variable(roots, command, variable, monkeypatch, capsys):
    monkeypatch.delenv(variable)
    assert main(command) == 1
    one_line(capsys, f"{variable} is not set", f"export {variable}=")


def test_two_data_sets_of_one_number(roots, planned, capsys):
    (roots["nnUNet_raw"] / "Dataset007_Twin").mkdir()
    assert main(["plan_and_preprocess", "-d", "7"]) == 1
    one_line(capsys, DATASET, "Dataset007_Twin", "rename")


@pytest.fixture
def trained(monkeypatch):
    """Stand in for nnU-Net's entry point; say which words and which folders of trainers it gets."""
    run_training = pytest.importorskip("nnunetv2.run.run_training")
    calls = []
    monkeypatch.setattr(
        run_training, "run_training_entry", lambda: calls.append((sys.argv[1:], os.environ["nnUNet_extTrainer"]))
    )
    return calls


def test_train_uses_our_trainer_and_plans_and_passes_the_rest(roots, trained, monkeypatch):
    from nnunetv2_d2net.plugin.registration import trainers_folder

    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    assert main(["train", "7", "3d_fullres", "0", "-num_gpus", "1", "--npz"]) == 0
    ((words, folders),) = trained
    assert words == ["-tr", "D2NetTrainer", "-p", "D2NetPlans", "7", "3d_fullres", "0", "-num_gpus", "1", "--npz"]
    assert folders.split(os.pathsep) == [str(trainers_folder()), "/mine"]


def test_one_process_at_a_time_trains_a_fold(roots, trained, capsys):
    folder = Path(os.environ["nnUNet_results"]) / "Dataset007_Toy" / "D2NetTrainer__D2NetPlans__3d_fullres"
    with locked_folder(folder / "fold_0"):
        assert main(["train", "7", "3d_fullres", "0"]) == 1
        assert "another process holds" in capsys.readouterr().err
        assert main(["train", "7", "3d_fullres", "1"]) == 0
    assert len(trained) == 1


def test_train_with_names_of_the_user(roots, trained):
    preprocessed = roots["nnUNet_preprocessed"] / DATASET
    write_json(preprocessed / "nnUNetPlans.json", whole_plans({"2d": {"data_identifier": "nnUNetPlans_2d"}}))
    shutil.copytree(preprocessed / "D2NetPlans_3d_fullres", preprocessed / "nnUNetPlans_2d")
    words = [DATASET, "2d", "all", "-tr", "nnUNetTrainer", "-p", "nnUNetPlans", "-device", "cpu"]
    assert main(["train", *words]) == 0
    assert trained[0][0][4:] == words


def test_a_trainer_of_any_length_is_found(roots, trained):
    assert main(["train", "7", "3d_fullres", "0", "-tr", "D2NetTrainerPaper_20epochs"]) == 0
    assert len(trained) == 1


def test_train_with_a_configuration_that_inherits_its_data(roots, trained):
    assert main(["train", "7", "heir", "0"]) == 0
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["7", "3d_fullres"], ["d2net train 7 3d_fullres 0"]),
        (["7", "3d_fullres", "first"], ["first", "all"]),
        (["9", "3d_fullres", "0"], ["Dataset009_"]),
        (["Dataset009_X", "3d_fullres", "0"], ["Dataset009_X", "plan_and_preprocess"]),
        (["7", "3d_lowres", "0"], ["D2NetPlans.json", "3d_lowres", "3d_fullres, 2d"]),
        (["7", "2d", "0"], ["D2NetPlans_2d", "run d2net preprocess -d 7 -plans_name D2NetPlans -c 2d"]),
        (["7", "3d_fullres", "0", "-p", "Other"], ["Other.json", "there: D2NetPlans"]),
        (["7", "3d_fullres", "0", "-pretrained_weights", "no.pth"], ["no.pth"]),
        (["7", "3d_fullres", "0", "-tr", "NoSuchTrainer"], ["NoSuchTrainer", "D2NetTrainerPaper"]),
    ],
)
def test_train_bad_input(roots, trained, words, parts, capsys):
    assert main(["train", *words]) in (1, 2)
    one_line(capsys, *parts)
    assert not trained


def test_train_looks_at_data_and_splits_before_the_first_step(roots, trained, capsys):
    splits = roots["nnUNet_preprocessed"] / DATASET / "splits_final.json"
    splits.write_text('[{"train": ["c0"],,', encoding="utf-8")
    assert main(["train", "7", "3d_fullres", "0"]) == 1
    one_line(capsys, str(splits), "is no JSON (line 1")
    assert splits.read_text(encoding="utf-8") == '[{"train": ["c0"],,'
    splits.unlink()
    data = roots["nnUNet_preprocessed"] / DATASET / "D2NetPlans_3d_fullres"
    for path in data.glob("c3*"):
        path.unlink()
    assert main(["train", "7", "3d_fullres", "0"]) == 1
    one_line(capsys, "4 training cases cannot make 5 folds", "fold all", str(splits))
    shutil.rmtree(data)
    data.mkdir()
    save_cases(data, 1)
    assert main(["train", "7", "3d_fullres", "all", "-tr", "nnUNetTrainer"]) == 1
    one_line(capsys, "c0 of", "1 channel, not 2", "run d2net preprocess -d 7 -plans_name D2NetPlans -c 3d_fullres")
    assert not trained


STEPS = {
    "extract_fingerprint": ("extract_fingerprint_entry", ["-fpe", "D2NetFingerprintExtractor"]),
    "preprocess": ("preprocess_entry", ["-plans_name", "D2NetPlans"]),
}


@pytest.mark.parametrize("command", STEPS)
def test_steps_one_by_one_pass_the_rest(roots, command, monkeypatch):
    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints

    entry, words = STEPS[command]
    seen = []
    monkeypatch.setattr(plan_and_preprocess_entrypoints, entry, lambda: seen.extend(sys.argv[1:]))
    assert main([command, "-d", "7", "-np", "2"]) == 0
    assert seen == [*words, "-d", "7", "-np", "2"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["extract_fingerprint"], ["d2net extract_fingerprint -d ID"]),
        (["plan", "-d", "9"], ["Dataset009_"]),
        (["plan", "-d", "7", "-pl", "NoSuchPlanner"], ["NoSuchPlanner", "D2NetPlanner"]),
        (["preprocess", "-d", "7", "-plans_name", "Other", "-c", "2d"], ["Other.json", "run d2net plan -d 7"]),
        (["preprocess", "-d", "7", "-c", "3d_lowres"], ["D2NetPlans.json", "3d_lowres", "3d_fullres, 2d"]),
        (["preprocess", "-d", "7", "-plans_name", "Other"], ["Other.json", "run d2net plan -d 7"]),
    ],
)
def test_steps_one_by_one_bad_input(roots, words, parts, capsys):
    assert main(words) in (1, 2)
    one_line(capsys, *parts)


WEIGHTS = {"trainer_name": "nnUNetTrainer", "init_args": {}, "network_weights": {"w": torch.ones(2)}}


def start_from(tmp_path, trainer, *more, content=WEIGHTS):
    torch.save(content, tmp_path / "w.pth")
    return main(
        ["train", "7", "3d_fullres", "0", "-tr", trainer, "-pretrained_weights", str(tmp_path / "w.pth"), *more]
    )


@pytest.mark.parametrize(
    ("trainer", "is_ours"), [("D2NetTrainer", True), ("nnUNetTrainerModalityDropout", True), ("nnUNetTrainer", False)]
)
def test_pretrained_weights_are_handed_to_our_trainers(roots, trained, tmp_path, monkeypatch, trainer, is_ours):
    from nnunetv2.run import run_training

    from nnunetv2_d2net.plugin.training.pretrained import pretrained_weights

    handed = []
    monkeypatch.setattr(
        run_training,
        "run_training_entry",
        lambda: handed.append((pretrained_weights(), "-pretrained_weights" in sys.argv)),
    )
    assert start_from(tmp_path, trainer) == 0
    assert handed == [(tmp_path / "w.pth", False) if is_ours else (None, True)]
    write_checkpoints(roots, trainer, "final")
    assert start_from(tmp_path, trainer, "--val") == 0
    assert handed[1][0] is None
    assert pretrained_weights() is None


@pytest.mark.parametrize(("more", "trainer"), [((), ""), (("-tr", "D2NetTrainer_5epochs"), "D2NetTrainer_5epochs")])
def test_the_model_of_this_package_is_fine_tuned(roots, trained, tmp_path, monkeypatch, more, trainer, capsys):
    from nnunetv2.run import run_training

    from nnunetv2_d2net.patient import model
    from nnunetv2_d2net.plugin.training.pretrained import pretrained_weights

    monkeypatch.setattr(model, "WEIGHTS", tmp_path / "weights")
    words = ["train", "7", "3d_fullres", "0", "--start_from", "phantom", *more]
    assert main(words) == 1
    one_line(capsys, "weights holds no model")
    shipped = tmp_path / "weights" / "Dataset998_S" / "model"
    (shipped / "fold_all").mkdir(parents=True)
    (shipped / "plans.json").touch()
    torch.save(WEIGHTS, shipped / "fold_all" / "checkpoint_final.pth")
    assert main(words) == 1
    one_line(capsys, "D2NetWholeHeadPlans.json")
    preprocessed = roots["nnUNet_preprocessed"] / DATASET
    shutil.copyfile(preprocessed / "D2NetPlans.json", preprocessed / "D2NetWholeHeadPlans.json")
    handed = []
    monkeypatch.setattr(run_training, "run_training_entry", lambda: handed.append((sys.argv, pretrained_weights())))
    assert main(words) == 0
    ((argv, start),) = handed
    assert start == shipped / "fold_all" / "checkpoint_final.pth"
    of = {flag: [argv[i + 1] for i, word in enumerate(argv) if word == flag][-1] for flag in ("-tr", "-p")}
    assert of == {"-tr": trainer or "nnUNetTrainerModalityDropoutModulated", "-p": "D2NetWholeHeadPlans"}
    trainer = trainer or "nnUNetTrainerModalityDropoutModulated"
    fold = roots["nnUNet_results"] / DATASET / f"{trainer}__D2NetWholeHeadPlans__3d_fullres" / "fold_0"
    for name in ("", "latest", "final", "best"):  # killed before there was any, nnU-Net would begin from nothing
        if name:
            fold.mkdir(parents=True, exist_ok=True)
            (fold / f"checkpoint_{name}.pth").touch()
        assert main([*words, "--c"]) == 0
        argv, start = handed.pop()
        assert ("has no checkpoint to go on with: training starts from" in capsys.readouterr().err) is (not name)
        assert (start is None, "--c" in argv) == (bool(name), True)
        shutil.rmtree(fold, ignore_errors=True)


@pytest.mark.parametrize("trainer", ["D2NetTrainer", "nnUNetTrainer"])
@pytest.mark.parametrize(
    ("changes", "words", "parts"),
    [
        ({"more": Path("x")}, [], ["w.pth", "someone you trust"]),
        ({"network_weights": {"w": torch.tensor(float("nan"))}}, [], ["w.pth", "NaN"]),
        ({"network_weights": 5}, [], ["w.pth", '"network_weights"']),
        ({}, ["--c"], ["-pretrained_weights", "--c", "leave one of them out"]),
    ],
)
def test_pretrained_weights_that_are_refused(roots, trained, tmp_path, trainer, changes, words, parts, capsys):
    assert start_from(tmp_path, trainer, *words, content=WEIGHTS | changes) in (1, 2)
    one_line(capsys, *parts)
    assert not trained


@pytest.mark.parametrize("trainer", ["D2NetTrainer", "nnUNetTrainer"])
@pytest.mark.parametrize("name", ["no_dataset_name", "list", "hostile"])
def test_train_refuses_plans_that_nnunet_cannot_use_or_should_not(roots, trained, trainer, name, capsys):
    plans = whole_plans()
    if name == "no_dataset_name":
        del plans["dataset_name"]
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    if name == "hostile":
        arguments["conv_op"] = "torch.nn.modules.module.torch.os.system"
    write_json(roots["nnUNet_preprocessed"] / DATASET / "D2NetPlans.json", [] if name == "list" else plans)
    assert main(["train", "7", "3d_fullres", "0", "-tr", trainer]) == 1
    one_line(capsys, "D2NetPlans.json", {"list": "holds a list", "hostile": "elsewhere"}.get(name, '"dataset_name"'))
    assert not trained


def test_a_seed_is_not_promised_where_it_is_lost(roots, trained, capsys):
    assert main(["train", "7", "3d_fullres", "0", "--seed", "1", "-num_gpus", "2", "-device", "cuda"]) == 2
    assert "--seed does not reach the processes of -num_gpus 2: start them with torchrun" in capsys.readouterr().err
    assert not trained


@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_torchrun_at_a_time_trains_a_fold(roots, trained, monkeypatch, rank, capsys):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", rank)):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(train, "process_group", lambda _: contextlib.nullcontext())
    words = ["train", "7", "3d_fullres", "0", "-device", "cpu"]
    with locked_folder(roots["nnUNet_results"] / DATASET / "D2NetTrainer__D2NetPlans__3d_fullres" / "fold_0"):
        assert main(words) == (1 if rank == "0" else 0)  # the others write nothing
    if rank == "0":
        one_line(capsys, "fold_0", "another process")
        assert main(words) == 0
    assert len(trained) == 1


def test_train_refuses_one_modality(roots, trained, capsys):
    write_json(roots["nnUNet_preprocessed"] / DATASET / "dataset.json", {"channel_names": {"0": "CT"}, **REST})
    assert main(["train", "7", "3d_fullres", "0"]) == 1
    one_line(capsys, "CT", "at least 2", "nnUNetTrainer")
    data = roots["nnUNet_preprocessed"] / DATASET / "D2NetPlans_3d_fullres"
    shutil.rmtree(data)
    data.mkdir()
    save_cases(data, 1)
    assert main(["train", "7", "3d_fullres", "0", "-tr", "nnUNetTrainer"]) == 0


def test_without_cuda_the_cpu_is_chosen_and_said(roots, trained, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["train", "7", "3d_fullres", "0"]) == 0
    assert trained[0][0][:2] == ["-device", "cpu"]
    assert "CPU" in capsys.readouterr().err
    assert main(["train", "7", "3d_fullres", "0", "-device", "cpu"]) == 0
    assert trained[1][0].count("-device") == 1
    assert main(["train", "7", "3d_fullres", "0", "-device", "cuda"]) == 1
    one_line(capsys, "-device cpu")
    for device, remedy in (("gpu", "knows cpu, cuda and mps"), ("cuda:1", "CUDA_VISIBLE_DEVICES"), ("mps", "no MPS")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert main(["train", "7", "3d_fullres", "0", "-device", device]) == 1
        one_line(capsys, device if device != "mps" else "-device cpu", remedy)


def test_a_mistyped_trainer_is_guessed(roots):
    for name, meant in (("D2NetTrainr", "D2NetTrainer"), ("XTrainerCompanion", "")):
        with pytest.raises(
            UserError, match=f"no trainer is called {name}" + (f", did you mean {meant}" if meant else "")
        ):
            trainer_class(name)


@pytest.fixture
def drawn(monkeypatch):
    """What the trainers of a training are asked to draw from."""
    from nnunetv2.run import run_training

    from nnunetv2_d2net.plugin.protocols import asked_for

    asked = []
    monkeypatch.setattr(
        run_training, "run_training_entry", lambda: asked.append((sys.argv[1:], asked_for(["FLAIR", "T1"])))
    )
    return asked


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (["--subsets", "T1+FLAIR=2", "T1"], {"FLAIR+T1": 2.0, "T1": 1.0}),
        (["--presence", "T1=0.25", "--npz"], {"FLAIR": 0.75, "FLAIR+T1": 0.25}),
        (["--npz"], {}),
    ],
)
def test_subsets_are_handed_to_our_trainers(roots, drawn, words, table):
    assert main(["train", "7", "3d_fullres", "0", *words]) == 0
    ((passed, asked),) = drawn
    assert asked == table
    assert not {"--subsets", "--presence", "T1"} & set(passed)
    assert ("--npz" in passed) == ("--npz" in words)
    assert "D2NET_SUBSETS" not in os.environ


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--subsets", "PD"], ["PD is no modality"]),
        (["--subsets", "T1", "--presence", "T1=1"], ["both say what occurs"]),
        (["--subsets", "T1", "-tr", "nnUNetTrainer"], ["nnUNetTrainer sees all modalities", "leave --subsets"]),
    ],
)
def test_subsets_that_nobody_can_draw_are_refused(roots, drawn, words, parts, capsys):
    assert main(["train", "7", "3d_fullres", "0", *words]) == 1
    one_line(capsys, *parts)
    assert not drawn


OTHER_PLANNERS = (D2NetResEncPlanner, D2NetSmallPlanner, D2NetWholeHeadPlanner, D2NetPaperPlanner)


@pytest.mark.parametrize(
    ("plans", "more"),
    [
        ("", ""),
        ("D2NetPlans", ""),
        ("nnUNetPlans", " -pl ExperimentPlanner"),
        ("CoarsePlans", " -overwrite_plans_name CoarsePlans"),
        *((planner.default_plans_name, f" -pl {planner.__name__}") for planner in OTHER_PLANNERS),
    ],
)
def test_the_remedy_for_plans_that_are_not_there_makes_plans_of_that_name(plans, more):
    assert train._plan("7", plans) == f"run d2net plan_and_preprocess -d 7{more}"


def write_checkpoints(roots, trainer, *names, fold="fold_0", **content):
    folder = roots["nnUNet_results"] / DATASET / f"{trainer}__D2NetPlans__3d_fullres" / fold
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        torch.save(WEIGHTS | content, folder / f"checkpoint_{name}.pth")
    return folder


@pytest.mark.parametrize("trainer", ["D2NetTrainer", "nnUNetTrainer"])
@pytest.mark.parametrize(
    ("there", "words", "parts"),
    [
        ((), ["--val"], ["fold_0/checkpoint_final.pth does not exist", "train this fold to its end first"]),
        (("latest",), ["--val"], ["checkpoint_final.pth does not exist"]),
        (("final",), ["--val", "--val_best"], ["checkpoint_best.pth does not exist"]),
        (("final",), ["--c", "--val"], ["--val only validates a training and --c goes on with one"]),
    ],
)
def test_a_training_that_cannot_be_validated(roots, trained, trainer, there, words, parts, capsys):
    write_checkpoints(roots, trainer, *there)
    assert main(["train", "7", "3d_fullres", "0", "-tr", trainer, *words]) in (1, 2)
    one_line(capsys, *parts)
    assert not trained
    write_checkpoints(roots, trainer, "final", "best")
    assert main(["train", "7", "3d_fullres", "0", "-tr", trainer, *(word for word in words if word != "--c")]) == 0


@pytest.mark.parametrize(
    ("words", "hostile", "is_refused"),
    [
        (["--val"], "final", True),
        (["--val"], "best", False),
        (["--val", "--val_best"], "best", True),
        (["--c"], "final", True),
        (["--c"], "latest", False),  # there is a final one
        (["--c", "--val_best"], "best", True),
        ([], "final", False),
    ],
)
def test_no_code_of_a_checkpoint_runs_in_nnunets_own_trainer(roots, trained, words, hostile, is_refused, capsys):
    write_checkpoints(roots, "nnUNetTrainer", *{"final", "latest", "best"} - {hostile})
    write_checkpoints(roots, "nnUNetTrainer", hostile, run=Path("x"))
    assert main(["train", "7", "3d_fullres", "0", "-tr", "nnUNetTrainer", *words]) == is_refused
    if is_refused:
        one_line(capsys, f"fold_0/checkpoint_{hostile}.pth", "someone you trust")
    assert len(trained) == (not is_refused)


@pytest.mark.parametrize("trainer", ["D2NetTrainer", "nnUNetTrainer"])
def test_a_fold_is_not_trained_beside_one_of_other_plans(roots, trained, trainer, capsys):
    path = roots["nnUNet_preprocessed"] / DATASET / "D2NetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8")) | {"d2net_orientation": "RAS"}
    made_for = {"plans": plans | {"d2net_orientation": "LPS"}, "configuration": "3d_fullres"}
    fold = write_checkpoints(roots, trainer, "final", fold="fold_1", init_args=made_for)
    words = ["train", "7", "3d_fullres", "0", "-tr", trainer]
    assert main(words) == 0
    plans["configurations"]["3d_fullres"]["spacing"] = [9, 1.0, 1.0]
    write_json(path, plans)
    assert main(words) == 1
    one_line(capsys, str(fold / "checkpoint_final.pth"), "(spacing)", str(fold.parent / "plans.json"), "another name")
    assert len(trained) == 1
    write_checkpoints(roots, trainer, "final")
    assert main([*words, "--val"]) == 0
