import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.plugin.training.conditioned import nnUNetTrainerModalityDropoutConditioned
from nnunetv2_d2net.plugin.training.dropping import (
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutModulated,
)
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.pretrained import (
    lies_otherwise,
    load_fitting_weights,
    load_whole_network,
    pretrained_weights,
    starting_from,
    unwrapped,
)
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.unit.plugin.preprocessing.conftest import build_plans

CHANNELS = ["FLAIR", "T1", "T1ce"]
KINDS = ("weight", "bias")


def network_of(trainer, n_classes=3, n_channels=3, features=None):
    plans = deepcopy(build_plans(["ZScoreNormalization"] * n_channels))
    if features:
        plans.plans["configurations"]["tiny"]["architecture"]["arch_kwargs"]["features_per_stage"] = features
    configuration = plans.get_configuration("tiny")
    return trainer.build_network_architecture(plans, configuration, n_channels, n_classes)


@pytest.fixture
def write(tmp_path):
    def write(network, wrapper="", **changes):
        weights = {wrapper + name: weight for name, weight in network.state_dict().items()}
        content = {"network_weights": weights, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "tiny"}}
        path = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content | changes, path)
        return path

    return write


def taken(network, before, stock):
    """Which weights came from the checkpoint; the others must be as they were."""
    after, names = network.state_dict(), set()
    for name, weight in after.items():
        if name in stock.state_dict() and torch.equal(weight, stock.state_dict()[name]):
            names.add(name)
        else:
            assert torch.equal(weight, before[name]), name
    return names


@pytest.fixture
def stock():
    network = network_of(nnUNetTrainer)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()  # zeros and ones of a fresh network would be equal by chance
    return network


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("trainer", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_weights_of_stock_nnunet(write, stock, trainer, wrapper):
    network = network_of(trainer)
    before = deepcopy(network.state_dict())
    lines = load_fitting_weights(network, write(stock, wrapper), CHANNELS)
    assert taken(network, before, stock) == set(stock.state_dict())
    n_encoder, n_decoder = lines[0].count("encoder ("), lines[0].count("decoder (")
    assert (n_encoder, n_decoder) == (1, 1)
    assert "nnUNetTrainer" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == (
        ["not in the file, left as they are"] if trainer is D2NetTrainer else []
    )
    if trainer is D2NetTrainer:
        for part in ("modality_encoder", "teacher", "fusion", "absent_codes"):
            assert part in lines[1]


def test_weights_of_a_d2net_for_the_rival(write):
    other = network_of(D2NetTrainer)
    lines = load_fitting_weights(network_of(nnUNetTrainerModalityDropout), write(other), CHANNELS)
    assert lines[1].startswith("in the file, and not used: modality_encoder")


def test_layers_that_do_not_fit_are_named(write, stock):
    """Another number of classes and of modalities, of which nobody knows the names: heads and first layer stay."""
    network = network_of(nnUNetTrainerModalityDropout, n_classes=5, n_channels=2)
    before = deepcopy(network.state_dict())
    lines = load_fitting_weights(network, write(stock), CHANNELS[:2])
    rest = set(stock.state_dict()) - taken(network, before, stock)
    assert rest == {n for n in stock.state_dict() if "seg_layers" in n or n.startswith(first_layers())}
    assert lines[1].startswith("of another shape, left as they are: encoder.stages.0.")
    assert "decoder.seg_layers.0" in lines[1]


def first_layers():
    layer = "encoder.stages.0.0.convs.0."
    return tuple(f"{prefix}{layer}{name}." for prefix in ("", "decoder.") for name in ("conv", "all_modules.0"))


def test_a_network_of_which_nothing_fits(write):
    other = write(network_of(nnUNetTrainer, features=[6, 10]))
    with pytest.raises(UserError, match=r"-pretrained_weights .*fits no layer .* the same network"):
        load_fitting_weights(network_of(D2NetTrainer), other, CHANNELS)


def test_weights_that_are_nan_are_not_taken(write, stock):
    network = network_of(D2NetTrainer)
    before = deepcopy(network.state_dict())
    torch.nn.init.constant_(stock.decoder.seg_layers[0].bias, np.nan)
    path = write(stock)
    with pytest.raises(UserError, match=f"^{path} holds NaN"):
        load_fitting_weights(network, path, CHANNELS)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    with pytest.raises(UserError, match=f"^{path} holds NaN"):
        load_whole_network(network_of(nnUNetTrainer), path, CHANNELS, {}, "tiny")


def test_norms_and_biases_alone_are_no_start(write, stock):
    network = network_of(nnUNetTrainer)
    before = deepcopy(network.state_dict())
    norms = {name: weight for name, weight in stock.state_dict().items() if ".norm." in name}
    with pytest.raises(UserError, match="fits no layer"):
        load_fitting_weights(network, write(stock, network_weights=norms), CHANNELS)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_what_fits_may_be_a_single_layer_of_any_kind(write):
    network, path = torch.nn.Linear(3, 2), write(torch.nn.Linear(3, 2))
    lines = load_fitting_weights(network, path, CHANNELS)
    assert torch.equal(network.weight, torch.load(path)["network_weights"]["weight"])
    assert len(lines) == 1


def test_layers_are_counted_by_part_and_ten_are_named(write):
    layers = [f"l{i}" for i in range(25)]
    network = nn.ModuleDict({"many": nn.ModuleDict({name: nn.Linear(2, 2) for name in layers}), "one": nn.Linear(2, 2)})
    kept = {"one.weight": torch.zeros(2, 2), "one.bias": torch.zeros(2)}
    kept |= {f"many.{name}.{kind}": torch.zeros(2, 2)[: 1 + (kind == "weight")] for name in layers for kind in KINDS}
    path = write(network, network_weights=kept | {f"extra{i}.weight": torch.zeros(1) for i in range(11)})
    assert load_fitting_weights(network, path, CHANNELS) == [
        f"{path} (nnUNetTrainer): one (1 of 1 layer) taken",
        f"of another shape, left as they are: {', '.join(f'many.l{i}' for i in range(10))} and 15 more",
        f"in the file, and not used: {', '.join(f'extra{i}' for i in range(10))} and 1 more",
    ]
    for kind in KINDS:
        kept[f"many.l7.{kind}"] = getattr(network["many"]["l7"], kind) + 1
        del kept[f"many.l3.{kind}"]
    lines = load_fitting_weights(network, write(network, network_weights=kept), CHANNELS)
    assert lines[0] == f"{path} (nnUNetTrainer): many (1 of 25 layers), one (1 of 1 layer) taken"
    assert lines[2:] == ["not in the file, left as they are: many (1 of 25 layers)"]


def test_code_is_not_run(write, stock, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "RAN"),)

    with pytest.raises(UserError, match="someone you trust"):
        load_fitting_weights(network_of(D2NetTrainer), write(stock, more=Hostile()), CHANNELS)
    assert not (tmp_path / "RAN").exists()


