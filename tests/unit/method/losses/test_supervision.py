"""Reconstruction, auxiliary and consistency losses against voxel loops, with missing images and ignored voxels."""

import math
from itertools import pairwise

import pytest
import torch

from nnunetv2_d2net.method.losses.supervision import (
    Target,
    auxiliary_loss,
    consistency_loss,
    reconstruction_loss,
    split_targets,
)

SHAPES = [(2, 3, 4, 6), (2, 3, 2, 4, 2)]
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def normal(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=generator)


def random_target(generator, shape, with_ignore):
    masks = (torch.rand(shape, generator=generator) < 0.5).float()
    ignore = torch.rand(shape[0], 1, *shape[2:], generator=generator) < 0.3
    return Target(masks, ignore if with_ignore else None)


def every_index(shape):
    return [tuple(index) for index in torch.ones(shape).nonzero().tolist()]


def is_ignored(ignore, index):
    return ignore is not None and bool(ignore[(index[0], 0, *index[2:])])


def mean(values):
    return sum(values) / len(values)


# --- nnU-Net's targets ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.float16])
def test_labels_become_one_mask_per_head_and_the_ignore_label_a_mask(dtype):
    target = torch.tensor([[0, 1], [2, 3]], dtype=dtype).view(1, 1, 2, 2)
    (split,) = split_targets(target, 3, regions=False, ignore_label=3)
    expected = [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]
    assert split.masks.tolist() == [expected]
    assert split.ignore.tolist() == [[[[False, False], [False, True]]]]
    assert split_targets(target, 4, regions=False, ignore_label=None)[0].ignore is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_regions_carry_the_ignored_voxels_in_the_last_channel(generator, dtype):
    target = (torch.rand(2, 4, 3, 3, 3, generator=generator) < 0.5).to(dtype)
    (split,) = split_targets(target, 3, regions=True, ignore_label=9)
    assert torch.equal(split.masks, target[:, :3].float())
    assert torch.equal(split.ignore, target[:, 3:].bool())
    without = split_targets(target[:, :3], 3, regions=True, ignore_label=None)
    assert without[0].ignore is None


def test_deep_supervision_gives_one_target_per_level():
    levels = [torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 2, 2)]
    first, second = split_targets(levels, 2, regions=False, ignore_label=None)
    assert first.masks.shape == (1, 2, 4, 4)
    assert second.masks[:, 1].eq(1).all()


# --- reconstruction, text above Eq. (6) ---


def test_reconstruction_equals_the_voxel_loop_over_present_images(generator):
    reconstructions, images = normal(generator, 2, 3, 2, 2, 2), normal(generator, 2, 3, 4, 2, 6)
    present = torch.tensor([[1, 0, 1], [1, 1, 1]]).bool()
    errors = []
    for b, m, z, y, x in every_index(reconstructions.shape):
        if present[b, m]:
            truth = images[b, m, 2 * z : 2 * z + 2, y : y + 1, 3 * x : 3 * x + 3].flatten().tolist()
            errors.append((reconstructions[b, m, z, y, x].item() - mean(truth)) ** 2)
    value = reconstruction_loss(reconstructions, images, present)
    assert value.item() == pytest.approx(mean(errors), abs=1e-12)


def test_reconstruction_at_full_resolution_in_2d():
    images = torch.arange(8.0).view(1, 2, 2, 2)
    assert reconstruction_loss(images + 3, images, torch.ones(1, 2).bool()).item() == pytest.approx(9)


def test_reconstruction_ignores_absent_images(generator):
    images = normal(generator, 2, 2, 4, 4)
    images[0, 1] = float("nan")
    present = torch.tensor([[True, False], [True, True]])
    reconstructions = normal(generator, 2, 2, 2, 2).requires_grad_()
    loss = reconstruction_loss(reconstructions, images, present)
    loss.backward()
    assert loss.isfinite()
    assert torch.equal(reconstructions.grad.ne(0).flatten(2).all(2), present)
    assert torch.equal(reconstructions.grad.ne(0).flatten(2).any(2), present)


