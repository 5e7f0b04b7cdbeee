"""What validation needs: voxels counted right and wrong, and cases whose absent channels are marked."""

from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_d2net.plugin.preprocessing.cohort import AVAILABLE


def hard_counts(logits: Tensor, target: Tensor, label_manager: LabelManager) -> dict[str, NDArray]:
    """Count true positive, false positive and false negative voxels, as nnU-Net's validation step does.

    ``nnUNetTrainer.validation_step`` of nnU-Net 2.8.1 has it in one piece with the forward pass; a test holds one
    against the other.

    Args:
        logits: ``(B, C, *spatial)``.
        target: nnU-Net's, at full resolution: labels ``(B, 1, *spatial)``, or regions ``(B, C, *spatial)``, followed by
            a channel of ignored voxels if there is an ignore label.
        label_manager: nnU-Net's.

    Returns:
        ``tp_hard``, ``fp_hard`` and ``fn_hard``, a number for each foreground class.
    """
    mask = None
    if label_manager.has_regions:
        predicted = (torch.sigmoid(logits) > 0.5).long()
        if label_manager.has_ignore_label:
            mask = ~target[:, -1:] if target.dtype == torch.bool else 1 - target[:, -1:]
            target = target[:, :-1]
    else:
        predicted = torch.zeros(logits.shape, device=logits.device, dtype=torch.float16)
        predicted.scatter_(1, logits.argmax(1)[:, None], 1)
        if label_manager.has_ignore_label:
            ignored = target == label_manager.ignore_label
            mask, target = (~ignored).float(), target.masked_fill(ignored, 0)
    counts = get_tp_fp_fn_tn(predicted, target, axes=[0, *range(2, logits.ndim)], mask=mask)[:3]
    first = 0 if label_manager.has_regions else 1  # a softmax has the background, too
    names = ("tp_hard", "fp_hard", "fn_hard")
    return {name: count.detach().cpu().numpy()[first:] for name, count in zip(names, counts, strict=True)}


def blanking_dataset(real: type, voxel: float) -> type:
    """Make a dataset of nnU-Net's that puts one value into every channel that a case lacks when it is loaded.

    Args:
        real: nnU-Net's class.
        voxel: 0, or NaN for a network that takes it for the mark of an absent modality.
    """

    def load_case(self: Any, identifier: str) -> tuple[Any, ...]:  # noqa: ANN401 - nnU-Net's dataset
        data, *others, properties = real.load_case(self, identifier)
        available = properties.get(AVAILABLE)
        if available is not None and not all(available):
            data = np.array(data[:])
            data[~np.array(available)] = voxel
        return data, *others, properties

    return type(real.__name__, (real,), {"load_case": load_case})
