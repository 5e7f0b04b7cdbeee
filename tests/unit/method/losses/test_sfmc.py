"""The contrastive losses against two-loop oracles and the numbers that the equations give by hand."""

import contextlib
import math

import pytest
import torch
from torch import nn

from nnunetv2_d2net.method.losses.sfmc import amplitude_spectrum, frequency_contrastive_loss, spatial_contrastive_loss

TAU = 0.07
SAMPLINGS = ("paper", "all_pairs")
LOSSES = (spatial_contrastive_loss, frequency_contrastive_loss)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def random_codes(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=generator)


def everything(codes):
    return torch.ones(codes.shape[:3], dtype=torch.bool)


def one_hot_codes(n_cases, n_modalities, n_slices, dtype):
    codes = torch.eye(n_modalities, 8, dtype=dtype)
    return codes[None, :, None].repeat(n_cases, 1, n_slices, 1)


# --- slow, obvious references ---


def h(p, q):
    p, q = p.tolist(), q.tolist()
    dot = sum(x * y for x, y in zip(p, q, strict=True))
    return math.exp(dot / math.hypot(*p) / math.hypot(*q) / TAU)


def dft_amplitudes(code):
    values, n = code.tolist(), len(code)
    result = []
    for k in range(n):
        real = sum(values[i] * math.cos(2 * math.pi * i * k / n) for i in range(n))
        imaginary = sum(-values[i] * math.sin(2 * math.pi * i * k / n) for i in range(n))
        result.append(math.sqrt(real**2 + imaginary**2))
    return torch.tensor(result, dtype=torch.float64)


def centered_window(u, n_slices):
    """Of all runs of 2 r + 1 slices that hold u, the one whose middle is closest to u, without u."""
    radius = max(1, min(8, (n_slices - 1) // 2))
    length = min(2 * radius + 1, n_slices)
    runs = [range(start, start + length) for start in range(n_slices - length + 1)]
    best = min((run for run in runs if u in run), key=lambda run: abs(sum(run) / length - u))
    return [v for v in best if v != u]


def partners(valid, b, i, u, sampling):
    """Positives and negatives of the anchor (b, i, u) as lists of (b, i, u)."""
    n_cases, n_modalities, n_slices = valid.shape
    others = [j for j in range(n_modalities) if j != i]
    if n_slices == 1:
        positives = [(a, i, 0) for a in range(n_cases) if a != b]
        negatives = [(b, j, 0) for j in others]
    elif sampling == "all_pairs":
        positives = [(b, i, v) for v in range(n_slices) if v != u]
        negatives = [(b, j, u) for j in others]
    else:
        distance = round(0.375 * n_slices)
        sides = [(b, i, v) for v in (u + distance, u - distance) if 0 <= v < n_slices and valid[b, i, v]]
        positives = sides[:1]
        negatives = [(b, j, v) for j in others for v in centered_window(u, n_slices)]
    return [p for p in positives if valid[p]], [n for n in negatives if valid[n]]


def oracle(codes, valid, sampling):
    losses = []
    for b, i, u in torch.ones_like(valid).nonzero().tolist():
        if not valid[b, i, u]:
            continue
        positives, negatives = partners(valid, b, i, u, sampling)
        for positive in positives if negatives else []:
            numerator = h(codes[b, i, u], codes[positive])
            denominator = numerator + sum(h(codes[b, i, u], codes[negative]) for negative in negatives)
            losses.append(-math.log(numerator / denominator))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (1, 3, 3, 4), (1, 3, 5, 4), (1, 2, 20, 4), (3, 4, 1, 5)])
@pytest.mark.parametrize("complete", [True, False])
def test_both_losses_equal_the_two_loop_oracle(generator, sampling, shape, complete):
    codes = random_codes(generator, *shape)
    valid = everything(codes) if complete else torch.rand(shape[:3], generator=generator) < 0.7
    expected = oracle(codes, valid, sampling)
    assert spatial_contrastive_loss(codes, valid, sampling=sampling).item() == pytest.approx(expected, abs=1e-9)
    in_float32 = spatial_contrastive_loss(codes.float(), valid, sampling=sampling).item()
    assert in_float32 == pytest.approx(expected, rel=1e-5, abs=1e-6)
    spectra = torch.stack([dft_amplitudes(code) for code in codes.flatten(0, 2)]).view(codes.shape)
    expected = oracle(spectra, valid, sampling)
    assert frequency_contrastive_loss(codes, valid, sampling=sampling).item() == pytest.approx(expected, abs=1e-9)


# --- numbers by hand, Eq. (1), (4) and (5) ---


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("sampling", "n_slices", "n_negatives"),
    [("all_pairs", 6, 3), ("paper", 17, 48), ("paper", 40, 48), ("paper", 2, 3)],
)
def test_equal_codes_give_the_log_of_one_plus_the_negatives(loss, sampling, n_slices, n_negatives):
    codes = torch.full((2, 4, n_slices, 8), 0.5, dtype=torch.float64)
    value = loss(codes, everything(codes), sampling=sampling)
    assert value.item() == pytest.approx(math.log(1 + n_negatives), abs=1e-12)


