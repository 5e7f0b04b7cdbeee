"""nnU-Net finds every class: through the folder that nnUNet_extTrainer names, or as registered."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_d2net.plugin.registration import nnunet_folder, register, unregister
from nnunetv2_d2net.plugin.training import variants

BASES = {name: getattr(variants, name) for name in variants.__all__ if "_" not in name}
LENGTHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)  # those that nnU-Net offers


@pytest.mark.parametrize("name", [*BASES, "D2NetTrainer_5epochs", "D2NetTrainerPaper_1epoch"])
def test_the_class_found_is_the_packages_own_at_every_lookup(name):
    for _ in range(2):
        assert recursive_find_trainer_class_by_name(name) is getattr(variants, name)


@pytest.mark.parametrize("name", ["D2NetTrainer_3epochs", "D2NetTrainer_1epochs", "nnUNetTrainerModalityDropout_epoch"])
def test_other_lengths_do_not_exist(name):
    with pytest.raises(RuntimeError, match=f"Could not find requested nnunet trainer {name}"):
        recursive_find_trainer_class_by_name(name)


def test_without_the_folder_they_are_not_found(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer D2NetTrainer"):
        recursive_find_trainer_class_by_name("D2NetTrainer")
    assert recursive_find_trainer_class_by_name("nnUNetTrainer") is nnUNetTrainer


def test_every_trainer_comes_in_all_lengths_and_survives_pickling():
    assert {"D2NetTrainer", "D2NetTrainerPaper", "nnUNetTrainerModalityDropout"} <= set(BASES)
    for name, base in BASES.items():
        assert base.__name__ == name
        assert issubclass(base, nnUNetTrainer)
        assert pickle.loads(pickle.dumps(base)) is base
        for n_epochs in LENGTHS:
            trainer = getattr(variants, f"{name}_{n_epochs}epoch{'s' if n_epochs > 1 else ''}")
            assert trainer.n_epochs == n_epochs
            assert issubclass(trainer, base)
            assert pickle.loads(pickle.dumps(trainer)) is trainer


LOOKUPS = """
import json, sys
from os.path import join

if sys.argv[1] == "uninstalled":
    sys.modules["nnunetv2_d2net"] = None  # importing it fails as if it were not there

import nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

def trainer(name):
    try:
        return recursive_find_trainer_class_by_name(name).__module__
    except RuntimeError as error:
        return str(error).split(" in ")[0]

def planner(name):  # as nnUNetv2_plan_experiment does it
    folder = join(nnunetv2.__path__[0], "experiment_planning")
    found = recursive_find_python_class(folder, name, "nnunetv2.experiment_planning")
    return found and found.__module__

found = {n: trainer(n) for n in ("nnUNetTrainer", "nnUNetTrainer_5epochs", "D2NetTrainer", "D2NetTrainerNoKD_5epochs")}
found |= {n: planner(n) for n in ("ExperimentPlanner", "nnUNetPlannerResEncM", "D2NetPlanner", "D2NetSmallPlanner")}
print(json.dumps([nnunetv2.__path__[0], found]), file=sys.stderr)
"""
TRAINERS, PLANNERS = "nnunetv2.training.nnUNetTrainer", "nnunetv2.experiment_planning.experiment_planners"
STOCK = {
    "nnUNetTrainer": f"{TRAINERS}.nnUNetTrainer",
    "nnUNetTrainer_5epochs": f"{TRAINERS}.variants.training_length.nnUNetTrainer_Xepochs",
    "ExperimentPlanner": f"{PLANNERS}.default_experiment_planner",
    "nnUNetPlannerResEncM": f"{PLANNERS}.residual_unets.residual_encoder_unet_planners",
}
OURS = {
    "D2NetTrainer": "nnunetv2_d2net.plugin.training.trainer",
    "D2NetTrainerNoKD_5epochs": "nnunetv2_d2net.plugin.training.variants",
    "D2NetPlanner": "nnunetv2_d2net.plugin.planning.planner",
    "D2NetSmallPlanner": "nnunetv2_d2net.plugin.planning.planner",
}
NEITHER = {name: f"Could not find requested nnunet trainer {name}" if "Trainer" in name else None for name in OURS}


@pytest.fixture(scope="module")
def copied_nnunet(tmp_path_factory):
    """An nnU-Net of its own, so that the installed one is not written to."""
    folder = tmp_path_factory.mktemp("site") / "nnunetv2"
    shutil.copytree(nnunet_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    unregister(folder)
    return folder


@pytest.mark.parametrize(
    ("registered", "plugin", "found"),
    [(True, "installed", OURS), (True, "uninstalled", NEITHER), (False, "installed", NEITHER)],
)
def test_registered_classes_are_found_with_no_variable_set(registered, plugin, found, copied_nnunet):
    (register if registered else unregister)(copied_nnunet)
    environment = {key: value for key, value in os.environ.items() if key != "nnUNet_extTrainer"}
    environment["PYTHONPATH"] = str(copied_nnunet.parent)
    command = [sys.executable, "-c", LOOKUPS, plugin]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == [str(copied_nnunet), STOCK | found]
