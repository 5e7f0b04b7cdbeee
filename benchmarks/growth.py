"""How the training step of D2NetTrainer grows with the modalities M, the targets C and the slices G.

Usage: python benchmarks/growth.py [--device cpu|cuda] [--runs 5] [--json FILE]

The steps of one axis are interleaved. All U-Nets have the same stages, also where nnU-Net would plan one more for more
slices. "per unit" is a figure's growth over the growth of M, C or G: 1 is proportional, less is better.
"""

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from measuring import interleave, make_parser, parse, peak_bytes, report
from synthetic import PHANTOM, TOY, Setting, do_step, make_batch, make_trainer, nnunet_folders, state_bytes

from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer

GPU = Setting((64, 64, 64), 32, max_poolings=4)
AXES: Mapping[str, Sequence[int]] = {"M": (2, 4, 8), "C": (2, 4, 12), "G": (32, 128)}
TOY_AXES: Mapping[str, Sequence[int]] = {"M": (2, 3), "C": (1, 2), "G": (16, 32)}


def main() -> None:
    """Measure and print."""
    args = parse(make_parser(__doc__))
    base = GPU if args.device == "cuda" else PHANTOM._replace(patch=(32, 32, 32), max_poolings=3)
    if args.toy:
        base = TOY._replace(n_cases=1)
    rows = []
    for axis, values in (TOY_AXES if args.toy else AXES).items():
        rows += measure(axis, {value: with_axis(base, axis, value) for value in values}, args)
    report(rows, args)


def with_axis(base: Setting, axis: str, value: int) -> Setting:
    """Return the setting with M, C or G changed."""
    if axis == "G":
        return base._replace(patch=(value, *base.patch[1:]))
    return base._replace(**{{"M": "n_modalities", "C": "n_targets"}[axis]: value})


def measure(axis: str, settings: Mapping[int, Setting], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the lines of one axis."""
    with ExitStack() as stack:
        stack.enter_context(nnunet_folders())
        trainers = {value: make_trainer(D2NetTrainer, setting, args.device) for value, setting in settings.items()}
        steps = {
            str(value): functools.partial(do_step, trainer, make_batch(settings[value], trainer))
            for value, trainer in trainers.items()
        }
        seconds = interleave(steps, args)
        peaks = {
            value: peak_bytes(steps[str(value)], args.device) + state_bytes(trainer)
            for value, trainer in trainers.items()
        }
    first = next(iter(settings))
    rows = []
    for value in settings:
        grown = statistics.median(a / b for a, b in zip(seconds[str(value)], seconds[str(first)], strict=True))
        rows.append(
            {
                "axis": f"{axis} = {value}",
                "step, s": statistics.median(seconds[str(value)]),
                "times the first": grown,
                "per unit": grown * first / value,
                "peak, MiB": peaks[value] / 2**20,
                "memory, times the first": peaks[value] / peaks[first],
                "memory, per unit": peaks[value] / peaks[first] * first / value,
            }
        )
    return rows


if __name__ == "__main__":
    main()