def test_equal_codes_give_twice_log_m_in_both_domains():
    codes = torch.ones(1, 5, 4, 8, dtype=torch.float64)
    total = sum(loss(codes, everything(codes), sampling="all_pairs") for loss in LOSSES)
    assert total.item() == pytest.approx(2 * math.log(5), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sampling", "expected", "negatives"), [("all_pairs", 1.87e-6, 3), ("paper", 3.0e-5, 48)])
def test_orthogonal_clusters(dtype, sampling, expected, negatives):
    codes = one_hot_codes(1, 4, 20, dtype)
    valid = everything(codes)
    spatial = spatial_contrastive_loss(codes, valid, sampling=sampling).item()
    assert spatial == pytest.approx(expected, rel=5e-3)
    assert spatial == pytest.approx(math.log1p(negatives * math.exp(-1 / TAU)), rel=1e-4)
    frequency = frequency_contrastive_loss(codes, valid, sampling=sampling).item()
    assert frequency == pytest.approx(math.log(1 + negatives), rel=1e-5)  # amplitudes ignore shifts


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_invariant_to_scaling_any_code(generator, loss, sampling):
    codes = random_codes(generator, 2, 3, 6, 8)
    scales = 0.1 + 5 * torch.rand(2, 3, 6, 1, dtype=torch.float64, generator=generator)
    valid = everything(codes)
    scaled = loss(codes * scales, valid, sampling=sampling)
    torch.testing.assert_close(scaled, loss(codes, valid, sampling=sampling), rtol=1e-10, atol=0)


def test_temperature_divides_the_cosine():
    codes = one_hot_codes(1, 2, 2, torch.float64)
    value = spatial_contrastive_loss(codes, everything(codes), temperature=0.5, sampling="all_pairs")
    assert value.item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-12)


# --- the paper's sampling ---


def sparse_case(*positions):
    """Codes of 128 slices of which only the named (modality, slice) are valid; modality 0 is the anchor's."""
    codes = torch.randn(1, 2, 128, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(1, 2, 128, dtype=torch.bool)
    for modality, position in positions:
        valid[0, modality, position] = True
    return codes, valid


@pytest.mark.parametrize("negative", [52, 59, 61, 68])
@pytest.mark.parametrize("positive", [12, 108])
def test_one_positive_48_slices_away_and_negatives_within_8_slices(negative, positive):
    codes, valid = sparse_case((0, 60), (0, positive), (1, negative))
    anchor, other, pushed = codes[0, 0, 60], codes[0, 0, positive], codes[0, 1, negative]
    expected = math.log1p(h(anchor, pushed) / h(anchor, other))
    assert spatial_contrastive_loss(codes, valid).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("positive", "negative"), [(107, 61), (109, 61), (108, 60), (108, 51), (108, 69)])
def test_other_distances_are_no_pairs(positive, negative):
    codes, valid = sparse_case((0, 60), (0, positive), (1, negative))
    assert spatial_contrastive_loss(codes, valid).item() == 0


def test_the_later_slice_is_preferred():
    codes, valid = sparse_case((0, 60), (0, 12), (0, 108), (1, 61))
    expected = math.log1p(h(codes[0, 0, 60], codes[0, 1, 61]) / h(codes[0, 0, 60], codes[0, 0, 108]))
    assert spatial_contrastive_loss(codes, valid).item() == pytest.approx(expected, abs=1e-9)


def test_unknown_sampling_is_refused():
    codes = torch.ones(1, 2, 2, 4)
    with pytest.raises(ValueError, match="all_pairs"):
        spatial_contrastive_loss(codes, everything(codes), sampling="random")


# --- missing modalities, air, zero codes ---


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("n_slices", [1, 6])
@pytest.mark.parametrize("junk", [1e3, float("nan")])
def test_absent_modality_and_constant_slice_take_no_part(generator, loss, sampling, n_slices, junk):
    codes = random_codes(generator, 3, 4, n_slices, 8)
    valid = everything(codes)
    valid[0, 1] = False
    valid[1, :, 0] = False
    expected = loss(codes, valid, sampling=sampling)
    perturbed = torch.where(valid[..., None], codes, codes + junk).requires_grad_()
    value = loss(perturbed, valid, sampling=sampling)
    value.backward()
    assert expected.item() > 0
    assert value.item() == expected.item()
    assert perturbed.grad[~valid].eq(0).all()
    assert perturbed.grad[valid].ne(0).any(-1).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("available", [[0, 0, 0], [0, 1, 0]])
