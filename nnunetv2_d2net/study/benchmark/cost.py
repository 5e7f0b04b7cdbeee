"""What an arm costs: seconds per step, memory, parameters, operations."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

import contextlib
import os
import resource
import statistics
import sys
import time
from typing import Any

import torch
from torch._dynamo import OptimizedModule
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_d2net.method.network.d2net import inference_weights
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.study.benchmark.arms import trainer_of, use_device
from nnunetv2_d2net.study.benchmark.jobs import COST, STEPS, Job, measurement_file
from nnunetv2_d2net.study.benchmark.setup import Setup, read_json_or, write_json

N_STEPS = 5
N_WARM_UP = 2


def measure(setup: Setup, job: Job) -> None:
    """Measure one arm, or the steps of all, and write the figures."""
    if os.environ.get("nnUNet_n_proc_DA") != "0":
        os.environ["nnUNet_n_proc_DA"] = "1"  # one batch is enough
    os.environ["nnUNet_compile"] = "f"  # operations of compiled code cannot be counted, and compiling is no step
    use_device(torch.device(setup.device))
    content = measure_steps(setup) if job.part == STEPS else measure_arm(setup, job.part)
    write_json(measurement_file(setup, job), content)


def measure_steps(setup: Setup, n_steps: int = N_STEPS) -> dict[str, Any]:
    """Time training steps of all arms in turn, on one batch and without augmentation, after warming up.

    Returns:
        Seconds of each step by arm; None for an arm whose step failed.
    """
    seconds: dict[str, list[float] | None] = {}
    with contextlib.ExitStack() as stack:
        trainers = {arm: ready(stack.enter_context(trainer_of(setup, arm))) for arm in setup.arms}
        batch = load_batch(next(iter(trainers.values())))
        for _ in range(N_WARM_UP + n_steps):
            for arm, trainer in trainers.items():
                past = seconds.setdefault(arm, [])
                if past is not None:
                    seconds[arm] = _with_next_step(arm, trainer, batch, past)
    kept = {arm: None if past is None else past[N_WARM_UP:] for arm, past in seconds.items()}
    return {"seconds": kept, "device": device_name(setup), "threads": torch.get_num_threads()}


def measure_arm(setup: Setup, arm: str) -> dict[str, Any]:
    """Measure what a process with this arm alone needs for training steps, and the size of its network.

    Returns:
        Peak memory in GiB: of the GPU, or of this process on a CPU; learned parameters in training and in prediction;
        GFLOPs (10^9 operations, a multiplication and an addition being two) that one patch takes in prediction.
    """
    with trainer_of(setup, arm) as constructed:
        trainer = ready(constructed)
        batch = load_batch(trainer)
        peak = None
        # an epoch's first step also makes the diagnostics of D2NetTrainer, whose memory a training needs, too
        if all(_with_next_step(arm, trainer, batch, [], step_of_epoch=i) is not None for i in range(2)):
            peak = round(_peak_memory(trainer.device), 3)
        network = _bare(trainer.network)
        weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
        return {
            "peak_memory_GiB": peak,
            "parameters": sum(p.numel() for p in weights.values()),
            "inference_parameters": sum(p.numel() for p in inference_weights(weights).values()),
            "inference_gflops": inference_gflops(trainer),
            "device": device_name(setup),
            "threads": torch.get_num_threads(),
        }


def inference_gflops(trainer: Any) -> float:  # noqa: ANN401 - nnU-Net's trainer
    """Count the operations of one patch's way through the network, as prediction takes it."""
    trainer.set_deep_supervision_enabled(False)
    network = _bare(trainer.network).eval()
    patch = torch.randn(1, trainer.num_input_channels, *trainer.configuration_manager.patch_size, device=trainer.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(patch)
    return round(counter.get_total_flops() / 1e9, 4)


def cost_of(setup: Setup, arm: str) -> dict[str, Any]:
    """Gather what is known of an arm's cost; None for what is not.

    Returns:
        The content of cost.json.
    """
    measured = read_json_or(measurement_file(setup, Job(COST, arm)), {})
    steps = read_json_or(measurement_file(setup, Job(COST, STEPS)), {}).get("seconds", {}).get(arm)
    keys = ("peak_memory_GiB", "parameters", "inference_parameters", "inference_gflops", "device", "threads")
    return {
        "training_seconds": training_seconds(setup, arm),
        "step_seconds": round(statistics.median(steps), 5) if steps else None,
        **{key: measured.get(key) for key in keys},
    }


def training_seconds(setup: Setup, arm: str) -> float | None:
    """Sum the epochs of all folds; pauses between a stop and the next start do not count."""
    total = 0.0
    for fold in setup.folds:
        log = read_checkpoint(setup.checkpoint(arm, fold)).get("logging", {})
        starts, ends = log.get("epoch_start_timestamps"), log.get("epoch_end_timestamps")
        if not starts or not ends:
            return None
        total += sum(end - start for start, end in zip(starts, ends, strict=False))
    return round(total, 1)


def ready(trainer: Any) -> Any:  # noqa: ANN401 - nnU-Net's trainer
    """Make a trainer ready to step."""
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    trainer.network.train()
    return trainer


def load_batch(trainer: Any) -> dict:  # noqa: ANN401
    """Load one batch, and end what loaded it."""
    loaders = trainer.get_dataloaders()
    batch = next(loaders[0])
    for loader in loaders:
        getattr(loader, "_finish", lambda: None)()
    return batch


def device_name(setup: Setup) -> str:
    """Return the GPU's name, or ``cpu``."""
    return torch.cuda.get_device_name() if setup.device == "cuda" else "cpu"


def _with_next_step(
    arm: str,
    trainer: Any,  # noqa: ANN401
    batch: dict,
    past: list[float],
    step_of_epoch: int = 1,
) -> list[float] | None:
    if hasattr(trainer, "train_step_index"):
        trainer.train_step_index = step_of_epoch  # the first one also makes diagnostics, which are not part of a step
    begin = time.perf_counter()
    try:
        trainer.train_step(dict(batch))
    except Exception as error:  # a trainer may need more than nnU-Net's, or more memory than there is
        sys.stderr.write(f"d2net: no step of {arm} could be measured ({type(error).__name__}: {error})\n")
        return None
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return [*past, time.perf_counter() - begin]


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def _bare(network: torch.nn.Module) -> torch.nn.Module:
    return network._orig_mod if isinstance(network, OptimizedModule) else network  # pyright: ignore