def name_channels(path, names):
    content = {"channel_names": {str(i): name for i, name in enumerate(names)}}
    (path.parents[1] / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(("theirs", "is_told"), [(CHANNELS, False), (CHANNELS[::-1], True), (["CT"], True)])
@pytest.mark.parametrize("trainer", [nnUNetTrainerModalityDropout, D2NetTrainer])
def test_modalities_in_another_order_are_told(write, trainer, theirs, is_told):
    other = network_of(trainer)
    lines = load_fitting_weights(network_of(trainer), name_channels(write(other), theirs), CHANNELS)
    (told,) = [line for line in lines if "in this order" in line] or [""]
    words = f"that model knows {', '.join(theirs)}, in this order; this data set has FLAIR, T1, T1ce"
    assert (words in told) == is_told
    of_names = theirs == CHANNELS[::-1] and trainer is nnUNetTrainerModalityDropout
    assert told.endswith("filters are taken by name") == of_names
    assert told.startswith("WARNING") == (is_told and not of_names)


def randomized(trainer):
    network: Any = network_of(trainer).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network


@pytest.fixture
def modulated():
    return randomized(nnUNetTrainerModalityDropoutModulated)


def test_modalities_are_the_same_by_whatever_name_they_go(write, modulated):
    """nnU-Net's own BraTS has T1, T1ce, T2, Flair; the Decathlon FLAIR, T1w, t1gd, T2w."""
    network: Any = network_of(nnUNetTrainerModalityDropoutModulated)
    (line,) = load_fitting_weights(network, name_channels(write(modulated), CHANNELS), ["T1w", "t1gd", "Flair"])[-1:]
    assert line.endswith("FLAIR, T1, T1ce, in this order; this data set has T1, T1ce, FLAIR: filters are taken by name")
    first, source = (of.encoder.stages[0][0].convs[0].conv.weight for of in (network, modulated))
    assert torch.equal(first, source[:, [1, 2, 0]])


@pytest.mark.parametrize("theirs", ["", "LPS", "RAS"])
def test_weights_of_a_model_whose_images_lie_otherwise_are_told(tmp_path, theirs):
    path = tmp_path / "fold_all" / "checkpoint_final.pth"
    (tmp_path / "plans.json").write_text(json.dumps({ORIENTATION: theirs} if theirs else {}), encoding="utf-8")
    lines = lies_otherwise(path, {"LPS": 3, "LIP": 1})
    assert [line.partition(",")[0] for line in lines] == (
        ["WARNING: that model's training data lie RAS"] if theirs == "RAS" else []
    )


@pytest.mark.parametrize("ours", [["T1ce", "FLAIR"], ["T1", "T1ce", "FLAIR"], ["T1ce", "T1"]])
def test_what_belongs_to_a_modality_is_taken_by_its_name(write, modulated, ours):
    network: Any = network_of(nnUNetTrainerModalityDropoutModulated, n_channels=len(ours))
    load_fitting_weights(network, name_channels(write(modulated), CHANNELS), ours)
    of_name = [CHANNELS.index(name) for name in ours]
    first, source = (of.encoder.stages[0][0].convs[0].conv.weight for of in (network, modulated))
    assert torch.equal(first, source[:, of_name])
    for linear, other in zip(network.modulation.linears, modulated.modulation.linears, strict=True):
        assert torch.equal(linear.weight, other.weight[:, of_name])
    lent, other = network.modulation.lending.weight, modulated.modulation.lending.weight
    assert torch.equal(lent, other[of_name][:, :, of_name])


@pytest.mark.parametrize(
    "trainer",
    [
        nnUNetTrainerModalityDropoutModulated,
        nnUNetTrainerModalityDropoutImputed,
        nnUNetTrainerModalityDropoutConditioned,
    ],
)
@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_the_same_modalities_in_another_order_give_the_same(write, trainer, order):
    network, source = network_of(trainer).eval(), randomized(trainer)
    load_fitting_weights(network, name_channels(write(source), CHANNELS), [CHANNELS[m] for m in order])
    images, available = torch.randn(1, 3, 8, 8, 8), torch.tensor([[True, False, True]])
    of_network, of_source = network(images[:, order], available[:, order]), source(images, available)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(of_network, of_source, strict=True))


