import pytest
import torch
import torch.nn.functional as F

from nnunetv2_d2net.method.network.blocks import SqueezeExcite, adaptive_instance_norm, scale_and_shift


@pytest.fixture
def features():
    return torch.randn(3, 4, 6, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_adain_gives_the_statistics_that_are_asked_for(features):
    gamma, beta = torch.randn(3, 4, dtype=torch.float64).abs(), torch.randn(3, 4, dtype=torch.float64)
    out = adaptive_instance_norm(features, gamma, beta).flatten(2)
    torch.testing.assert_close(out.mean(-1), beta)
    torch.testing.assert_close(out.std(-1, unbiased=False), 1 + gamma, rtol=1e-4, atol=0)


def test_adain_forgets_scale_and_shift_of_its_input(features):
    gamma, beta = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    moved = features * 30 + torch.arange(4, dtype=torch.float64)[:, None, None, None]
    once, again = (adaptive_instance_norm(x, gamma, beta) for x in (features, moved))
    torch.testing.assert_close(once, again, rtol=1e-4, atol=1e-4)


def test_adain_is_per_sample(features):
    gamma, beta = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    batch = adaptive_instance_norm(features, gamma, beta)
    alone = [adaptive_instance_norm(features[i : i + 1], gamma[i : i + 1], beta[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(batch, torch.cat(alone))


def test_adain_gradcheck():
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    gamma, beta = (torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(adaptive_instance_norm, (x, gamma, beta))


@pytest.mark.parametrize(
    ("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_scale_and_mean_are_no_half_precision_numbers(dtype, wide, features, monkeypatch):
    seen, batch_norm = [], F.batch_norm

    def note(stacked, mean, variance, weight, bias, **options):
        seen.append((stacked.dtype, weight.dtype, bias.dtype))
        return batch_norm(stacked, mean, variance, weight, bias, **options)

    monkeypatch.setattr(F, "batch_norm", note)
    gamma, beta = (torch.full((3, 4), 0.1, dtype=dtype) for _ in range(2))
    assert adaptive_instance_norm(features.to(dtype), gamma, beta).dtype == dtype
    assert seen == [(dtype, wide, wide)]


@pytest.mark.parametrize("shape", [(2, 16, 5, 6), (2, 16, 4, 5, 6)])
def test_squeeze_excite_weighs_whole_channels(shape):
    block = SqueezeExcite(16)
    x = torch.rand(shape) + 0.5
    ratio = (block(x) / x).flatten(2)
    torch.testing.assert_close(ratio.amin(-1), ratio.amax(-1))  # one weight per channel, over all spatial axes
    assert ((ratio > 0) & (ratio < 1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_modulated_features_keep_their_type(dtype, features):
    parameters = torch.randn(3, 8)
    found = scale_and_shift(features.to(dtype), parameters)
    assert found.dtype == dtype
    gamma, beta = (p[..., None, None, None].double() for p in (parameters[:, :4], parameters[:, 4:]))
    torch.testing.assert_close(found.double(), (1 + gamma) * features + beta, rtol=0.05, atol=0.05)
