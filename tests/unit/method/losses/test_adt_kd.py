"""Distillation against a pairwise loop over unequal banks, and the numbers that Eq. (8) and (9) give by hand."""

import math

import pytest
import torch

from nnunetv2_d2net.method.losses import adt_kd
from nnunetv2_d2net.method.losses.adt_kd import adt_kd_losses, affinity

SIZES_3D = ([(2, 4, 2), (2, 2, 1), (1, 2, 1)], [(2, 4, 2), (1, 2, 2)])
SIZES_2D = ([(4, 4)], [(4, 4), (2, 4), (2, 2)])
SIZES_TWO_OF_A_SIZE = ([(4, 4), (2, 2)], [(2, 2)])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def bank(generator, sizes, channels, dtype=torch.float64, n_cases=2):
    return [torch.randn(n_cases, channels, *size, dtype=dtype, generator=generator) for size in sizes]


def banks(generator, sizes, dtype=torch.float64):
    """Student logits, teacher logits, student features, teacher features; all ask for gradients."""
    student, teacher = sizes
    result = [bank(generator, side, channels, dtype) for channels in (3, 5) for side in (student, teacher)]
    for maps in result:
        for level in maps:
            level.requires_grad_()
    return result


def scalar_bank(*channel_values, size=(2, 2, 2)):
    """One level with one case whose channels are constant."""
    values = torch.tensor(channel_values, dtype=torch.float64).view(1, -1, 1, 1, 1)
    return [values.expand(-1, -1, *size).contiguous()]


def feature_distillation_loss(student, teacher, **options):
    return adt_kd_losses(student, teacher, student, teacher, regions=True, **options)[0]


def logit_distillation_loss(*banks, **options):
    return adt_kd_losses(*banks, **options)[1]


def upsample(maps):
    for axis in range(2, maps.ndim):
        maps = maps.repeat_interleave(2, axis)
    return maps


# --- slow, obvious reference; autograd goes through it ---


def blocks(size, coarse):
    """For every coarse voxel the slices of the fine grid that it covers."""
    steps = [n // m for n, m in zip(size, coarse, strict=True)]
    for index in torch.ones(coarse).nonzero().tolist():
        yield tuple(index), tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, steps, strict=True))


def oracle_pool(one_case, coarse):
    result = torch.zeros(one_case.shape[0], *coarse, dtype=one_case.dtype)
    for index, block in blocks(one_case.shape[1:], coarse):
        for k in range(one_case.shape[0]):
            result[(k, *index)] = one_case[(k, *block)].sum() / one_case[(k, *block)].numel()
    return result


def oracle_norm(one_case):
    return torch.stack([(c - c.sum() / c.numel()) / torch.sqrt(c.var(correction=0) + 1e-5) for c in one_case])


def oracle_kl(student, teacher, regions):
    """At one voxel, from probabilities."""
    if not regions:
        p = [math.e**x / sum(math.e**y for y in teacher) for x in teacher]
        q = [math.e**x / sum(math.e**y for y in student) for x in student]
        return sum(a * (a / b).log() for a, b in zip(p, q, strict=True))
    p, q = [1 / (1 + math.e ** (-x)) for x in teacher], [1 / (1 + math.e ** (-x)) for x in student]
    return sum(a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log() for a, b in zip(p, q, strict=True))


def oracle_affinity(student, teacher):
    total = 0.0
    voxels = torch.ones(student.shape[1:]).nonzero().tolist()
    for voxel in voxels:
        s, t = student[(slice(None), *voxel)].tolist(), teacher[(slice(None), *voxel)].tolist()
        norms = math.hypot(*s) * math.hypot(*t)
        total += sum(a * b for a, b in zip(s, t, strict=True)) / norms if norms > 0 else 0.0
    return total / len(voxels)


def oracle_pair(inputs, s, t, b, regions, ignore):
    student_logits, teacher_logits, student_features, teacher_features = inputs
    coarse = tuple(map(min, student_features[s].shape[2:], teacher_features[t].shape[2:]))
    student, teacher = (oracle_norm(oracle_pool(f[b], coarse)) for f in (student_features[s], teacher_features[t]))
    weight = 0.5 + 0.5 * oracle_affinity(student, teacher)
    feature = ((student - teacher) ** 2).sum() / student.numel()
    ps, pt = oracle_pool(student_logits[s][b], coarse), oracle_pool(teacher_logits[t][b], coarse)
    valid = [i for i, block in blocks(ignore.shape[2:], coarse) if not ignore[(b, 0, *block)].any()]
    divergences = [oracle_kl(ps[(slice(None), *i)], pt[(slice(None), *i)], regions) for i in valid]
    return weight * feature, weight * sum(divergences) / len(divergences) if divergences else torch.zeros(())