@pytest.mark.parametrize("ours", [["T1ce", "FLAIR"], ["T1ce", "T1"], ["T1ce", "T9", "FLAIR"]])
def test_a_subset_takes_its_own_normalization_from_that_of_the_same_modalities(write, ours):
    trainer = nnUNetTrainerModalityDropoutConditioned
    source, network = randomized(trainer), network_of(trainer, n_channels=len(ours))
    load_fitting_weights(network, name_channels(write(source), CHANNELS), ours)
    for own, other in zip(network.normalization.tables, source.normalization.tables, strict=True):
        if "T9" in ours:
            assert not own.any()
            continue
        for subset in ((1, 1), (1, 0), (0, 1)):
            there = {name for name, is_there in zip(ours, subset, strict=True) if is_there}
            assert torch.equal(own[subset], other[tuple(int(name in there) for name in CHANNELS)])


@pytest.mark.parametrize("ours", [CHANNELS, CHANNELS[:2], [*CHANNELS[:2], "T9"]])
@pytest.mark.parametrize("stride", [2, 1])
def test_a_guess_is_taken_whole_or_not_at_all(write, ours, stride):
    trainer = nnUNetTrainerModalityDropoutImputed
    source, network = randomized(trainer), network_of(trainer, n_channels=len(ours))
    if stride == 1:  # as from other plans: one layer has another shape
        network.imputation.upsample = nn.ConvTranspose3d(8, 16, 1, 1)
    lines = load_fitting_weights(network, name_channels(write(source), CHANNELS), ours)
    taken = stride == 2 and "T9" not in ours
    assert network.imputation.is_blank != taken
    assert ("of other modalities or other plans, left as it is: imputation" in lines) != taken
    assert torch.equal(network.decoder.seg_layers[-1].weight, source.decoder.seg_layers[-1].weight)


def test_wrappers_are_taken_off():
    network = nn.Linear(3, 2)
    compiled, distributed = torch.compile(network, backend="eager"), object.__new__(DistributedDataParallel)
    nn.Module.__init__(distributed)
    distributed.module = compiled
    assert all(unwrapped(wrapped) is network for wrapped in (network, compiled, distributed))
    distributed.module = network
    assert unwrapped(distributed) is network


def test_the_checkpoint_is_handed_on_for_a_while():
    assert pretrained_weights() is None
    with starting_from(Path("a.pth")):
        assert pretrained_weights() == Path("a.pth").resolve()
    with starting_from(None):
        assert pretrained_weights() is None


@pytest.mark.parametrize("kind", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_our_trainers_start_from_it_and_say_so(write, stock, trainer_of, kind, capsys):
    trainer = trainer_of(kind)
    with starting_from(write(stock)):
        trainer.initialize()
    assert torch.equal(trainer.network.state_dict()["encoder.stages.0.0.convs.0.conv.weight"].cpu(), first_of(stock))
    assert "pretrained weights: " in capsys.readouterr().out
    other = trainer_of(kind)
    other.initialize()
    assert not torch.equal(other.network.state_dict()["encoder.stages.0.0.convs.0.conv.weight"].cpu(), first_of(stock))


def first_of(network):
    return network.state_dict()["encoder.stages.0.0.convs.0.conv.weight"]


@pytest.mark.parametrize("kind", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_going_on_with_a_checkpoint_that_does_not_fit(write, trainer_of, kind):
    trainer = trainer_of(kind)
    trainer.initialize()
    path = write(network_of(nnUNetTrainer, features=[6, 10]), current_epoch=1, logging={}, _best_ema=None)
    trainer.logger.load_checkpoint = lambda _: None
    with pytest.raises(UserError, match=f"{path} does not fit {kind.__name__} on these plans"):
        trainer.load_checkpoint(str(path))
    with pytest.raises(UserError, match=r"lacks 'current_epoch', it was exported"):
        trainer.load_checkpoint(str(write(trainer.network)))
    with pytest.raises(UserError, match=r"someone you trust; or remove it, and --c goes on from another"):
        trainer.load_checkpoint(str(write(trainer.network, more=Path("x"))))
