import math

import pytest
import torch

from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer, Step
from nnunetv2_d2net.plugin.training.pretraining import (
    FALSE_VOLUME_SCALE,
    LEVELS,
    TEXTURE,
    nnUNetTrainerModalityDropoutPretraining,
    shift_levels,
)

SHAPE = (24, 28, 24)
TISSUES = ("edema", "necrotic or not enhancing", "enhancing")


@pytest.fixture
def regions():
    """Two cases of whole tumor, core and enhancing tumor: boxes in each other."""
    regions = torch.zeros(2, 3, *SHAPE)
    for region, margin in enumerate((0, 4, 8)):
        box = slice(1 + margin, 24 - margin)
        regions[:, region, box, box, box] = 1
    return regions


def shift(regions, p=1.0, seed=0):
    return shift_levels(torch.zeros(2, 4, *SHAPE), regions, p, torch.Generator().manual_seed(seed))


def test_nothing_outside_lesions_changes_and_nothing_with_probability_zero(regions):
    shifted = shift(regions)
    assert shifted[..., 26, :].abs().max() == 0
    assert shifted.abs().amax((1, 2, 3, 4)).min() > 0
    assert shift(regions, p=0.0).abs().max() == 0


@pytest.fixture
def layers():
    """Many small cases: edema, then necrotic tissue, then what enhances, each of three voxels."""
    layers = torch.zeros(800, 3, 9, 6, 6)
    for region, begin in enumerate((0, 3, 6)):
        layers[:, region, begin:] = 1
    return layers


def test_each_tissue_gets_levels_from_its_range_in_each_image(layers):
    shifted = shift_levels(torch.zeros(800, 4, 9, 6, 6), layers, 1.0, torch.Generator().manual_seed(0))
    for tissue, middle in zip(TISSUES, (1, 4, 7), strict=True):
        low, high = torch.tensor(LEVELS[tissue]).unbind(1)
        values = shifted[:, :, middle, 3, 3]
        middle_of_range, width = (low + high) / 2, high - low
        assert (values.mean(0) - middle_of_range).abs().max() < 0.12
        spread = width / 12**0.5
        assert (
            (values.std(0) > spread * 0.7) & (values.std(0) < 1.3 * (spread + TEXTURE * middle_of_range.abs()))
        ).all()


def test_cases_and_images_are_shifted_apart(regions):
    values = shift(regions)[..., 12, 12, 12].flatten()
    assert len(set(values.tolist())) == 8


def test_a_share_of_the_cases_keeps_its_levels(layers):
    shifted = shift_levels(torch.zeros(800, 4, 9, 6, 6), layers, 0.3, torch.Generator().manual_seed(0))
    assert 0.25 < (shifted != 0).flatten(1).any(1).float().mean() < 0.35


def test_a_shift_has_a_smooth_texture_and_a_soft_border(regions):
    shifted = shift(regions)[0, 1, :, 12, 12]
    assert shifted[1] != 0
    assert abs(shifted[1]) < abs(shifted[2])  # half of the border's neighborhood lies outside
    whole = torch.zeros_like(regions)
    whole[:, 0] = 1
    inside = shift(whole)[0, 0, 2:-2, 2:-2, 2:-2]
    assert inside.std() > 0
    steps = inside.diff(dim=0).abs().max()
    assert steps < 0.5 * (inside.max() - inside.min())


def test_a_channel_of_ignored_voxels_is_no_lesion(regions):
    assert torch.equal(shift(torch.cat((regions, torch.ones(2, 1, *SHAPE)), 1)), shift(regions))


def test_the_texture_of_a_small_patch_goes_from_one_side_to_the_other(layers):
    layers[:, 1:] = 0
    shifted = shift_levels(torch.zeros(800, 4, 9, 6, 6), layers, 1.0, torch.Generator().manual_seed(0))
    steps = shifted[:, :, 4, 3, 1:5].diff(dim=-1)
    assert ((steps >= -1e-6).all(-1) | (steps <= 1e-6).all(-1)).all()


# --- the trainer ---

BRATS = {
    "channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
    "file_ending": ".nii.gz",
}


