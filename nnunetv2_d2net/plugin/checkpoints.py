"""Reading nnU-Net's checkpoints without running what they may contain."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2_d2net.base.errors import UserError

_NUMPY_SCALARS = [
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]
"""What nnU-Net's log holds beside plain Python."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net's as data.

    Args:
        path: The file.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        UserError: It cannot be read, or not without running code in it.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights and numbers, or is no checkpoint: take it only from someone you trust"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} cannot be read, it may be cut short: copy it again") from error
    if not isinstance(content, dict) or not {"network_weights", "trainer_name", "init_args"} <= set(content):
        raise UserError(f"{path} is no checkpoint of nnU-Net's: pass one that a training has written")
    return content
