"""What all unit tests share."""

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Give every test the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


def whole_plans(configurations=None, **changes):
    """Content of plans with all that nnU-Net reads; configurations say only what matters to the test."""
    network = {"n_stages": 2, "conv_op": "torch.nn.Conv3d", "dropout_op": None}
    settings = {
        "data_identifier": "data",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "batch_dice": False,
        "patch_size": [8, 8, 8],
        "spacing": [1, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg", "probabilities")},
        **{f"resampling_fn_{kind}_kwargs": {} for kind in ("data", "seg", "probabilities")},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "dropout_op"],
        },
    }
    configurations = {"3d_fullres": {}} if configurations is None else configurations
    plans = {
        "dataset_name": "Dataset007_Tiny",
        "plans_name": "D2NetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {n: c if "inherits_from" in c else settings | c for n, c in configurations.items()},
    }
    return plans | changes
