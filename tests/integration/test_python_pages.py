"""The Python that the documentation shows runs as it stands, where nnU-Net's variables are not set."""

import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from tests.pages import run_blocks


def write(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def write_raw_dataset(root, labels):
    folder = root / "Dataset018_Tumors"
    for channel in range(2):
        write(labels + np.float32(channel + 1), folder / "imagesTr" / f"case_{channel:04d}.nii.gz")
    write(labels, folder / "labelsTr" / "case.nii.gz")
    dataset = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}}
    text = json.dumps(dataset | {"numTraining": 1, "file_ending": ".nii.gz"})
    (folder / "dataset.json").write_text(text, encoding="utf-8")


def test_converting_inspecting_scoring_and_the_method_alone(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:9, 3:9, 3:9], labels[4:8, 4:8, 4:8], labels[5:7, 5:7, 5:7] = 2, 1, 3
    for number in range(3):
        case = f"BraTS-GLI-{number:05d}-000"
        for modality in ("t2f", "t1n", "t1c", "t2w") if number else ("t2f", "t1c"):
            image = rng.normal(labels + 5.0, 0.5).astype(np.float32)
            write(image, tmp_path / "BraTS2023" / case / f"{case}-{modality}.nii.gz")
        write(labels, tmp_path / "BraTS2023" / case / f"{case}-seg.nii.gz")
        for model, shift in (("d2net", 0), ("dropout", 1)):
            write(np.roll(labels, shift, 0), tmp_path / f"predictions_{model}" / f"{case}.nii.gz")
    write_raw_dataset(tmp_path / "nnUNet_raw", labels)
    printed = run_blocks(tmp_path, ("python.md", "# From Python"), ("inspect.md", "# Your cohort"))
    assert (tmp_path / "look" / "cohort.png").is_file()
    assert "nnUNet_raw/Dataset004_BraTS2023 has 3 training cases" in printed
    assert "'T1': 'absent'" in printed
    assert re.search(r"whole tumor: \+0\.\d{3} \(\+0\.\d{3} to \+0\.\d{3}\)", printed)


@pytest.mark.slow
def test_predicting(regions_model, tmp_path):
    images = regions_model.raw / "imagesTs"
    (tmp_path / "model").symlink_to(regions_model.folder)
    (tmp_path / "imagesTs").symlink_to(images)
    for name, channel in (("flair", 0), ("t2", 3)):
        shutil.copy(images / f"case_Ts0_{channel:04d}.nii.gz", tmp_path / f"{name}.nii.gz")
    run_blocks(tmp_path, ("prediction.md", "## From Python"), ("usage.md", "## Trainers"))
    assert {path.name for path in (tmp_path / "predictions").glob("*.nii.gz")} == {"case_Ts0.nii.gz", "case_Ts1.nii.gz"}
