"""Where the time of D2NetTrainer's step goes, by module and loss, forward and backward, from torch.profiler.

Usage: python benchmarks/step_profile.py [--runs 3] [--json FILE]

On the CPU, whose operators run one after another. A backward operator counts for the part of its forward operator;
"other" is the adding up of gradients.
"""

import bisect
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

from measuring import make_parser, parse, report
from synthetic import PHANTOM, TOY, Setting, do_step, make_batch, make_trainer, nnunet_folders
from torch.profiler import ProfilerActivity, profile, record_function

from nnunetv2_d2net.method.losses import d2net_loss
from nnunetv2_d2net.method.network import d2net
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer

MARK = "part: "
MODULES = (
    "encoder",
    "modality_encoder",
    "modality_projection",
    "content_reconstruction",
    "fusion",
    "image_decoder",
    "teacher",
    "feature_banks",
)
LOSSES = (
    "adt_kd_losses",
    "spatial_contrastive_loss",
    "frequency_contrastive_loss",
    "auxiliary_loss",
    "consistency_loss",
    "reconstruction_loss",
    "split_targets",
)
SETTINGS = (PHANTOM, Setting((64, 64, 64)))


def main() -> None:
    """Profile and print."""
    args = parse(make_parser(__doc__, runs=3))
    if args.device == "cuda":
        raise SystemExit("step_profile.py reads the CPU's operators: take --device cpu")
    rows = []
    for setting in [TOY] if args.toy else SETTINGS:
        with nnunet_folders():
            trainer = make_trainer(D2NetTrainer, setting, args.device)
            batch = make_batch(setting, trainer)
            do_step(trainer, batch)
            with marked(trainer), profile(activities=[ProfilerActivity.CPU]) as profiler:
                for _ in range(args.runs):
                    do_step(trainer, batch)
        forward, backward = sum_up(list(profiler.events()))
        whole = sum(forward.values()) + sum(backward.values())
        for part in sorted({*forward, *backward}, key=lambda name: -forward[name] - backward[name]):
            ms = {"forward, ms": forward[part] / 1e3 / args.runs, "backward, ms": backward[part] / 1e3 / args.runs}
            rows.append({"size": str(setting), "part": part, **ms, "share": (forward[part] + backward[part]) / whole})
    report(rows, args)


@contextlib.contextmanager
def marked(trainer: D2NetTrainer) -> Iterator[None]:
    """Give everything that modules and losses do a name in the profile."""
    network, objective = trainer.bare_network, trainer.loss
    places: list[tuple[Any, str, str]] = [(getattr(network, name), "forward", name) for name in MODULES]
    places += [(d2net, "decode_with_features", "decoder (student)"), (trainer.optimizer, "step", "optimizer")]
    places += [(d2net_loss, name, name) for name in LOSSES] + [(objective, "_segmentation", "segmentation loss")]
    with contextlib.ExitStack() as stack:
        for owner, attribute, name in places:
            stack.enter_context(mock.patch.object(owner, attribute, named(getattr(owner, attribute), name)))
        yield


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function, its time filed under the name."""

    def call(*args: object, **kwargs: object) -> Any:  # noqa: ANN401 - whatever the function returns
        with record_function(MARK + name):
            return function(*args, **kwargs)

    return call


def sum_up(events: list[Any]) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return the microseconds of every part's forward and backward operators; the events are in order of time."""
    forward: dict[str, float] = defaultdict(float)
    backward: dict[str, float] = defaultdict(float)
    part_of_number: dict[int, str] = {}  # autograd numbers its nodes; the last to see a number as the next one takes it
    for event in events:
        if event.name.startswith(MARK):
            forward[event.name.removeprefix(MARK)] += event.cpu_time_total
        elif event.sequence_nr >= 0 and "autograd::" not in event.name and "Backward" not in event.name:
            part_of_number[event.sequence_nr] = part_of(event)
    numbers = sorted(part_of_number)
    for event in events:
        if event.name.startswith("autograd::engine::evaluate_function"):
            # an in-place operator takes further numbers that no operator sees
            place = bisect.bisect_right(numbers, event.sequence_nr) - 1
            known = event.sequence_nr >= 0 and place >= 0
            backward[part_of_number[numbers[place]] if known else "other"] += event.cpu_time_total
    return forward, backward


def part_of(event: Any) -> str:  # noqa: ANN401 - an event of torch.profiler
    """Return the part in which an operator ran."""
    while event is not None and not event.name.startswith(MARK):
        event = event.cpu_parent
    return "other" if event is None else event.name.removeprefix(MARK)


if __name__ == "__main__":
    main()
