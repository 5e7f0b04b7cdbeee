import pytest
import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn

from nnunetv2_d2net.method.network.md_stage import AbsentCodes, ModalityEncoder, ModalityProjection, informative_slices


@pytest.mark.parametrize("independent", [False, True])
def test_each_code_comes_from_its_own_modality_and_slice(independent):
    encoder = ModalityEncoder(3, 8, independent=independent)
    images = torch.randn(2, 3, 5, 16, 16)
    codes = encoder(images)
    assert codes.shape == (2, 3, 5, 8)
    changed = images.clone()
    changed[1, 2, 3] += 1
    moved = (encoder(changed) - codes).abs().sum(-1)
    assert moved[1, 2, 3] > 1e-4
    moved[1, 2, 3] = 0
    torch.testing.assert_close(moved, torch.zeros_like(moved), rtol=0, atol=1e-5)


def test_an_image_is_one_slice():
    assert ModalityEncoder(3, 8)(torch.randn(2, 3, 16, 16)).shape == (2, 3, 1, 8)


def test_shared_weights_give_the_same_code_for_the_same_image():
    image = torch.randn(1, 1, 4, 16, 16).expand(1, 3, 4, 16, 16)
    shared, independent = ModalityEncoder(3, 8)(image), ModalityEncoder(3, 8, independent=True)(image)
    torch.testing.assert_close(shared[:, 0], shared[:, 1])
    assert not torch.allclose(independent[:, 0], independent[:, 1])


def test_the_code_knows_intensity_statistics():
    image = torch.randn(1, 1, 1, 32, 32)
    encoder = ModalityEncoder(2, 8).apply(InitWeights_He())
    codes = encoder(torch.cat((image, 3 * image), 1))
    assert codes[0, 1].norm() > 2 * codes[0, 0].norm()  # a normalization layer would make both codes alike


def test_no_layer_normalizes_unless_asked_for():
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    assert not any(isinstance(m, norms) for m in ModalityEncoder(2).modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in ModalityEncoder(2, norm_op=nn.BatchNorm2d).modules())


def test_last_layer_has_no_bias():
    assert ModalityEncoder(2).linear.bias is None


def test_projection_is_linear_and_per_slice():
    projection = ModalityProjection(4, 3).double()
    a, b = (torch.randn(2, 4, 5, 8, dtype=torch.float64) for _ in range(2))
    zero = projection(torch.zeros_like(a))
    torch.testing.assert_close(projection(a + 2 * b) - zero, projection(a) - zero + 2 * (projection(b) - zero))
    changed = a.clone()
    changed[:, :, 2] += 1
    assert ((projection(changed) - projection(a)).abs().sum((0, 1, 3)) > 1e-9).tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_informative_slices_are_available_and_not_constant():
    images = torch.randn(1, 2, 4, 8, 8)
    images[0, 0, 1] = 0
    images[0, 1, 2] = 5
    marked = informative_slices(images, torch.tensor([[True, True]]))
    assert marked.tolist() == [[[True, False, True, True], [True, True, False, True]]]
    assert not informative_slices(images, torch.tensor([[True, False]]))[0, 1].any()


def test_absent_codes_are_embeddings_of_their_modality():
    absent = AbsentCodes(2, 8)
    codes = torch.full((2, 2, 3, 8), torch.nan)
    codes[0, 0] = 1.0
    filled = absent(codes, torch.tensor([[True, False], [False, False]]))
    assert (filled[0, 0] == 1).all()
    torch.testing.assert_close(filled[0, 1], absent.embedding[1].expand(3, 8))
    torch.testing.assert_close(filled[1], absent.embedding[:, None].expand(2, 3, 8))
    assert absent(codes.half(), torch.tensor([[True, False]] * 2)).dtype == torch.half, "the codes' own"