def oracle(inputs, regions, ignore, reduction):
    n_cases, n_s, n_t = inputs[0][0].shape[0], len(inputs[2]), len(inputs[3])
    feature = logit = 0.0
    for s in range(n_s):
        for t in range(n_t):
            for b in range(n_cases):
                one_feature, one_logit = oracle_pair(inputs, s, t, b, regions, ignore)
                feature, logit = feature + one_feature / n_cases, logit + one_logit / n_cases
    count = n_s * n_t if reduction == "mean" else 1
    return feature / count, logit / count


@pytest.mark.parametrize("sizes", [SIZES_3D, SIZES_2D, SIZES_TWO_OF_A_SIZE])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_values_and_gradients_equal_the_pairwise_loop(generator, sizes, regions, reduction):
    inputs = banks(generator, sizes)
    full = [2 * n for n in sizes[0][0]]
    ignore = torch.rand(2, 1, *full, generator=generator) < 0.02
    tensors = [level for maps in inputs for level in maps]
    results = adt_kd_losses(*inputs, regions=regions, ignore=ignore, reduction=reduction)
    expected = oracle(inputs, regions, ignore, reduction)
    assert ignore.any()
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-9, atol=1e-9)
        gradients = torch.autograd.grad(result, tensors, allow_unused=True, materialize_grads=True, retain_graph=True)
        references = torch.autograd.grad(reference, tensors, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(gradients, references, rtol=1e-7, atol=1e-9)


def test_default_is_the_mean_over_all_pairs(generator):
    inputs = banks(generator, SIZES_3D)
    means, sums = adt_kd_losses(*inputs, regions=False), adt_kd_losses(*inputs, regions=False, reduction="sum")
    for mean, total in zip(means, sums, strict=True):
        assert (total / mean).item() == pytest.approx(3 * 2)


# --- affinity, Eq. (8) ---


def test_affinity_of_identical_orthogonal_and_opposite_maps(generator):
    maps = bank(generator, [(3, 4, 5)], 6)[0]
    left, right = maps.clone(), maps.clone()
    left[:, ::2], right[:, 1::2] = 0, 0
    torch.testing.assert_close(affinity(maps, maps), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(affinity(left, right), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(affinity(maps, -maps), -torch.ones(2, dtype=torch.float64))


def test_affinity_equals_the_voxel_loop_case_by_case(generator):
    student, teacher = bank(generator, [(2, 3, 2), (2, 3, 2)], 4, n_cases=3)
    expected = [oracle_affinity(s, t) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(affinity(student, teacher), torch.tensor(expected, dtype=torch.float64))


def test_affinity_is_independent_of_scale_and_resolution(generator):
    student, teacher = bank(generator, [(2, 3, 2), (2, 3, 2)], 4)
    expected = affinity(student, teacher)
    torch.testing.assert_close(affinity(1e-3 * student, 1e3 * teacher), expected)
    torch.testing.assert_close(affinity(upsample(student), upsample(teacher)), expected)


def test_affinity_carries_no_gradient(generator):
    student, teacher = (maps.requires_grad_() for maps in bank(generator, [(2, 2), (2, 2)], 4))
    assert not affinity(student, teacher).requires_grad


@pytest.mark.parametrize(("sign", "weight"), [(1, 1.0), (-1, 0.0)])
def test_affinity_is_mapped_to_0_and_1_as_the_weight(generator, sign, weight):
    features = bank(generator, [(4, 4, 4)], 5)
    opposite = [sign * maps for maps in features]
    logits = ([torch.zeros(2, 1, 4, 4, 4)], [torch.ones(2, 1, 4, 4, 4)])
    p = 1 / (1 + math.exp(-1))
    divergence = p * math.log(2 * p) + (1 - p) * math.log(2 - 2 * p)
    value = logit_distillation_loss(*logits, features, opposite, regions=True).item()
    assert value == pytest.approx(weight * divergence, abs=1e-6)


# --- Eq. (9) ---


@pytest.mark.parametrize("regions", [False, True])
def test_identical_banks_give_zero(generator, regions):
    coarse = bank(generator, [(2, 2, 2)], 4)[0]
    features, logits = [upsample(coarse), coarse], [upsample(coarse), coarse]
    for loss in adt_kd_losses(logits, logits, features, features, regions=regions):
        assert loss.item() == pytest.approx(0, abs=1e-12)


def test_divergence_runs_from_teacher_to_student():
    sharp, flat = [math.log(0.9), math.log(0.1)], [math.log(0.5), math.log(0.5)]
    teacher, student, features = scalar_bank(*sharp), scalar_bank(*flat), scalar_bank(1.0)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    value = logit_distillation_loss(student, teacher, features, features, regions=False).item()
    assert value == pytest.approx(0.5 * expected, abs=1e-12)  # constant features: affinity 0, weight 1/2


def test_bernoulli_divergence_runs_from_teacher_to_student_and_sums_the_regions():
    teacher, student, features = scalar_bank(math.log(9), 0.0), scalar_bank(0.0, 0.0), scalar_bank(1.0)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    value = logit_distillation_loss(student, teacher, features, features, regions=True).item()
    assert value == pytest.approx(0.5 * expected, abs=1e-12)


def test_logits_are_pooled_before_the_probabilities():
    student = torch.tensor([0.0, 4.0], dtype=torch.float64).view(1, 1, 1, 2)
    teacher = torch.tensor([2.0], dtype=torch.float64).view(1, 1, 1, 1)
    features = [torch.ones(1, 1, 1, 2)], [torch.ones(1, 1, 1, 1)]
    value = logit_distillation_loss([student], [teacher], *features, regions=True)
    assert value.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("which", range(4))
def test_every_level_is_distinct(generator, which):
    inputs = banks(generator, SIZES_3D)
    expected = torch.stack(adt_kd_losses(*inputs, regions=False)).detach()
    for level in range(len(inputs[which])):
        changed = [list(maps) for maps in inputs]
        changed[which][level] = -2 * changed[which][level].detach()
        value = torch.stack(adt_kd_losses(*changed, regions=False)).detach()
        assert (value - expected).abs().max() > 1e-4
    torch.stack(adt_kd_losses(*inputs, regions=False)).sum().backward()
    assert all(level.grad.abs().max() > 1e-6 for level in inputs[which] if level[0, 0].numel() > 2)


def test_exchanging_the_logits_of_two_levels_changes_the_loss(generator):
    student_logits, teacher_logits = bank(generator, [(4, 4)] * 2, 3), bank(generator, [(4, 4)], 3)
    student = [torch.randn(2, 5, 4, 4, dtype=torch.float64, generator=generator) for _ in range(2)]
    teacher = [student[0].clone()]
    first = logit_distillation_loss(student_logits, teacher_logits, student, teacher, regions=False)
    swapped = logit_distillation_loss(student_logits[::-1], teacher_logits, student, teacher, regions=False)
    assert (first - swapped).abs() > 1e-3


def test_shrinking_or_shifting_features_gains_nothing(generator):
    student, teacher = (bank(generator, sizes, 5) for sizes in SIZES_3D[:2])
    student, teacher = student[:1], teacher[:1]
    expected = feature_distillation_loss(student, teacher)
    shrunk = feature_distillation_loss([0.1 * maps + 3 for maps in student], [0.1 * maps for maps in teacher])
    torch.testing.assert_close(shrunk, expected, rtol=1e-2, atol=0)


def test_losses_are_independent_of_the_resolution(generator):
    inputs = banks(generator, ([(3, 4, 2)], [(3, 4, 2)]))
    finer = [[upsample(level) for level in maps] for maps in inputs]
    for fine, loss in zip(adt_kd_losses(*finer, regions=False), adt_kd_losses(*inputs, regions=False), strict=True):
        torch.testing.assert_close(fine, loss)


# --- ignored voxels ---


def test_a_coarse_voxel_with_one_ignored_voxel_is_left_out_exactly(generator):
    inputs = banks(generator, ([(4, 4, 4)], [(2, 2, 2)]))
    ignore = torch.zeros(2, 1, 8, 8, 8, dtype=torch.bool)
    ignore[0, 0, 5, 2, 7] = True  # in coarse voxel (1, 0, 1) of case 0
    logit_distillation_loss(*inputs, regions=False, ignore=ignore).backward()
    touched = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    touched[0, 2:, :2, 2:] = True
    gradient = inputs[0][0].grad.ne(0).any(1)
    assert torch.equal(gradient, ~touched)
    assert inputs[1][0].grad[0, :, 1, 0, 1].eq(0).all()


def test_a_case_without_valid_voxels_gives_zero(generator):
    inputs = banks(generator, SIZES_3D)
    ignore = torch.ones(2, 1, 8, 8, 8, dtype=torch.bool)
    loss = logit_distillation_loss(*inputs, regions=True, ignore=ignore)
    loss.backward()
    assert loss.item() == 0
    assert inputs[0][0].grad.eq(0).all()


# --- stability ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("regions", [False, True])
def test_half_precision_and_autocast_change_nothing(generator, dtype, regions):
    inputs = [[3e4 * m for m in maps] for maps in banks(generator, SIZES_3D, torch.float32)]
    inputs = [[m.detach().clamp(-6e4, 6e4).to(dtype).requires_grad_() for m in maps] for maps in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        losses = adt_kd_losses(*inputs, regions=regions)
    reference = adt_kd_losses(*[[m.detach().float() for m in maps] for maps in inputs], regions=regions)
    sum(losses).backward()
    for loss, expected in zip(losses, reference, strict=True):
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert loss.item() == expected.item()
    assert all(m.grad.isfinite().all() for maps in inputs for m in maps)


@pytest.mark.parametrize("size", [(2, 2, 2), (1, 1, 1)])
def test_constant_maps_stay_finite(size):
    features = [torch.full((1, 4, *size), 7.0, requires_grad=True)]
    teacher = [torch.zeros(1, 4, *size, requires_grad=True)]
    loss = feature_distillation_loss(features, teacher)
    loss.backward()
    assert loss.item() == 0
    assert features[0].grad.isfinite().all()
    assert teacher[0].grad.isfinite().all()


@pytest.mark.parametrize("value", [0.1, -7.3, 1e3 / 3])
def test_constant_maps_leave_no_rounding_errors(value):
    """A mean of 27 such values is not the value, and the norm divides the difference by 0.003."""
    channels = torch.tensor([1.0, -1.0, 0.3, 100.0])  # each has a value of its own
    constant, zero = [value * channels.view(1, 4, 1, 1, 1).expand(2, 4, 3, 3, 3)], [torch.zeros(2, 4, 3, 3, 3)]
    assert feature_distillation_loss(constant, zero).item() < 1e-12


def test_one_valid_voxel_counts_whole(generator):
    inputs = banks(generator, ([(2, 2)], [(2, 2)]))
    ignore = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    ignore[:, :, 1, 0] = False
    found = logit_distillation_loss(*inputs, regions=False, ignore=ignore)
    torch.testing.assert_close(found, oracle(inputs, regions=False, ignore=ignore, reduction="mean")[1])


def test_gradients_flow_to_both_decoders_and_not_through_the_weights(generator):
    inputs = banks(generator, SIZES_3D)
    feature, logit = adt_kd_losses(*inputs, regions=False)
    features = inputs[2] + inputs[3]
    assert torch.autograd.grad(logit, features, allow_unused=True, retain_graph=True) == (None,) * len(features)
    for loss, (student, teacher) in ((feature, inputs[2:]), (logit, inputs[:2])):
        gradients = torch.autograd.grad(loss, [student[0], teacher[0]])
        assert all(gradient.abs().max() > 1e-4 for gradient in gradients)


@pytest.mark.parametrize("regions", [False, True])
def test_gradcheck_of_the_logit_level(generator, regions):
    sizes = ([(2, 2), (1, 1)], [(2, 2)])
    student_logits, teacher_logits, student, teacher = banks(generator, sizes)

    def loss(*logits):
        return logit_distillation_loss(list(logits[:2]), [logits[2]], student, teacher, regions=regions)

    assert torch.autograd.gradcheck(loss, (*student_logits, *teacher_logits))


def test_gradcheck_of_the_feature_level(generator, monkeypatch):
    monkeypatch.setattr(adt_kd, "affinity", lambda student, _: torch.full((len(student),), 0.4, dtype=torch.float64))
    _, _, student, teacher = banks(generator, ([(2, 2), (4, 4)], [(2, 2)]))

    def loss(*features):
        return feature_distillation_loss(list(features[:2]), [features[2]])

    assert torch.autograd.gradcheck(loss, (*student, *teacher))


def test_a_bank_without_its_own_logits_is_refused(generator):
    inputs = banks(generator, SIZES_3D)
    with pytest.raises(ValueError, match="as many logits"):
        adt_kd_losses(inputs[0][:1], *inputs[1:], regions=False)


def test_another_reduction_is_refused(generator):
    with pytest.raises(ValueError, match=r"'total': use 'mean' or 'sum'"):
        adt_kd_losses(*banks(generator, SIZES_3D), regions=False, reduction="total")
