"""A CUDA device that is not there: its tensors have shape, type and place, and no data; those of the host are real.

Operations on the device's tensors run by torch's fake tensors, which refuse to mix devices. What would make the host
wait for the device is written down with the place in the code that asked, and answered with zeros.
"""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
NUMBER, TO_HOST, TO_DEVICE, SHAPE, INDEX = "a number", "to the host", "to the device", "a shape", "an index of the host"
"""Why the host waits: it reads one value; copies; copies without ``non_blocking``; needs a shape that data decide; or
indexes with a tensor of its own, or a list, which is copied first."""

SHAPED_BY_DATA = {
    aten.masked_select.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
LOOKED_AT = {aten.equal.default, aten.multinomial.default}
"""Operations that look at a result before they go on."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WITHIN = ("nnunetv2_d2net", "nnunetv2", "dynamic_network_architectures", "amp", "tests")
"""Folders of the code that is named as having asked."""


class PretendedCuda(TorchDispatchMode):
    """While it is entered, ``cuda`` is a device like any other.

    Attributes:
        waits: How often the host waited for the device: by file, function and reason.
        content: Makes what is copied to the host and has not come from there, of a shape and type.
    """

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode()
        self.in_backward = False
        self.content: Callable[[torch.Size, torch.dtype], Tensor] = lambda shape, dtype: torch.zeros(shape, dtype=dtype)
        self.waits: Counter[tuple[str, str, str]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default and self.in_backward:
            return torch.device("meta")  # autograd asks, and has no stream to wait for there
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = kwargs.get("device")
        to_device = device is not None and torch.device(device).type == "cuda"
        if not to_device and not any(map(on_device, tensors)):
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self._wait(NUMBER)
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and device is not None and not to_device:
            self._wait(TO_HOST)
            known = getattr(args[0], "came_from", None)
            return self.content(args[0].shape, kwargs.get("dtype") or args[0].dtype) if known is None else known.clone()
        if func is aten.copy_.default and not on_device(args[0]):
            self._wait(TO_HOST)
            return args[0]
        self._note(func, args, kwargs)
        source = args[0] if func is aten._to_copy.default and not on_device(args[0]) else None
        args, kwargs = tree_map(self._known, (self._with_shape(func, args), kwargs))
        with self.fake:
            if func is aten.nonzero.default:
                return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.long, device=args[0].device)
            result = func(*args, **kwargs)
        if source is not None and source.dtype == result.dtype:
            result.came_from = source
        return result

    def _note(self, func, args, kwargs):
        """Write down whether an operation that stays on the device waits for it all the same."""
        blocks = not (kwargs.get("non_blocking") or (func is aten.copy_.default and True in args[2:]))
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[-1] if func is aten._to_copy.default else args[1]
            if blocks and not on_device(source):
                self._wait(TO_DEVICE)
        elif func in INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(not on_device(index) for index in indices):
                self._wait(INDEX)
            if any(on_device(index) and index.dtype == torch.bool for index in indices):
                self._wait(SHAPE)
        elif func in SHAPED_BY_DATA or func is aten.nonzero.default:
            self._wait(SHAPE)
        elif func in LOOKED_AT:
            self._wait(NUMBER)

    def _with_shape(self, func, args):
        """Let a mask among the indices hold everywhere: the shape then needs no data."""
        if func not in INDEXING:
            return args
        with self.fake:
            indices = []
            for index in args[1]:
                is_mask = index is not None and index.dtype == torch.bool
                whole = torch.empty(index.numel(), dtype=torch.long, device=index.device) if is_mask else None
                indices += [whole] * index.ndim if is_mask else [index]
        return (args[0], indices, *args[2:])

    def _known(self, leaf):
        """Give a tensor of the host its place among the fake ones."""
        if not isinstance(leaf, Tensor) or on_device(leaf):
            return leaf
        with self.fake:
            return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype)

    def _wait(self, reason):
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            function = frame.f_code.co_name
            if path != Path(__file__) and not function.startswith("<") and not {*path.parts}.isdisjoint(WITHIN):
                self.waits[path.name, function, reason] += 1
                return
            frame = frame.f_back
        self.waits["elsewhere", "", reason] += 1


def on_device(tensor: Tensor) -> bool:
    """Tell whether a tensor is one of the device's, which have no data."""
    return isinstance(tensor, FakeTensor)


@contextmanager
def pretended_cuda():
    """Enter the device; what torch asks a driver elsewhere is answered, too."""
    state = torch.zeros(16, dtype=torch.uint8)
    save, load = torch.save, torch.load

    def to_host(leaf):
        return torch.zeros(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, Tensor) and on_device(leaf) else leaf

    def loaded(file, map_location=None, **kwargs):
        content = load(file, map_location="cpu", **kwargs)
        is_cuda = map_location is not None and torch.device(map_location).type == "cuda"
        move = lambda leaf: leaf.to(map_location) if is_cuda and isinstance(leaf, Tensor) else leaf  # noqa: E731
        return tree_map(move, content)

    run_backward = torch.autograd._engine_run_backward

    def backward(*args, **kwargs):
        mode.in_backward = True
        try:
            return run_backward(*args, **kwargs)
        finally:
            mode.in_backward = False

    hold = torch.autograd.graph.saved_tensors_hooks.__init__

    def holding(hooks, pack, unpack):
        def unpacked(packed):  # which may compute again what was not kept, as any forward pass does
            mode.in_backward, before = False, mode.in_backward
            try:
                return unpack(packed)
            finally:
                mode.in_backward = before

        hold(hooks, pack, unpacked)

    swap = torch.utils.swap_tensors

    def swapped(old, new):
        if not (on_device(old) and on_device(new)):  # a module that is held by two is moved once
            swap(old, new)

    lifts_cpu_only = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch, PretendedCuda() as mode:
        patch.setattr(torch.utils, "swap_tensors", swapped)
        patch.setattr(torch.autograd, "_engine_run_backward", backward)
        patch.setattr(torch.autograd.graph.saved_tensors_hooks, "__init__", holding)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.cuda, "get_rng_state", lambda *_: state.clone())
        patch.setattr(torch.cuda, "set_rng_state", lambda new, *_: state.copy_(new))
        patch.setattr(torch, "save", lambda content, file: save(tree_map(to_host, content), file))
        patch.setattr(torch, "load", loaded)
        torch._C._ensureCUDADeviceGuardSet()  # as the mode of fake tensors does, and so the next line
        torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003
        try:
            with torch.autograd.set_multithreading_enabled(False):  # the device has no thread of its own
                yield mode
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts_cpu_only)


def without_streams():
    """Let autograd not ask for the device's streams, which a build with CUDA does where there is no driver, too.

    Autograd asks the accelerator for them. Another one takes its place, for the rest of this process.
    """
    torch.utils.rename_privateuse1_backend("nothing")
    torch._register_device_module("nothing", SimpleNamespace(is_available=lambda: False))
