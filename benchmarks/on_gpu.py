"""All that the performance page wants to know of a GPU, step by step within twenty minutes; see on_gpu.sh.

Usage: python benchmarks/on_gpu.py [--out FOLDER] [--seconds 1200] [--steps NAME ...] [--device cpu --tiny]

It writes FOLDER/on_gpu.json and on_gpu.md anew after each step, and what the steps print to on_gpu.log. A step that
fails or outlasts its limit is noted, its rows so far are kept, and the next one has its turn.
"""

import argparse
import contextlib
import functools
import io
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import inference_forward
import numpy as np
import planner_memory
import SimpleITK as sitk
import torch
import torch.distributed as dist
import training_memory
import training_step
from measuring import interleave
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from step_by_step import DONE, Row, Step, run_steps
from synthetic import (
    ARMS,
    HALVES,
    NAME,
    PLANS,
    TOY,
    Setting,
    do_step,
    make_batch,
    make_trainer,
    nnunet_folders,
    set_half,
)
from timed_training import TRAINERS, simulate, train
from torch._dynamo.eval_frame import OptimizedModule

from nnunetv2_d2net.base.files import make_folder, read_json, write_json
from nnunetv2_d2net.base.text import version_of
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.planning.planner import D2NetPlanner, D2NetSmallPlanner
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from nnunetv2_d2net.study.pipeline import use_device

ROOT = Path(__file__).resolve().parents[1]
DROPOUT, OURS, *_ = ARMS
CASE, HEAD = (155, 240, 240), planner_memory.SHAPE  # of BraTS: voxels of a file, and of the head in it
TOY_CASE, TOY_HEAD = (24, 28, 26), (20, 24, 20)
Rows = Iterator[Row]


