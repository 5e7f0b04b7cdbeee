"""Auxiliary losses run in float32, whatever autocast and the network's dtype are."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Make a loss compute in float32 with autocast off.

    Half-precision tensors among the arguments, and inside lists among them, are widened; float32 and float64 stay.

    Args:
        loss: A function whose first argument is a tensor or a list of tensors; autocast is off on that one's device.

    Returns:
        The same function in float32.
    """

    @functools.wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return _call(loss, args, kwargs)

    return wrapper


def _call(loss: Callable[..., R], args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
    first = args[0]
    device_type = (first if isinstance(first, Tensor) else first[0]).device.type
    with torch.autocast(device_type, enabled=False):
        return loss(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})


def _widen(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_widen(item) for item in value]
    is_half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if is_half else value
