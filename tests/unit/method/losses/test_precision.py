import pytest
import torch

from nnunetv2_d2net.method.losses.precision import in_float32


@in_float32
def types(*tensors, more=None, words="as they are"):
    """Say what arrives."""
    product = torch.ones(2, 2) @ torch.ones(2, 2)  # in the type of autocast, if that is on
    return [tensor.dtype if isinstance(tensor, torch.Tensor) else tensor for tensor in (*tensors, product, words)], more


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_halves_are_widened_wherever_they_stand_and_autocast_is_off(half):
    tensors = [torch.ones(1, dtype=dtype) for dtype in (half, torch.float32, torch.float64, torch.int16)]
    wide = [torch.float32, torch.float32, torch.float64, torch.int16]
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        found, more = types(*tensors, more=[tensors[0], [tensors[0]], None])
    assert found == [*wide, torch.float32, "as they are"]
    assert (more[0].dtype, more[1][0].dtype, more[2]) == (torch.float32, torch.float32, None)


def test_the_first_argument_says_on_which_device():
    asked = []

    class Elsewhere:
        def __init__(self, device_type, **_):
            asked.append(device_type)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", Elsewhere)
        types(torch.ones(1, device="meta"))
        types([torch.ones(1, device="meta")], torch.ones(1))
    assert asked == ["meta", "meta"]