def main() -> int:
    """Run the steps; return 1 unless all are done."""
    parser = argparse.ArgumentParser(
        "on_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("on_gpu_results"), help="for the tables (default %(default)s)")
    parser.add_argument(
        "--phantoms", type=Path, help="folder of simulated patients that was made before; or made there"
    )
    parser.add_argument("--only_simulate", action="store_true", help="make that folder, which may travel, and end")
    parser.add_argument("--seconds", type=float, default=1200, help="for everything (default %(default)s)")
    parser.add_argument("--train_seconds", type=float, default=40, help="of each training (default %(default)s)")
    parser.add_argument("--steps", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", dest="toy", action="store_true", help="tiny sizes, to see that all of it runs")
    args = parser.parse_args()
    args.runs, args.clock, args.train_seconds = (1, "wall", 0) if args.toy else (5, "wall", args.train_seconds)
    make_folder(args.out)
    with tempfile.TemporaryDirectory() as work:
        args.work, args.phantoms = Path(work), args.phantoms or Path(work) / "phantoms"
        steps = steps_of(args)
        unknown = set(args.steps or ()) - {step.name for step in steps}
        if unknown:
            parser.error(f"no step is called {unknown.pop()!r}: choose from {', '.join(step.name for step in steps)}")
        chosen = ["phantoms"] if args.only_simulate else args.steps
        steps = [step for step in steps if not chosen or step.name in chosen]
        outcomes = run_steps(steps, args.seconds, args.out / "on_gpu", args.out / "on_gpu.log")
    return int(any(outcome.status != DONE for outcome in outcomes))


def steps_of(args: argparse.Namespace) -> list[Step]:
    """List the steps, what matters most first: the compiled ones may take minutes and come last."""
    known: list[tuple[str, Callable[..., Rows], float, float]] = [
        ("machine", machine, 30, 1),
        ("tests for a GPU", gpu_tests, 90, 10),
        ("training step", training_steps, 180, 10),
        ("forward pass", forward_passes, 40, 10),
        ("memory of a step", memory, 90, 10),
        ("memory of the plans", planner_memory.measure, 200, 10),
        ("200 steps", many_steps, 90, 10),
        ("NCCL", one_process, 40, 10),
        ("prediction", prediction, 120, 15),
        ("phantoms", simulate, 80, 15),
        *((name, functools.partial(train, name), args.train_seconds + 50, args.train_seconds + 5) for name in TRAINERS),
        ("forward pass, compiled", compiled_passes, 60, 20),
        ("training step, compiled", compiled_steps, 240, 30),
    ]
    patience = 10 if args.toy else 1  # a rehearsal may be on a busy machine
    return [
        Step(name, functools.partial(_prepared, work, args), patience * limit, least)
        for name, work, limit, least in known
    ]


def _prepared(work: Callable[..., Rows], args: argparse.Namespace) -> Rows:
    """Set the process of a step up as nnU-Net's commands do, but compile nothing unless the step says so."""
    os.environ["nnUNet_compile"] = "f"
    announce_trainers()
    use_device(torch.device(args.device))
    yield from work(args)


def machine(args: argparse.Namespace) -> Rows:
    """Say what everything ran on."""
    if args.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        told = {"GPU": properties.name, "memory, GiB": f"{properties.total_memory / 2**30:.1f}"}
        told |= {"CUDA of torch": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    else:
        told = {"processor": platform.processor() or platform.machine()}
    packages = {name: version_of(name) for name in ("torch", "triton", "nnunetv2", "nnunetv2_d2net", "numpy")}
    told |= {"cores": os.cpu_count(), "python": platform.python_version(), **packages}
    yield from ({"what": key, "is": str(value)} for key, value in told.items())


def gpu_tests(args: argparse.Namespace) -> Rows:
    """Run the tests that need a GPU; in rehearsal they are only collected."""
    files = [p for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text(encoding="utf-8")]
    words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", *(["--collect-only"] if args.toy else [])]
    command = [sys.executable, "-m", "pytest", *words, *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    sys.stdout.write(done.stdout)
    yield {"files": len(files), "pytest says": done.stdout.strip().splitlines()[-1].strip("= ")}
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}, see the log")


def training_steps(args: argparse.Namespace, arms: Mapping[str, type[nnUNetTrainer]] = ARMS) -> Rows:
    """Yield the seconds of a step, each trainer beside modality dropout."""
    for setting in [TOY] if args.toy else training_step.GPU_SETTINGS:
        for half in HALVES:
            with nnunet_folders():
                trainers = {arm: make_trainer(trainer, setting, args.device) for arm, trainer in arms.items()}
                for trainer in trainers.values():
                    set_half(trainer, half)
                seconds = training_step.measure(trainers, make_batch(setting, trainers[DROPOUT]), args)
                for arm, trainer in trainers.items():
                    is_compiled = isinstance(trainer.network, OptimizedModule)
                    row = training_step.row(arm, str(setting), trainer, seconds)
                    yield {"precision": half, "compiled": is_compiled, **row, "target": 2.0}


def compiled_steps(args: argparse.Namespace) -> Rows:
    """Yield the same of compiled networks, without recomputing; a CPU's are not compiled, as nnU-Net has it."""
    os.environ["nnUNet_compile"] = "t"
    yield from training_steps(args, {arm: ARMS[arm] for arm in (DROPOUT, OURS)})


def forward_passes(args: argparse.Namespace, prepare: Callable = lambda network: network) -> Rows:
    """Yield the seconds of a pass of D2-Net beside those of its U-Net."""
    for setting in inference_forward.TOY_SETTINGS[:1] if args.toy else inference_forward.SETTINGS:
        for half in HALVES:
            seconds = inference_forward.measure(setting, args, half, prepare)
            yield {"size": str(setting), "precision": half, **inference_forward.row(seconds)}


def compiled_passes(args: argparse.Namespace) -> Rows:
    """Yield the same of compiled networks."""
    yield from forward_passes(args, functools.partial(torch.compile, backend="eager" if args.toy else "inductor"))


def memory(args: argparse.Namespace) -> Rows:
    """Yield the peak of a step, each trainer beside modality dropout."""
    for setting in [TOY] if args.toy else training_memory.GPU_SETTINGS:
        for half in HALVES:
            peaks = {arm: training_memory.measure(arm, setting, args.device, half) for arm in ARMS}
            for arm, peak in peaks.items():
                figures = {"peak, MiB": peak / 2**20, "ratio": peak / peaks[DROPOUT], "target": 1.6}
                yield {"size": str(setting), "precision": half, "trainer": arm, **figures}


def many_steps(args: argparse.Namespace) -> Rows:
    """Do two hundred steps, and fail if a loss or a weight is not finite."""
    setting, n_steps = (TOY, 2) if args.toy else (Setting((64, 64, 64)), 200)
    for half in HALVES:
        with nnunet_folders():
            trainer = make_trainer(D2NetTrainer, setting, args.device)
            set_half(trainer, half)
            batch, losses = make_batch(setting, trainer), []
            for _ in range(n_steps):
                losses.append(float(do_step(trainer, batch)["loss"]))
            tensors = trainer.network.state_dict().values()
            n_bad = sum(not math.isfinite(loss) for loss in losses) + sum(not t.isfinite().all() for t in tensors)
            scale = trainer.grad_scaler.get_scale() if trainer.grad_scaler else 1.0
            told = {"first loss": losses[0], "last loss": losses[-1], "scale at the end": scale}
            yield {"size": str(setting), "precision": half, "steps": n_steps, "not finite": n_bad, **told}
            if n_bad:
                raise RuntimeError(f"{n_bad} losses and weights are not finite in {half}")


def one_process(args: argparse.Namespace) -> Rows:
    """Step under DistributedDataParallel with one process, as nnU-Net's command for several GPUs does with more."""
    backend = "nccl" if args.device == "cuda" else "gloo"
    dist.init_process_group(backend, f"file://{args.work / 'store'}", rank=0, world_size=1)
    try:
        with nnunet_folders():
            setting = TOY if args.toy else Setting((64, 64, 64))
            trainer = make_trainer(D2NetTrainer, setting, args.device)
            batch = make_batch(setting, trainer)
            seconds = interleave({"step": lambda: do_step(trainer, batch)}, args)["step"]
            wrapper = type(trainer.network).__name__
            yield {"backend": backend, "network": wrapper, "size": str(setting), "step, s": statistics.median(seconds)}
    finally:
        dist.destroy_process_group()


def prediction(args: argparse.Namespace) -> Rows:
    """Predict a case from its files, with all subsets in one pass and by stock nnU-Net; weights are random."""
    case, head = (TOY_CASE, TOY_HEAD) if args.toy else (CASE, HEAD)
    device = torch.device(args.device)
    with nnunet_folders() as root:
        files = write_case(root / "images", case, head)
        planner_memory.write_cohort(root, head)
        planner = D2NetSmallPlanner if args.toy else D2NetPlanner
        with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):  # the planner only counts
            plans = planner(NAME, plans_name=PLANS).plan_experiment()
        ours = AllSubsetsPredictor(use_mirroring=False, device=device, allow_tqdm=False)
        ours.initialize_from_trained_model_folder(str(write_model(root, D2NetTrainer, plans, device)), ("all",))
        stock = nnUNetPredictor(
            use_mirroring=False, device=device, allow_tqdm=False, perform_everything_on_device=device.type == "cuda"
        )
        folder = str(write_model(root, nnUNetTrainer, plans, device))
        stock.initialize_from_trained_model_folder(folder, ("all",), "checkpoint_final.pth")
        n_subsets = len(modality_subsets(len(files)))
        arms = {
            f"D2NetTrainer, all {n_subsets} subsets in one pass": lambda: ours.predict_from_files(
                [files], str(root / "ours")
            ),
            "nnUNetTrainer, all modalities": lambda: stock.predict_from_files_sequential(
                [files], [str(root / "stock")]
            ),
        }
        seconds = interleave(arms, argparse.Namespace(**vars(args) | {"runs": 1}))
    (alone,) = seconds["nnUNetTrainer, all modalities"]
    for (arm, (took,)), n_predicted in zip(seconds.items(), (n_subsets, 1), strict=True):
        voxels = "x".join(map(str, case[::-1]))
        yield {"voxels": voxels, "model": arm, "s": took, "a subset over stock": took / n_predicted / alone}


def write_case(folder: Path, case: tuple[int, ...], head: tuple[int, ...]) -> list[str]:
    """Write noise within an ellipsoid of the head's size; return the file of each modality."""
    folder.mkdir()
    axes = np.meshgrid(
        *((np.arange(n) - n // 2) / (size / 2) for n, size in zip(case, head, strict=True)), indexing="ij"
    )
    inside, rng = np.square(axes).sum(0) <= 1, np.random.default_rng(0)
    files = [str(folder / f"case_{m:04d}.nii.gz") for m in range(planner_memory.N_MODALITIES)]
    for file in files:
        noise = rng.integers(1, 1000, case, dtype=np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(np.where(inside, noise, np.int16(0))), file)
    return files


def write_model(root: Path, trainer_class: type[nnUNetTrainer], plans: dict[str, Any], device: torch.device) -> Path:
    """Write a model of random weights as nnU-Net keeps its models; return its folder."""
    plans["configurations"]["3d_fullres"]["data_identifier"] = PLANS  # whose folder is there
    dataset = read_json(root / "raw" / NAME / "dataset.json", "write_cohort writes it")
    trainer: Any = trainer_class({**plans, "continue_training": False}, "3d_fullres", "all", dataset, device)  # pyright: ignore
    trainer.initialize()
    folder = Path(trainer.output_folder_base)
    for name, content in (("plans", plans), ("dataset", dataset)):
        write_json(folder / f"{name}.json", content)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    return folder


if __name__ == "__main__":
    sys.exit(main())
