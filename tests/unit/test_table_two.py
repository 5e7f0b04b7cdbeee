"""What benchmarks/table_two.sh trains: plans with the paper's four banks, and the rows with both kinds of weights."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.training.variants import find_trainer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def architecture(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from four_banks import with_four_banks
    from synthetic import PHANTOM, make_plans

    plans = make_plans(PHANTOM)
    plans["configurations"]["3d_fullres"] = plans["configurations"].pop("synthetic")
    return with_four_banks(plans)["configurations"]["3d_fullres"]


def test_the_plans_give_a_network_with_four_banks(architecture):
    planned = architecture["architecture"]
    words = planned["network_class_name"], planned["arch_kwargs"], planned["_kw_requires_import"]
    network = D2Net(get_network_from_plans(*words, 4, 3, allow_init=True, deep_supervision=True), 4)
    outputs = network(torch.randn(2, 4, *architecture["patch_size"]), torch.ones(2, 4, dtype=torch.bool))
    assert len(outputs.student_features) == len(outputs.teacher_features) == 4


def test_each_row_is_trained_with_both_weights():
    module = runpy.run_path(str(BENCHMARKS / "short_trainers" / "table_two.py"))
    arms = {name: value for name, value in module.items() if name.startswith(("Ours", "Paper"))}
    assert len(arms) == 16
    for name, arm in arms.items():
        base = module["WEIGHTS"]["Ours" if name.startswith("Ours") else "Paper"]
        row: Any = find_trainer(base + name.removeprefix("Ours").removeprefix("Paper").removesuffix("All"))
        assert arm.loss_weights == row.loss_weights
        assert (arm.n_epochs, arm.n_iterations) == (7, 40)
    assert len({str(arm.loss_weights) for arm in arms.values()}) == 16
