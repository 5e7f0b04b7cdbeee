"""Plans, trainers and batches of any size, without a data set: what a step costs does not depend on what it sees."""

import contextlib
import functools
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.plugin.training.conditioned import nnUNetTrainerModalityDropoutConditioned
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.repeating import nnUNetTrainerModalityDropoutConditionedRepeated
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from nnunetv2_d2net.plugin.training.variants import nnUNetTrainerModalityDropout
from nnunetv2_d2net.study.pipeline import make_ready

NAME, PLANS = "Dataset001_Synthetic", "SyntheticPlans"


class D2NetTrainerRecomputing(D2NetTrainer):
    """D2NetTrainer with activation checkpointing of the branches that only training needs."""

    network_options: ClassVar[D2NetOptions] = D2NetTrainer.network_options._replace(recompute_branches=True)


ARMS: Mapping[str, type[nnUNetTrainer]] = {
    "nnUNetTrainerModalityDropout": nnUNetTrainerModalityDropout,
    "D2NetTrainer": D2NetTrainer,
    "D2NetTrainer, recomputing": D2NetTrainerRecomputing,
    "nnUNetTrainerModalityDropoutImputed": nnUNetTrainerModalityDropoutImputed,
    "nnUNetTrainerModalityDropoutConditioned": nnUNetTrainerModalityDropoutConditioned,
    "nnUNetTrainerModalityDropoutConditionedRepeated": nnUNetTrainerModalityDropoutConditionedRepeated,
}


HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Setting(NamedTuple):
    """Size of a training.

    Attributes:
        patch: In voxels, two or three axes.
        channels: Of the U-Net at full resolution; they double per stage up to nnU-Net's limit.
        n_cases: B.
        n_modalities: M.
        n_targets: C, regions.
        max_poolings: Of the U-Net along one axis, however long that is.
    """

    patch: tuple[int, ...]
    channels: int = 32
    n_cases: int = 2
    n_modalities: int = 4
    n_targets: int = 3
    max_poolings: int = 999

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.patch))}, {self.channels} channels, {self.n_cases} cases"


TOY = Setting((16, 16, 16), 4)
PHANTOM = Setting((32, 40, 32), 8)
"""The plans that D2NetSmallPlanner makes for the phantom."""


def make_plans(setting: Setting) -> dict[str, Any]:
    """Return plans as nnU-Net makes them for a patch of this size and isotropic voxels."""
    dim = len(setting.patch)
    _, strides, kernel_sizes, _, _ = get_pool_and_conv_props([1.0] * dim, list(setting.patch), 4, setting.max_poolings)
    strides, kernel_sizes = ([[int(n) for n in one] for one in sizes] for sizes in (strides, kernel_sizes))
    n_stages = len(strides)
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [min(320 if dim == 3 else 512, setting.channels * 2**i) for i in range(n_stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": kernel_sizes,
            "strides": strides,
            "n_conv_per_stage": [2] * n_stages,
            "n_conv_per_stage_decoder": [2] * (n_stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": PLANS,
        "batch_size": setting.n_cases,
        "patch_size": list(setting.patch),
        "normalization_schemes": ["ZScoreNormalization"] * setting.n_modalities,
        "architecture": architecture,
        "batch_dice": dim == 2,
    }
    return {
        "dataset_name": NAME,
        "plans_name": PLANS,
        "configurations": {"synthetic": configuration},
        "label_manager": "LabelManager",
        "continue_training": False,
    }


def make_unet(setting: Setting) -> nn.Module:
    """Return the U-Net that the plans describe, without deep supervision, on torch's default device."""
    architecture = make_plans(setting)["configurations"]["synthetic"]["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        setting.n_modalities,
        setting.n_targets,
        allow_init=False,
        deep_supervision=False,
    )


def make_trainer(trainer_class: type[nnUNetTrainer], setting: Setting, device: str) -> nnUNetTrainer:
    """Return a trainer that is ready to step; needs :func:`nnunet_folders`."""
    dataset_json = {
        "channel_names": {str(m): f"modality {m}" for m in range(setting.n_modalities)},
        "labels": {"background": 0}
        | {f"region {c}": list(range(c, setting.n_targets + 1)) for c in range(1, setting.n_targets + 1)},
        "regions_class_order": list(range(1, setting.n_targets + 1)),
        "file_ending": ".nii.gz",
    }
    with contextlib.redirect_stdout(io.StringIO()):
        return make_ready(trainer_class(make_plans(setting), "synthetic", "all", dataset_json, torch.device(device)))


def set_half(trainer: Any, half: str) -> None:  # noqa: ANN401 - one of this package, whose precision can be set
    """Let a trainer step in one of the :data:`HALVES`, also on a CPU, with a gradient scaler where that needs one."""
    device = trainer.device.type
    trainer.autocast = functools.partial(torch.autocast, device, HALVES[half])
    trainer.grad_scaler = torch.amp.GradScaler(device) if half == "float16" else None


def make_batch(setting: Setting, trainer: nnUNetTrainer) -> dict[str, Any]:
    """Return a batch as nnU-Net's loader does, the same for every trainer on these plans."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(setting.n_cases, setting.n_modalities, *setting.patch, generator=generator)
    noise = torch.rand(setting.n_cases, 1, *setting.patch, generator=generator)
    limits = torch.arange(1, setting.n_targets + 1) / (setting.n_targets + 1)
    regions = noise > limits.view(1, -1, *[1] * len(setting.patch))  # nested
    return {
        "data": images,
        "target": [
            regions[(..., *(slice(None, None, round(1 / s)) for s in scale))].contiguous()
            for scale in trainer._get_deep_supervision_scales()
        ],
        "keys": ["case"] * setting.n_cases,
    }


def do_step(trainer: nnUNetTrainer, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Do one training step, without what D2NetTrainer measures in the first of an epoch; return its loss."""
    if isinstance(trainer, D2NetTrainer):
        trainer.train_step_index = 1
    return trainer.train_step(dict(batch))


def state_bytes(trainer: nnUNetTrainer) -> int:
    """Return what weights and optimizer hold between two steps; a step frees the gradients that it finds."""
    tensors = [*trainer.network.parameters(), *trainer.network.buffers()]
    for state in trainer.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


@contextlib.contextmanager
def nnunet_folders() -> Iterator[Path]:
    """Give nnU-Net empty folders for as long as this lasts."""
    names = ("raw", "preprocessed", "results")
    before = {f"nnUNet_{name}": os.environ.get(f"nnUNet_{name}") for name in names}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in names:
            (root / name / NAME).mkdir(parents=True)
            os.environ[f"nnUNet_{name}"] = str(root / name)
        data = root / "preprocessed" / NAME / PLANS
        data.mkdir()
        (data / "case.b2nd").touch()  # by which nnU-Net knows the format
        try:
            yield root
        finally:
            for variable, value in before.items():
                os.environ.pop(variable) if value is None else os.environ.update({variable: value})
