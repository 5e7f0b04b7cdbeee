"""Label maps as runs of equal labels, deflated: a few kilobytes each, which a browser inflates by itself."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CONTINUES = 0x80


def encode_runs(labels: NDArray[np.generic], n_labels: int) -> bytes:
    """Write each run as ``length * n_labels + label``, in groups of 7 bits, the low ones first.

    Args:
        labels: In [0, n_labels), any shape; runs go through it in C order.
        n_labels: How many labels there are.

    Example:
        >>> encode_runs(np.array([0, 0, 0, 1]), 2).hex()
        '0603'
    """
    flat = labels.reshape(-1)
    if not flat.size:
        return b""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    out = bytearray()
    for number in (lengths * n_labels + flat[starts].astype(np.int64)).tolist():
        while number >= _CONTINUES:
            out.append(number % _CONTINUES | _CONTINUES)
            number //= _CONTINUES  # noqa: PLW2901
        out.append(number)
    return bytes(out)


def decode_runs(encoded: bytes, n_labels: int) -> NDArray[np.uint8]:
    """Undo :func:`encode_runs`, as the page does it.

    Returns:
        The labels in one row.
    """
    parts, number, weight = [np.zeros(0, np.uint8)], 0, 1
    for byte in encoded:
        number += byte % _CONTINUES * weight
        weight *= _CONTINUES
        if byte < _CONTINUES:
            parts.append(np.full(number // n_labels, number % n_labels, np.uint8))
            number, weight = 0, 1
    return np.concatenate(parts)


def pack(maps: Sequence[bytes]) -> bytes:
    """Deflate several encoded maps together, which share much of what they show."""
    return zlib.compress(b"".join(maps), 9)
