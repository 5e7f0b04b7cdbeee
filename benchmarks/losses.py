"""What two losses cost: SFMC against a loop over its pairs, and ADT-KD as a share of the training step.

Usage: python benchmarks/losses.py [--device cpu|cuda] [--runs 5] [--json FILE]

SFMC: forward and backward of both contrastive losses with the paper's sampling, every slice an anchor. The loop takes
one pair after the other, as Eq. (1) reads; both must return the same value. ADT-KD: forward and backward of its
projections and losses on the features of one step, four student and four teacher levels, over the whole step's time.
"""

import argparse
import functools
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from measuring import interleave, make_parser, parse, report
from synthetic import TOY, Setting, do_step, make_batch, make_trainer, nnunet_folders
from torch import Tensor

from nnunetv2_d2net.method.losses.adt_kd import adt_kd_losses
from nnunetv2_d2net.method.losses.sfmc import (
    NEGATIVE_RADIUS,
    POSITIVE_DISTANCE,
    frequency_contrastive_loss,
    spatial_contrastive_loss,
)
from nnunetv2_d2net.method.network.decoder import decode_with_features
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer

N_CODES, TEMPERATURE = 8, 0.07
DEEP = (
    Setting((128, 128, 128), 8, n_cases=1),
    Setting((128, 128), n_cases=12),
)  # six stages: four levels in each bank
GPU = (Setting((128, 128, 128)), Setting((512, 512), n_cases=12))


def main() -> None:
    """Measure and print."""
    args = parse(make_parser(__doc__))
    rows = [compare_sfmc(24 if args.toy else 128, 2 if args.toy else 4, args)]
    settings = GPU if args.device == "cuda" else DEEP
    rows += [share_of_adt_kd(setting, args) for setting in ([TOY] if args.toy else settings)]
    report(rows, args)


def compare_sfmc(n_slices: int, n_modalities: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the line on SFMC.

    Raises:
        RuntimeError: The loop and the losses disagree.
    """
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(1, n_modalities, n_slices, N_CODES, generator=generator).to(args.device).requires_grad_()
    values = {name: loss(codes).item() for name, loss in (("loop", loop), ("ours", ours))}
    if abs(values["loop"] - values["ours"]) > 1e-4:
        raise RuntimeError(f"the loop and the losses disagree: {values}")
    arms = {
        name: functools.partial(forward_and_backward, loss, codes) for name, loss in (("loop", loop), ("ours", ours))
    }
    seconds = {name: statistics.median(values) for name, values in interleave(arms, args).items()}
    return {
        "what": f"SFMC, G = {n_slices}, M = {n_modalities}: loop / ours",
        "s": seconds["ours"],
        "reference, s": seconds["loop"],
        "figure": seconds["loop"] / seconds["ours"],
        "target": ">= 100",
    }


def forward_and_backward(loss: Any, codes: Tensor) -> None:  # noqa: ANN401 - a function of codes
    """Compute the loss and its gradient."""
    torch.autograd.grad(loss(codes), codes)


def ours(codes: Tensor) -> Tensor:
    """Both contrastive losses."""
    valid = torch.ones(codes.shape[:3], dtype=torch.bool, device=codes.device)
    return spatial_contrastive_loss(codes, valid) + frequency_contrastive_loss(codes, valid)


def loop(codes: Tensor) -> Tensor:
    """The same, pair by pair."""
    return loop_over_pairs(codes[0]) + loop_over_pairs(torch.fft.fft(codes[0], dim=-1).abs())


def loop_over_pairs(codes: Tensor) -> Tensor:
    """Eq. (1) and its mean, one cosine at a time."""
    n_modalities, n_slices = codes.shape[:2]
    distance = round(POSITIVE_DISTANCE * n_slices)
    radius = min(NEGATIVE_RADIUS, (n_slices - 1) // 2)
    losses = []
    for m in range(n_modalities):
        for u in range(n_slices):
            start = min(max(u - radius, 0), n_slices - 2 * radius - 1)
            window = [v for v in range(start, start + 2 * radius + 1) if v != u]
            others = [k for k in range(n_modalities) if k != m]
            negatives = torch.stack([similarity(codes[m, u], codes[k, v]) for k in others for v in window])
            positive = similarity(codes[m, u], codes[m, u + distance if u + distance < n_slices else u - distance])
            losses.append(-torch.log(positive.exp() / (positive.exp() + negatives.exp().sum())))
    return torch.stack(losses).mean()


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine over temperature."""
    return F.cosine_similarity(a, b, dim=0) / TEMPERATURE


def share_of_adt_kd(setting: Setting, args: argparse.Namespace) -> dict[str, Any]:
    """Return the line on ADT-KD."""
    with nnunet_folders():
        trainer = make_trainer(D2NetTrainer, setting, args.device)
        batch = make_batch(setting, trainer)
        levels = features_of_a_step(trainer, batch["data"].to(args.device))
        seconds = interleave(
            {
                "ADT-KD": functools.partial(distill, trainer, *levels),
                "step": functools.partial(do_step, trainer, batch),
            },
            args,
        )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    n_levels = len(trainer.bare_network.feature_banks.student)
    return {
        "what": f"ADT-KD, {n_levels} x {n_levels} levels, {setting}: share of the step",
        "s": medians["ADT-KD"],
        "reference, s": medians["step"],
        "figure": medians["ADT-KD"] / medians["step"],
        "target": "<= 0.15",
    }


def features_of_a_step(trainer: D2NetTrainer, images: Tensor) -> tuple[list[Tensor], ...]:
    """Return logits and features of student and teacher that ask for gradients, cut off from the network."""
    network = trainer.bare_network
    available = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=images.is_cuda):
        content = network.encode(images, available)
        tumor_features = network.content_reconstruction(content.skips[-1], content.tumor_codes)
        student = decode_with_features(network.decoder, [*content.skips[:-1], network.fusion(tumor_features)])
        teacher = network.teacher(tumor_features, content.skips)
    return tuple([x.detach().requires_grad_() for x in maps] for maps in (*student, *teacher))


def distill(
    trainer: D2NetTrainer,
    student_logits: list[Tensor],
    student_features: list[Tensor],
    teacher_logits: list[Tensor],
    teacher_features: list[Tensor],
) -> None:
    """Project the features, compute both losses and their gradients."""
    banks = trainer.bare_network.feature_banks
    with torch.autocast(student_logits[0].device.type, enabled=student_logits[0].is_cuda):
        student, teacher = banks(student_features, teacher_features)
    first, skipped = banks.first_level, banks.skipped_teacher_levels
    losses = adt_kd_losses(student_logits[first:], teacher_logits[skipped:], student, teacher, regions=True)
    torch.stack(losses).sum().backward()


if __name__ == "__main__":
    main()