def test_without_negatives_loss_and_gradient_are_zero(generator, loss, sampling, available):
    codes = random_codes(generator, 2, 3, 5, 8, dtype=torch.float32).requires_grad_()
    value = loss(codes, torch.tensor(available).bool()[None, :, None].expand(2, 3, 5), sampling=sampling)
    value.backward()
    assert value.item() == 0
    assert codes.grad.eq(0).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_case_with_one_modality_does_not_dilute_the_others(generator, sampling):
    codes = random_codes(generator, 2, 3, 5, 8)
    valid = everything(codes)
    valid[0, 1:] = False
    alone = spatial_contrastive_loss(codes[1:], valid[1:], sampling=sampling)
    torch.testing.assert_close(spatial_contrastive_loss(codes, valid, sampling=sampling), alone)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_zero_code_has_a_finite_bounded_gradient(generator, loss, sampling, dtype):
    codes = random_codes(generator, 1, 4, 8, 8, dtype=torch.float32)
    codes[0, 1, 3] = 0
    codes = codes.to(dtype).requires_grad_()
    value = loss(codes, everything(codes), sampling=sampling)
    value.backward()
    assert value.isfinite()
    assert codes.grad.isfinite().all()
    assert codes.grad.float().norm(dim=-1).max() < 1e3
    if loss is spatial_contrastive_loss:
        assert codes.grad[0, 1, 3].ne(0).any()  # a valid zero code can still leave zero


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_change_nothing(generator, loss, sampling, dtype):
    codes = (300 * random_codes(generator, 2, 3, 6, 8, dtype=torch.float32)).to(dtype).requires_grad_()
    valid = everything(codes)
    valid[0, 1, 2] = False  # a constant slice
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(codes, valid, sampling=sampling)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(codes.detach().float(), valid, sampling=sampling).item()
    assert codes.grad.isfinite().all()


# --- spectrum, Eq. (2) and (3) ---


@pytest.mark.parametrize("n_codes", [1, 7, 8])
def test_spectrum_equals_the_dft_sum(generator, n_codes):
    codes = random_codes(generator, 2, 3, n_codes)
    expected = torch.stack([dft_amplitudes(code) for code in codes.flatten(0, 1)]).view(codes.shape)
    torch.testing.assert_close(amplitude_spectrum(codes), expected)
    torch.testing.assert_close(amplitude_spectrum(codes, drop_dc=True), expected[..., 1:])


def test_spectrum_obeys_parseval(generator):
    codes = random_codes(generator, 4, 9)
    energy = amplitude_spectrum(codes).square().sum(-1)
    torch.testing.assert_close(energy, 9 * codes.square().sum(-1))


def test_spectrum_ignores_circular_shifts(generator):
    codes = random_codes(generator, 4, 8)
    torch.testing.assert_close(amplitude_spectrum(codes.roll(3, -1)), amplitude_spectrum(codes))


def test_spectrum_has_gradient_zero_at_zero():
    codes = torch.zeros(2, 8, requires_grad=True)
    amplitude_spectrum(codes).sum().backward()
    assert codes.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_spectrum_of_half_precision_codes(generator, dtype):
    codes = random_codes(generator, 3, 6, dtype=torch.float32).to(dtype)
    assert torch.equal(amplitude_spectrum(codes), amplitude_spectrum(codes.float()))


def test_dropping_frequency_0_ignores_a_constant_offset(generator):
    codes = random_codes(generator, 1, 3, 5, 8)
    valid = everything(codes)
    without = frequency_contrastive_loss(codes, valid, drop_dc=True)
    torch.testing.assert_close(frequency_contrastive_loss(codes + 2, valid, drop_dc=True), without)
    assert (frequency_contrastive_loss(codes, valid) - without).abs() > 1e-3


# --- gradients ---


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("n_slices", [1, 4])
def test_gradcheck(generator, loss, sampling, n_slices):
    codes = random_codes(generator, 2, 3, n_slices, 4).requires_grad_()
    valid = everything(codes)
    valid[0, 0] = False
    assert torch.autograd.gradcheck(lambda c: loss(c, valid, sampling=sampling), codes)


def test_gradcheck_of_the_spectrum(generator):
    assert torch.autograd.gradcheck(amplitude_spectrum, random_codes(generator, 2, 5).requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_reaches_the_modality_encoder(generator, loss):
    encoder = nn.Linear(16, 8, bias=False)
    images = random_codes(generator, 1, 3, 6, 16, dtype=torch.float32)
    loss(encoder(images), torch.ones(1, 3, 6, dtype=torch.bool)).backward()
    assert encoder.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_slices_are_counted_on_the_device_of_the_codes(sampling, monkeypatch):
    """Counted elsewhere, they would have to be copied in every step."""
    devices, arange = [], torch.arange

    def note(*args, **kwargs):
        devices.append(torch.device(kwargs.get("device") or "cpu").type)
        return arange(*args, **kwargs)

    monkeypatch.setattr(torch, "arange", note)
    codes = torch.ones(2, 3, 5, 4, device="meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such tensors
    spatial_contrastive_loss(codes, codes[..., 0] > 0, sampling=sampling)
    assert devices
    assert set(devices) == {"meta"}


def test_a_slice_is_no_positive_of_its_own(generator):
    """Where there are two slices, the other one is the only positive, however many are asked for."""
    codes, valid = torch.randn(2, 3, 2, 5, generator=generator), torch.ones(2, 3, 2, dtype=torch.bool)
    one, many = (spatial_contrastive_loss(codes, valid, n_positives=n) for n in (1, 8))
    assert torch.equal(one, many)
