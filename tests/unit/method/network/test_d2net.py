import math

import pytest
import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.method.network.blocks import feature_map_sizes
from nnunetv2_d2net.method.network.d2net import (
    TRAINING_BRANCHES,
    D2Net,
    D2NetOptions,
    count_parameters,
    inference_weights,
)
from nnunetv2_d2net.method.network.outputs import D2NetOutputs
from tests.unit.method.network.conftest import OPTIONS

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def tensors_of(outputs: D2NetOutputs):
    for value in outputs:
        yield from (value if isinstance(value, list) else [value] if isinstance(value, torch.Tensor) else [])


@pytest.mark.parametrize("n_modalities", [2, 3, 5])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_shapes(strides, n_modalities, residual, make_d2net, make_images):
    network = make_d2net(strides, n_modalities, 4, residual=residual)
    images = make_images(strides, n_modalities)
    size = images.shape[2:]
    outputs = network(images, torch.ones(2, n_modalities, dtype=torch.bool))
    half = tuple(n // s for n, s in zip(size, strides[1], strict=True))
    n_slices = size[0] if len(size) == 3 else 1
    assert [tuple(x.shape) for x in outputs.student_logits] == [(2, 4, *size), (2, 4, *half)]
    assert [tuple(x.shape) for x in outputs.teacher_logits] == [(2, 4, *half)]
    for bank in (outputs.student_features, outputs.teacher_features):
        assert [tuple(x.shape[2:]) for x in bank] == [half]
    assert outputs.modality_codes.shape == (2, n_modalities, n_slices, 8)
    assert outputs.informative_slices.shape == (2, n_modalities, n_slices)
    assert outputs.reconstructions.shape == (2, n_modalities, *half)


@pytest.mark.parametrize(("level", "first"), [(0, 0), (1, 1), (7, 1)])
def test_the_teacher_stops_at_its_finest_level(level, first, strides, make_d2net, make_images):
    network = make_d2net(strides, options=D2NetOptions(teacher_level=level))
    outputs = network(make_images(strides))
    assert outputs.first_teacher_level == first
    student = [x.shape for x in outputs.student_logits[first:]]
    assert [x.shape for x in outputs.teacher_logits] == student
    assert len(outputs.teacher_features) == len(outputs.student_features) == 1


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_without_the_training_branches_segment_alike(options, make_d2net, make_images):
    original, exported = make_d2net(options=options).eval(), make_d2net(options=options).eval()
    images, available = make_images(), torch.tensor([[True, False, True, True], [False, True, True, False]])
    weights = inference_weights(original.state_dict())
    assert 0 < len(weights) < len(original.state_dict())
    exported.load_state_dict(weights)
    assert torch.equal(exported(images, available)[0], original(images, available)[0])
    assert exported.state_dict().keys() == weights.keys()
    with pytest.raises(RuntimeError, match="exported for prediction"):
        exported.train()(images, available)


def test_weights_that_lack_anything_else_are_refused(make_d2net):
    weights = inference_weights(make_d2net().state_dict())
    weights.pop(next(name for name in weights if name.startswith("decoder.")))
    network = make_d2net()
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict(weights)
    assert network.teacher is not None, "a failed load changes nothing about the network's parts"


def test_codes_of_complete_images_serve_every_subset(make_d2net, make_images):
    network = make_d2net().eval()
    images = make_images(n_cases=1)
    codes = network.modality_encoder(images).expand(15, -1, -1, -1)
    images, subsets = images.expand(15, -1, -1, -1, -1), modality_subsets(4)
    torch.testing.assert_close(network(images, subsets, codes)[0], network(images, subsets)[0])
    assert not torch.allclose(network(images, subsets, codes + 1)[0], network(images, subsets)[0])


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_encoder_modulation_starts_as_the_identity_and_then_tells_masks_apart(residual, make_d2net, make_images):
    plain = make_d2net(residual=residual).eval()
    modulated = make_d2net(residual=residual, options=D2NetOptions(modulate_encoder=True)).eval()
    modulated.load_state_dict(plain.state_dict() | {n: p for n, p in modulated.state_dict().items() if "linears" in n})
    images, complete = make_images(), torch.ones(2, 4, dtype=torch.bool)
    images[:, 0] = 0
    torch.testing.assert_close(modulated(images, complete)[0], plain(images, complete)[0])
    loss = modulated.encode(images, complete).skips[-1].square().sum()
    gradients = torch.autograd.grad(loss, list(modulated.availability_modulation.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)
    for parameter in modulated.availability_modulation.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    partial = complete.clone()
    partial[:, 0] = False
    skips = [modulated.encode(images, mask).skips for mask in (complete, partial)]
    assert all(not torch.allclose(a, b) for a, b in zip(*skips, strict=True))


def test_evaluation_returns_what_the_unet_would(strides, make_d2net, make_images):
    network = make_d2net(strides).eval()
    images = make_images(strides)
    levels = network(images)
    network.decoder.deep_supervision = False
    logits = network(images)
    assert [x.shape[1] for x in levels] == [3, 3]
    torch.testing.assert_close(logits, levels[0])
    assert logits.shape == (2, 3, *images.shape[2:])


def test_training_and_evaluation_segment_alike(strides, make_d2net, make_images):
    network = make_d2net(strides)
    images = make_images(strides)
    trained = network.train()(images).student_logits
    evaluated = network.eval()(images)
    for a, b in zip(trained, evaluated, strict=True):
        torch.testing.assert_close(a, b)


def test_teacher_and_image_decoder_do_not_run_in_evaluation(make_d2net, make_images):
    network = make_d2net().eval()

    def refuse(*_):
        raise AssertionError("ran in evaluation")

    for module in (network.teacher, network.image_decoder, network.feature_banks):
        module.register_forward_hook(refuse)
    network(make_images())
    with pytest.raises(AssertionError, match="ran in evaluation"):
        network.train()(make_images())


def test_one_state_dict_with_and_without_deep_supervision(make_d2net):
    with_levels, without = make_d2net(), make_d2net(deep_supervision=False)
    assert without.load_state_dict(with_levels.state_dict())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("training", [True, False])
def test_absent_voxels_have_no_influence(options, residual, training, strides, make_d2net, make_images):
    network = make_d2net(strides, options=options, residual=residual).train(training)
    images = make_images(strides)
    available = torch.tensor([[True, False, True, False], [False, True, False, True]])
    garbage = images.masked_fill(~available.reshape(2, 4, *[1] * (images.ndim - 2)), torch.nan)
    once, again = network(images, available), network(garbage, available)
    pairs = zip(*(tensors_of(x) if training else x for x in (once, again)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_every_subset_is_finite_and_differs(make_d2net, make_images):
    network = make_d2net().eval()
    subsets = modality_subsets(4)
    logits = network(make_images(n_cases=1).expand(15, -1, -1, -1, -1), subsets)[0]
    assert torch.isfinite(logits).all()
    assert torch.pdist(logits.flatten(1)).min() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_subset_is_finite_in_half_precision(dtype, make_d2net, make_images):
    network = make_d2net()
    with torch.autocast("cpu", dtype):
        outputs = network(make_images(n_cases=1).expand(15, -1, -1, -1, -1), modality_subsets(4))
    assert all(torch.isfinite(x.float()).all() for x in tensors_of(outputs))


@pytest.mark.parametrize("options", [o for n, o in OPTIONS.items() if n != "batchnorm"])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_a_batch_is_a_loop_over_cases(options, residual, strides, make_d2net, make_images):
    network = make_d2net(strides, options=options, residual=residual)
    images = make_images(strides, n_cases=3)
    available = torch.tensor([[True, True, True, True], [False, True, False, True], [False, False, True, False]])
    batch = network(images, available)
    alone = [network(images[i : i + 1], available[i : i + 1]) for i in range(3)]
    for whole, parts in zip(tensors_of(batch), zip(*map(tensors_of, alone), strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-4)


def test_the_mask_tells_a_missing_modality_from_a_flat_one(make_d2net, make_images):
    network = make_d2net().eval()
    images = make_images()
    images[:, 1] = 0
    said = network(images, torch.ones(2, 4, dtype=torch.bool))[0]
    guessed = network(images)[0]
    assert not torch.allclose(said, guessed)


def test_nan_marks_a_missing_modality_and_none_else(make_d2net, make_images):
    network = make_d2net().eval()
    images = make_images()
    images[0, 1], images[1, 3] = 0, 0
    available = torch.tensor([[True, True, False, True], [True, True, True, True]])
    marked = images.clone()
    marked[0, 2] = torch.nan
    expected = network(images[:1], available[:1])[0]
    assert torch.equal(network(marked[:1])[0], expected), "the channel of zeros is there, it says"
    guessed = available[1:] & torch.tensor([True, True, True, False])
    assert torch.equal(network(marked[1:])[0], network(images[1:], guessed)[0])


def test_a_tile_of_air_is_finite(make_d2net, make_images):
    network = make_d2net()
    outputs = network(torch.zeros_like(make_images()))
    assert all(torch.isfinite(x.float()).all() for x in tensors_of(outputs))
    assert not outputs.informative_slices.any()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(training, recompute, make_d2net, make_images):
    network = make_d2net(options=D2NetOptions(recompute_branches=recompute)).train(training)
    images, available = make_images(), torch.tensor([[True, False, True, False], [True, True, True, True]])
    expected = network(images, available)
    compiled = torch.compile(network, backend="eager", fullgraph=True)(images, available)
    flat = tensors_of if training else iter
    for a, b in zip(flat(expected), flat(compiled), strict=True):
        torch.testing.assert_close(a, b)


def test_tumor_codes_are_the_mean_of_what_each_slice_says(strides, make_d2net, make_images):
    network = make_d2net(strides)
    content = network.encode(make_images(strides), torch.tensor([[True, False, True, True], [True, True, True, True]]))
    each_slice = network.modality_projection(content.modality_codes)
    assert each_slice.shape[2] == 1 or each_slice.std(2).min() > 0
    torch.testing.assert_close(content.tumor_codes, each_slice.mean(2))


def test_recomputed_branches_change_memory_alone(strides, make_d2net, make_images):
    """The same outputs and gradients from fewer feature maps that autograd keeps."""
    results = {}
    for recompute in (False, True):
        network = make_d2net(strides, options=D2NetOptions(recompute_branches=recompute))
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = network(make_images(strides))
        n_bytes = sum(n for n, _ in kept.values())
        sum(x.float().square().mean() for x in tensors_of(outputs)).backward()
        results[recompute] = n_bytes, list(tensors_of(outputs)), [p.grad for p in network.parameters()]
    (most, *expected), (fewer, *found) = results[False], results[True]
    torch.testing.assert_close(found, expected)
    assert fewer < 0.9 * most


def test_recomputing_restores_no_random_state(make_d2net, make_images, monkeypatch):
    """Nothing is drawn in the branches, and to read the state would wait for the device."""
    asked = []

    def note(branch, *inputs, **options):
        asked.append(options)
        return branch(*inputs)

    monkeypatch.setattr("nnunetv2_d2net.method.network.d2net.checkpoint", note)
    make_d2net(options=D2NetOptions(recompute_branches=True))(make_images())
    assert asked == [{"use_reentrant": False, "preserve_rng_state": False}] * 2


def test_planner_counts_more_than_the_unet(make_d2net, make_unet):
    unet = make_unet(deep_supervision=False)
    count = make_d2net(deep_supervision=False).compute_conv_feature_map_size((16, 20, 16))
    assert count > unet.compute_conv_feature_map_size((16, 20, 16))


def test_planner_counts_what_autograd_keeps(strides, make_d2net, make_images):
    """nnU-Net's count is about half of what autograd saves for a U-Net; the same must hold for D2-Net."""
    network = make_d2net(strides, features=(32, 64, 128))
    images = make_images(strides, n_cases=1)
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(images, torch.ones(1, 4, dtype=torch.bool))
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    elements = sum(size for pointer, (size, _) in saved.items() if pointer not in weights) / 4
    assert outputs is not None
    assert 1.7 < elements / network.compute_conv_feature_map_size(images.shape[2:]) < 2.3


def maps_of(module, kinds):
    """Note the sizes of what all layers of these kinds return, from now on."""
    sizes = []
    for layer in module.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(lambda _m, _i, output: sizes.append(output.numel()))
    return sizes


@pytest.mark.parametrize(("level", "n_convs"), [(0, 1), (1, 1), (0, 3), (1, 2)])
def test_planner_counts_the_maps_of_every_convolution(level, n_convs, strides, make_d2net, make_images):
    """Of one case; those of a reduction are counted once for each target, or not at all."""
    options = D2NetOptions(teacher_level=level, reconstruction_level=level, classifier_convs=n_convs)
    network = make_d2net(strides, options=options)
    images = make_images(strides, n_cases=1)
    size = images.shape[2:]
    sizes = feature_map_sizes(network.encoder, size)
    assert all(isinstance(n, int) for of_stage in sizes for n in of_stage)
    assert [tuple(s) for s in sizes] == [tuple(x.shape[2:]) for x in network.encoder(images)]
    parts = {
        "modality_encoder": (nn.Conv2d, lambda part: part.compute_conv_feature_map_size(size, 4)),
        "image_decoder": (CONVOLUTIONS, lambda part: part.compute_conv_feature_map_size(sizes, 4)),
        "teacher": (CONVOLUTIONS, lambda part: part.compute_conv_feature_map_size(sizes)),
        "feature_banks": (CONVOLUTIONS, lambda part: part.compute_conv_feature_map_size(sizes)),
    }
    found = {name: maps_of(getattr(network, name), kinds) for name, (kinds, _) in parts.items()}
    reduced = maps_of(network.image_decoder.reduce, CONVOLUTIONS)
    own = [maps_of(network.content_reconstruction.convs, CONVOLUTIONS), maps_of(network.fusion, CONVOLUTIONS)]
    before = [
        maps_of(head[:-1], CONVOLUTIONS) for head in network.decoder.seg_layers if isinstance(head, nn.Sequential)
    ]
    network(images)
    counts = {name: count(getattr(network, name)) for name, (_, count) in parts.items()}
    expected = {name: sum(found[name]) for name in parts}
    expected["image_decoder"] -= sum(reduced)
    assert counts == expected
    bottleneck = math.prod(sizes[-1])
    rest = (
        2 * sum(own[0]) + network.content_reconstruction.width * 3 * bottleneck + sum(own[1])
    )  # AdaIN keeps maps, too
    rest += sum(map(sum, before))  # of nnU-Net's heads only the last convolution is in its count
    stock = sum(part.compute_conv_feature_map_size(size) for part in (network.encoder, network.decoder))
    total = network.compute_conv_feature_map_size(size)
    assert total == stock + sum(counts.values()) + rest
    assert isinstance(total, int)


@pytest.mark.parametrize("name", TRAINING_BRANCHES)
def test_each_of_the_training_branches_is_needed(name, make_d2net, make_images):
    network = make_d2net()
    setattr(network, name, None)
    with pytest.raises(RuntimeError, match="train with the original"):
        network(make_images())
    with pytest.raises(RuntimeError, match="cannot be planned"):
        network.compute_conv_feature_map_size((16, 20, 16))
    network.eval()(make_images())


def test_parameters_are_counted_that_are_learned():
    module = nn.Linear(3, 2)
    assert count_parameters(module) == 8
    module.bias.requires_grad_(requires_grad=False)
    assert count_parameters(module) == 6


def test_refuses_one_modality(make_unet):
    with pytest.raises(ValueError, match="at least 2 modalities, this data set has 1"):
        D2Net(make_unet(n_modalities=1), 1)


def test_refuses_an_unknown_network():
    with pytest.raises(ValueError, match="the plans describe Sequential"):
        D2Net(nn.Sequential(), 4)


def test_refuses_a_unet_whose_decoder_is_another(make_unet):
    class OtherDecoder(UNetDecoder):
        pass

    unet = make_unet()
    unet.decoder = OtherDecoder(unet.encoder, 3, 1, deep_supervision=True)
    with pytest.raises(ValueError, match="the plans describe PlainConvUNet"):
        D2Net(unet, 4)