def test_one_image_and_one_voxel_count_whole(generator):
    reconstructions, images = normal(generator, 1, 2, 2, 2), normal(generator, 1, 2, 2, 2)
    found = reconstruction_loss(reconstructions, images, torch.tensor([[False, True]]))
    assert found.item() == pytest.approx((reconstructions - images)[0, 1].square().mean().item())
    target = Target(torch.ones(1, 1, 2, 2), torch.tensor([[[[True, True], [True, False]]]]))
    logits = normal(generator, 1, 1, 2, 2)
    expected = math.log(1 + math.exp(-logits[0, 0, 1, 1].item()))
    assert auxiliary_loss([logits], [target], [1.0]).item() == pytest.approx(expected)


def test_reconstruction_without_images_is_zero(generator):
    reconstructions = normal(generator, 1, 2, 2, 2).requires_grad_()
    loss = reconstruction_loss(reconstructions, torch.full((1, 2, 4, 4), float("nan")), torch.zeros(1, 2).bool())
    loss.backward()
    assert loss.item() == 0
    assert reconstructions.grad.eq(0).all()


# --- auxiliary, Eq. (7) ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_ignore", [False, True])
def test_auxiliary_equals_the_voxel_loop_over_levels(generator, shape, with_ignore):
    coarse = (*shape[:2], *(n // 2 for n in shape[2:]))
    logits = [
        normal(generator, *shape),
        normal(generator, *coarse),
        normal(generator, *shape[:2], *(1,) * len(shape[2:])),
    ]
    targets = [random_target(generator, size, with_ignore) for size in (shape, coarse)]
    expected = 0.0
    for weight, level, target in zip((0.7, 0.3), logits[:2], targets, strict=True):
        losses = []
        for index in every_index(level.shape):
            if not is_ignored(target.ignore, index):
                p, y = 1 / (1 + math.exp(-level[index].item())), target.masks[index].item()
                losses.append(-(y * math.log(p) + (1 - y) * math.log(1 - p)))
        expected += weight * mean(losses)
    assert auxiliary_loss(logits, targets, (0.7, 0.3)).item() == pytest.approx(expected, abs=1e-12)


def test_auxiliary_is_positive_and_falls_as_the_prediction_approaches_the_truth(generator):
    target = random_target(generator, (1, 3, 4, 4), with_ignore=False)
    values = [
        auxiliary_loss([scale * (2 * target.masks - 1)], [target], [1.0]).item()
        for scale in (-5.0, -1.0, 0.0, 1.0, 5.0, 200.0)
    ]
    assert values[2] == pytest.approx(math.log(2), abs=1e-6)
    assert all(later < earlier for earlier, later in pairwise(values))
    assert all(value >= 0 for value in values)
    assert values[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_auxiliary_with_an_empty_or_full_region(filled):
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = auxiliary_loss([logits], [Target(torch.full((1, 2, 4, 4), filled), None)], [1.0])
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad.isfinite().all()


def test_auxiliary_is_exact_for_a_sure_and_wrong_teacher():
    logits = torch.full((1, 1, 2, 2), 200.0, requires_grad=True)
    loss = auxiliary_loss([logits], [Target(torch.zeros(1, 1, 2, 2), None)], [1.0])
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad.sum().item() == pytest.approx(1)


def test_auxiliary_needs_one_weight_per_target():
    target = Target(torch.zeros(1, 1, 2, 2), None)
    with pytest.raises(ValueError, match="zip"):
        auxiliary_loss([torch.zeros(1, 1, 2, 2)], [target], [0.5, 0.5])


# --- consistency, text below Eq. (10) ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("with_ignore", [False, True])
def test_consistency_equals_the_voxel_loop(generator, shape, regions, with_ignore):
    teacher, student = normal(generator, *shape), normal(generator, *shape)
    ignore = random_target(generator, shape, with_ignore).ignore
    errors = []
    for index in every_index(shape):
        if not is_ignored(ignore, index):
            p_teacher = 1 / (1 + math.exp(-teacher[index].item()))
            channels = student[(index[0], slice(None), *index[2:])].tolist()
            softmax = math.exp(channels[index[1]]) / sum(math.exp(c) for c in channels)
            p_student = 1 / (1 + math.exp(-channels[index[1]])) if regions else softmax
            errors.append((p_teacher - p_student) ** 2)
    value = consistency_loss(teacher, student, regions=regions, ignore=ignore)
    assert value.item() == pytest.approx(mean(errors), abs=1e-12)


def test_consistent_predictions_give_zero_and_both_sides_learn(generator):
    logits = normal(generator, 1, 2, 4, 4)
    assert consistency_loss(logits, logits, regions=True).item() == 0
    both = [normal(generator, 1, 2, 4, 4).requires_grad_() for _ in range(2)]
    consistency_loss(*both, regions=False).backward()
    assert all(side.grad.ne(0).all() for side in both)


# --- what all share ---


def test_ignored_voxels_have_no_influence_and_no_gradient(generator):
    target = random_target(generator, (2, 3, 4, 4), with_ignore=True)
    teacher, student = (normal(generator, 2, 3, 4, 4).requires_grad_() for _ in range(2))
    auxiliary = auxiliary_loss([teacher], [target], [1.0])
    consistency = consistency_loss(teacher, student, regions=True, ignore=target.ignore)
    ignored = target.ignore.expand_as(teacher)
    for loss, sides in ((auxiliary, [teacher]), (consistency, [teacher, student])):
        for gradient in torch.autograd.grad(loss, sides):
            assert torch.equal(gradient.eq(0), ignored)


def test_everything_ignored_gives_zero(generator):
    logits = normal(generator, 1, 2, 4, 4).requires_grad_()
    ignore = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    total = auxiliary_loss([logits], [Target(torch.zeros(1, 2, 4, 4), ignore)], [1.0])
    total = total + consistency_loss(logits, logits + 1, regions=False, ignore=ignore)
    total.backward()
    assert total.item() == 0
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("regions", [False, True])
def test_gradcheck(generator, regions):
    target = random_target(generator, (1, 2, 2, 2), with_ignore=True)
    target.ignore[:] = torch.tensor([True, False])
    teacher, student = (normal(generator, 1, 2, 2, 2).requires_grad_() for _ in range(2))
    present = torch.tensor([[True, False]])
    images = normal(generator, 1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: auxiliary_loss([t], [target], [0.5]), teacher)
    assert torch.autograd.gradcheck(
        lambda t, s: consistency_loss(t, s, regions=regions, ignore=target.ignore), (teacher, student)
    )
    assert torch.autograd.gradcheck(lambda r, i: reconstruction_loss(r, i, present), (student, images))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_half_precision_and_autocast_change_nothing(generator, dtype, scale):
    teacher, student = (
        (scale * normal(generator, 1, 2, 4, 4, dtype=torch.float32)).to(dtype).requires_grad_() for _ in range(2)
    )
    target = random_target(generator, (1, 2, 4, 4), with_ignore=True)

    def losses(first, second):
        return torch.stack(
            [
                auxiliary_loss([first], [target], [1.0]),
                consistency_loss(first, second, regions=False, ignore=target.ignore),
                reconstruction_loss(first, second, torch.ones(1, 2).bool()),
            ]
        )

    with torch.autocast("cpu", torch.bfloat16):
        values = losses(teacher, student)
    values.sum().backward()
    assert auxiliary_loss([teacher], [target], [1.0]).dtype == torch.float32  # without autocast too
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert torch.equal(values, losses(teacher.detach().float(), student.detach().float()))
    assert teacher.grad.isfinite().all()
    assert student.grad.isfinite().all()
