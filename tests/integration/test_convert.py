"""Converted data sets in nnU-Net's own hands."""

import numpy as np
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.preprocessing.cohort import read_availability
from tests.conftest import nnunet_environment
from tests.unit.data.convert.source_folders import NEW, OLD, write_nifti

SHAPE = (20, 24, 20)


def write_cohort(folder, suffixes, absent=()):
    """Five cases with a ball of all labels in noise, of which some lack images; spaces in names."""
    distance = np.linalg.norm(np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) / 2, axis=0)
    enhancing = 4 if suffixes is OLD else 3
    label = np.select([distance < 3, distance < 5, distance < 8], [1, enhancing, 2], 0).astype(np.float32)
    for number in range(5):
        rng = np.random.default_rng(number)
        for channel, (slot, suffix) in enumerate(suffixes.items()):
            image = (100 * (channel + 1) + 30 * label + rng.normal(0, 10, SHAPE)).astype(np.float32)
            if (number, slot) not in absent:
                path = folder / f"case {number}" / f"case {number}{suffix}{'.nii' if number % 2 else '.nii.gz'}"
                write_nifti(path, label if slot == "seg" else image)


@pytest.mark.slow
def test_nnunet_accepts_a_complete_cohort(tmp_path):
    write_cohort(tmp_path / "source", OLD)
    with nnunet_environment(tmp_path):
        assert main(["convert", str(tmp_path / "source"), "-d", "18", "--name", "Whole", "-np", "1"]) == 0
        verify_dataset_integrity(str(tmp_path / "raw" / "Dataset018_Whole"), 1)


@pytest.mark.slow
def test_an_incomplete_cohort_is_planned_and_preprocessed(tmp_path):
    write_cohort(tmp_path / "source", NEW, absent={(0, "FLAIR"), (0, "T1"), (3, "T1ce")})
    with nnunet_environment(tmp_path):
        words = ["convert", str(tmp_path / "source"), "-d", "23", "--name", "Gaps", "-np", "1", "--link"]
        assert main(words) == 0
        words = ["plan_and_preprocess", "-d", "23", "-pl", "D2NetSmallPlanner", "-c", "3d_fullres"]
        assert main([*words, "--verify_dataset_integrity", "-np", "1", "-npfp", "1"]) == 0
        folder = tmp_path / "preprocessed" / "Dataset023_Gaps" / "D2NetSmallPlans_3d_fullres"
        available = read_availability(folder)
    assert available == {
        "case 0": [False, False, True, True],
        "case 1": [True] * 4,
        "case 2": [True] * 4,
        "case 3": [True, True, False, True],
        "case 4": [True] * 4,
    }
