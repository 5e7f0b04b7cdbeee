"""What an arm costs: seconds per step, memory, parameters, operations."""

import contextlib
import logging
import os
import resource
import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_d2net.base.files import read_json_or, write_json
from nnunetv2_d2net.method.network.companion import STOCK, Companion
from nnunetv2_d2net.method.network.d2net import inference_weights
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.study.benchmark.jobs import COST, STEPS, Job, measurement_file
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.pipeline import Trainer, load_batch, make_ready, passing_trainer, use_device

N_STEPS = 5
N_WARM_UP = 2
_LOG = logging.getLogger("nnunetv2_d2net")


def measure(setup: Setup, job: Job) -> None:
    """Measure one arm, or the steps of all, and write the figures."""
    if os.environ.get("nnUNet_n_proc_DA") != "0":
        os.environ["nnUNet_n_proc_DA"] = "1"  # one batch is enough
    os.environ["nnUNet_compile"] = "f"  # operations of compiled code cannot be counted, and compiling is no step
    use_device(torch.device(setup.device))
    content = measure_steps(setup) if job.part == STEPS else measure_arm(setup, job.part)
    write_json(measurement_file(setup, job), content)


def measure_steps(setup: Setup) -> dict[str, Any]:
    """Time training steps of all arms in turn, on one batch and without augmentation, after warming up.

    Returns:
        Seconds of each step by arm; None for an arm whose step failed.
    """
    seconds: dict[str, list[float | None]] = {arm: [] for arm in setup.arms}
    with contextlib.ExitStack() as stack:
        trainers = {arm: make_ready(stack.enter_context(_trainer_of(setup, arm))) for arm in setup.arms}
        batch = load_batch(trainers[setup.arms[0]])
        for _ in range(N_WARM_UP + N_STEPS):
            for arm, trainer in trainers.items():
                if None not in seconds[arm]:
                    seconds[arm].append(_step_seconds(arm, trainer, batch))
    kept = {arm: None if None in past else past[N_WARM_UP:] for arm, past in seconds.items()}
    return {"seconds": kept, "device": _device_name(setup), "threads": torch.get_num_threads()}


def measure_arm(setup: Setup, arm: str) -> dict[str, Any]:
    """Measure what a process with this arm alone needs for training steps, and the size of its network.

    Returns:
        Peak memory in GiB: of the GPU, or of this process on a CPU; numbers of parameters, see :func:`sizes`; GFLOPs
        (10^9 operations, a multiplication and an addition being two) that one patch takes in prediction.
    """
    with _trainer_of(setup, arm) as constructed:
        trainer = make_ready(constructed)
        batch = load_batch(trainer)
        # an epoch's first step also makes the diagnostics of D2NetTrainer, whose memory a training needs, too
        stepped = all(_step_seconds(arm, trainer, batch, step_of_epoch=i) is not None for i in range(2))
        peak = round(_peak_memory(trainer.device), 3) if stepped else None
        return {
            "peak_memory_GiB": peak,
            **sizes(trainer.network),
            "inference_gflops": inference_gflops(trainer),
            "device": _device_name(setup),
            "threads": torch.get_num_threads(),
        }


def sizes(network: nn.Module) -> dict[str, int]:
    """Count the parameters that are learned, that one prediction runs, and that prediction needs at hand.

    The two last differ for a companion, of whose networks one predicts; the larger one is counted.
    """
    weights = dict(network.named_parameters())
    stored = {name: p.numel() for name, p in inference_weights(weights).items()}
    of_stock = sum(n for name, n in stored.items() if isinstance(network, Companion) and name.startswith(f"{STOCK}."))
    return {
        "parameters": sum(p.numel() for p in weights.values() if p.requires_grad),
        "inference_parameters": max(of_stock, sum(stored.values()) - of_stock),
        "stored_parameters": sum(stored.values()),
    }


def inference_gflops(trainer: Trainer) -> float:
    """Count the operations of one patch's way through the network, a companion's student, as prediction takes it."""
    trainer.set_deep_supervision_enabled(False)
    if isinstance(trainer.network, Companion):
        trainer.network.student_only = True
    patch = torch.randn(1, trainer.num_input_channels, *trainer.configuration_manager.patch_size, device=trainer.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        trainer.network.eval()(patch)
    return round(counter.get_total_flops() / 1e9, 4)


def cost_of(setup: Setup, arm: str) -> dict[str, Any]:
    """Gather what is known of an arm's cost; None for what is not.

    Returns:
        The content of cost.json.
    """
    measured = read_json_or(measurement_file(setup, Job(COST, arm)), {})
    steps = read_json_or(measurement_file(setup, Job(COST, STEPS)), {}).get("seconds", {}).get(arm)
    keys = ("peak_memory_GiB", "parameters", "inference_parameters", "stored_parameters", "inference_gflops")
    return {
        "training_seconds": training_seconds(setup, arm),
        "step_seconds": round(statistics.median(steps), 5) if steps else None,
        **{key: measured.get(key) for key in (*keys, "device", "threads")},
    }


def training_seconds(setup: Setup, arm: str) -> float | None:
    """Sum the epochs of all folds; pauses between a stop and the next start do not count."""
    total = 0.0
    for fold in setup.folds:
        log = read_checkpoint(setup.model(arm).checkpoint(fold)).get("logging", {})
        starts, ends = log.get("epoch_start_timestamps"), log.get("epoch_end_timestamps")
        if not starts or not ends:
            return None
        total += sum(end - start for start, end in zip(starts, ends, strict=False))
    return round(total, 1)


def _trainer_of(setup: Setup, arm: str) -> contextlib.AbstractContextManager[Trainer]:
    return passing_trainer(setup.model(arm), setup.folds[0], torch.device(setup.device))


def _device_name(setup: Setup) -> str:
    return torch.cuda.get_device_name() if setup.device == "cuda" else "cpu"


def _step_seconds(arm: str, trainer: Trainer, batch: dict[str, Any], *, step_of_epoch: int = 1) -> float | None:
    if hasattr(trainer, "train_step_index"):
        trainer.train_step_index = step_of_epoch  # the first one also makes diagnostics, which are not part of a step
    begin = time.perf_counter()
    try:
        trainer.train_step(dict(batch))
    except Exception as error:  # a trainer may need more than nnU-Net's, or more memory than there is
        _LOG.warning("no step of %s could be measured (%s: %s)", arm, type(error).__name__, error)
        return None
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
