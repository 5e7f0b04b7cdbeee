"""Plans of tiny configurations, as nnU-Net writes them, and files of images."""

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def architecture(dim=3):
    """A U-Net of two stages."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 6],
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [[3] * dim] * 2,
            "strides": [[1] * dim, [2] * dim],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
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


def build_plans(
    schemes, *, use_mask=False, spacing=(1.0, 1.0, 1.0), patch_size=(8, 8, 8), reader="SimpleITKIO", transpose=(0, 1, 2)
):
    """Plans with one configuration, ``tiny``, whose channels are normalized by these schemes."""
    resampling = {f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")}
    configuration = {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "spacing": list(spacing),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [use_mask] * len(schemes),
        **resampling,
        "resampling_fn_data_kwargs": RESAMPLING | {"order": 3},
        "resampling_fn_seg_kwargs": RESAMPLING | {"is_seg": True},
        "resampling_fn_probabilities_kwargs": RESAMPLING,
        "architecture": architecture(len(patch_size)),
        "batch_dice": False,
    }
    # the channels differ, so that a value normalized as another channel is told apart
    intensities = {
        str(i): {"mean": 10.0 + i, "std": 5.0 + i, "percentile_00_5": -20.0 - i, "percentile_99_5": 60.0 + i}
        for i in range(len(schemes))
    }
    plans = {
        "dataset_name": "Dataset007_Tiny",
        "plans_name": "TinyPlans",
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": [int(axis) for axis in np.argsort(transpose)],
        "configurations": {"tiny": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": intensities,
    }
    return PlansManager(plans)


def build_dataset_json(n_modalities, file_ending=".nii.gz"):
    names = ("FLAIR", "T1", "T1ce", "T2")[:n_modalities]
    channels = {str(i): name for i, name in enumerate(names)}
    return {"channel_names": channels, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": file_ending}


def write_image(path, array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None):
    """Write voxels (z, y, x) with a geometry (x, y, z); return the path as nnU-Net has it."""
    image = sitk.GetImageFromArray(np.asarray(array, dtype=np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), useCompression=True)
    return str(path)


def brains(n_modalities=3, shape=(10, 12, 11), seed=0, margins=None):
    """Images ``(M, *shape)``, zero outside a box whose margin may differ between modalities."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n_modalities, *shape), np.float32)
    for m, margin in enumerate(margins or [1] * n_modalities):
        box = tuple(slice(margin, n - margin) for n in shape)
        images[m][box] = rng.normal(20 * (m + 1), 5, images[m][box].shape)
    return images


@pytest.fixture
def rng():
    return np.random.default_rng(0)
