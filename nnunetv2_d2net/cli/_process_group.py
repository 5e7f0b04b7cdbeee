"""Being one of several processes that train together: those that torchrun starts, and those that nnU-Net starts."""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.text import counted

_USER_ERRORS = re.compile(r"^nnunetv2_d2net\.base\.(?:errors\.User|images\.Image)Error: (.*)$", re.MULTILINE)


def is_one_of_several() -> bool:
    """Tell whether torchrun has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Meet the other processes that torchrun has started, where nnU-Net's trainers then find them.

    Args:
        device: ``cuda`` or ``cpu``.

    Raises:
        UserError: This machine has fewer CUDA devices than processes.
    """
    import torch
    import torch.distributed as dist

    if device == "cuda":
        own, n_devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= n_devices:
            raise UserError(
                f"this machine has {counted(n_devices, 'CUDA device')} and torchrun starts "
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on it: pass it --nproc-per-node {n_devices}"
            )
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    yield
    gc.collect()  # DistributedDataParallel sits in reference cycles and holds the group
    dist.destroy_process_group()  # not after a failure, when it would wait for the others


@contextmanager
def errors_of_processes() -> Iterator[None]:
    """Let what a user can mend in one of the processes that nnU-Net has started be an error of this one.

    Raises:
        UserError: One of them raised it.
    """
    from torch.multiprocessing.spawn import ProcessRaisedException

    try:
        yield
    except ProcessRaisedException as error:  # holds the traceback as text
        messages = _USER_ERRORS.findall(str(error))
        if not messages:
            raise
        raise UserError(messages[-1]) from error