@pytest.fixture
def started(trainer_of, monkeypatch):
    """A trainer whose training has begun on a processor that can this."""

    def started(**can):
        monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", lambda _: None)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
        trainer = trainer_of(nnUNetTrainerModalityDropoutPretraining, n_stages=3, dataset_json=BRATS)
        trainer.initialize()
        trainer.on_train_start()
        return trainer

    return started


def test_it_computes_in_bfloat16_where_the_processor_does(started, monkeypatch):
    def dtype(trainer):
        with trainer.autocast():
            return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    for can, expected in (
        ({}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ):
        trainer = started(**can)
        assert dtype(trainer) == expected
    trainer = started(amx_bf16=True)
    trainer.device, trainer.autocast = torch.device("cuda"), "of CUDA"
    trainer.on_train_start()
    assert trainer.autocast == "of CUDA"
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as torch before 2.5
    trainer.device = torch.device("cpu")
    trainer.on_train_start()
    assert trainer.autocast == "of CUDA"


def test_runs_draw_levels_of_their_own_and_those_of_a_seed_the_same(started):
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        trainer = started()
        draws.append(torch.rand(4, generator=trainer.level_generator).tolist())
        trainer.on_train_start()
        assert torch.rand(4, generator=trainer.level_generator).tolist() != draws[-1]
    assert draws[0] == draws[1] != draws[2]


def test_a_training_that_goes_on_draws_the_levels_that_it_would_have_drawn(started):
    trainer = started()
    torch.rand(7, generator=trainer.level_generator)
    states = trainer.random_states()
    expected, of_torch = torch.rand(4, generator=trainer.level_generator), torch.get_rng_state()
    trainer.loaded_random_states = states
    trainer.on_train_start()
    assert torch.equal(torch.rand(4, generator=trainer.level_generator), expected)
    assert torch.equal(torch.get_rng_state(), of_torch)


@pytest.mark.parametrize("as_list", [True, False])
def test_lesions_are_shifted_in_training_alone(started, regions, as_list):
    trainer = started()
    batch = {"data": torch.randn(2, 4, *SHAPE), "target": [regions, regions[..., ::2]] if as_list else regions}
    masks = torch.ones(2, 4, dtype=torch.bool), torch.tensor([[True, False, True, True]] * 2)
    state = trainer.level_generator.get_state()
    trainer.network.train()
    step = trainer.step_on(batch, *masks)
    again = torch.Generator()
    again.set_state(state)
    assert torch.equal(step.images, shift_levels(batch["data"], regions, 0.8, again))
    assert not torch.equal(step.images, batch["data"])
    assert (step.present is masks[0], step.available is masks[1]) == (True, True)
    trainer.network.eval()
    assert torch.equal(trainer.step_on(batch, *masks).images, batch["data"])


@pytest.mark.parametrize("deep", [True, False])
def test_a_tumor_found_in_a_head_without_one_costs_by_its_milliliters_and_what_is_seen(started, regions, deep):
    trainer = started()
    trainer.enable_deep_supervision = deep
    trainer.loss = lambda outputs, target: torch.tensor(2.0)
    logits = torch.full((2, 3, *SHAPE), -20.0)
    logits[1, 0, :10, :10, :5] = logits[1, 2, :10, :10, 4:10] = 20  # of the second case, which has no tumor
    regions[1] = 0
    present, available = torch.ones(2, 4, dtype=torch.bool), torch.tensor([[True] * 4, [True, False, False, False]])
    step = Step(torch.zeros(2, 4, *SHAPE), [regions] if deep else regions, present, available)
    trainer.configuration_manager.configuration["spacing"] = [2.0, 1.0, 1.5]
    expected = 2 + trainer.false_volume_weight * math.log1p(1000 * 3 / FALSE_VOLUME_SCALE) / 2 / 4
    assert trainer.loss_of([logits] if deep else logits, step).item() == pytest.approx(expected, rel=1e-4)
    regions[1, 1, 0, 0, 0] = 1
    assert trainer.loss_of([logits] if deep else logits, step).item() == 2
