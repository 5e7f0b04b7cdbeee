"""Calling nnU-Net's entry points in this process."""

import sys
from collections.abc import Callable, Sequence

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import explaining_full_disk
from nnunetv2_d2net.base.processes import watch_forks
from nnunetv2_d2net.cli._words import guess, value_of
from nnunetv2_d2net.plugin.seams import replaced
from nnunetv2_d2net.plugin.start import COMPANION


def call_entry_point(entry_point: Callable[[], object], command: str, words: Sequence[str]) -> int:
    """Call one of nnU-Net's entry points, which read ``sys.argv``.

    Args:
        entry_point: nnU-Net's function.
        command: Our subcommand, for nnU-Net's usage line.
        words: nnU-Net's arguments.

    Returns:
        Exit status 0; what nnU-Net raises passes through.

    Raises:
        UserError: The disk is full or read-only.
    """
    watch_forks()
    with replaced(sys, "argv", [f"d2net {command}", *words]), explaining_full_disk(f"d2net {command}"):
        entry_point()
    return 0


def device_words(words: Sequence[str]) -> list[str]:
    """Choose the CPU where there is no CUDA device and the user chose nothing: nnU-Net would fail.

    Args:
        words: nnU-Net's arguments.

    Returns:
        Words to put before them.

    Raises:
        UserError: The user asks for a device that there is not, or that nnU-Net does not know.
    """
    import torch

    wanted = value_of(words, "-device", "cuda")
    if wanted not in ("cpu", "cuda", "mps"):
        one = "; CUDA_VISIBLE_DEVICES chooses one of several" if wanted.startswith("cuda:") else ""
        raise UserError(f"-device {wanted}: nnU-Net knows cpu, cuda and mps{one}")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise UserError("torch finds no MPS device: pass -device cpu, or cuda where there is one")
    if torch.cuda.is_available() or wanted != "cuda":
        return []
    if value_of(words, "-device"):
        raise UserError("torch finds no CUDA device: pass -device cpu, or install the driver and a CUDA build of torch")
    sys.stderr.write("d2net: torch finds no CUDA device, so this runs on the CPU (-device cpu)\n")
    return ["-device", "cpu"]


def trainer_class(name: str) -> type:
    """Return the trainer of a name, as nnU-Net finds it.

    Raises:
        UserError: There is no such trainer.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_d2net.plugin.training import variants

    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        if not str(error).startswith("Could not find requested nnunet trainer"):
            raise
        base, nearest = name.partition("_")[0], guess(name, variants.__all__)
        if base.endswith(COMPANION):
            student = base.removesuffix(COMPANION)
            raise UserError(
                f"no trainer is called {name}{nearest}: --start_from knows the trainers of this package; for one of "
                f"your own, write class {base}(CompanionTrainer, {student}) beside it"
            ) from error
        ours = ", ".join(trainer for trainer in variants.__all__ if "_" not in trainer)  # without the other lengths
        raise UserError(f"no trainer is called {name}{nearest}: pass -tr with nnU-Net's, or one of {ours}") from error
