"""Training cases that lack modalities, from raw files to predictions."""

import json
import random
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.preprocessing.cohort import availability_file
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.conftest import RawDataset, write_raw_dataset
from tests.integration.conftest import d2net, make_trainer, plan_d2net, plan_stock, tiny_nnunet

SPEC = RawDataset(
    807,
    "Incomplete",
    (20, 24, 20),
    (1.0, 1.0, 1.0),
    ("FLAIR", "T1", "T1ce", "T2"),
    {"background": 0, "lesion": 1},
    None,
    8,
)
ABSENT = {0: (2,), 1: (0, 2), 2: (2, 3), 3: (1, 2)}  # half of the cases; T1ce is left to four, of which two are dummies
DUMMIES = {4: 2, 5: 2}
FLAGS = {
    f"case_Tr{case}": [m not in ABSENT.get(case, ()) and DUMMIES.get(case) != m for m in range(4)] for case in range(8)
}
OFFSET = 1000.0


@pytest.fixture(scope="module")
def cohort(root):
    """Planned and preprocessed by our command, with nnU-Net's check of the data set."""
    with tiny_nnunet(root):
        raw = write_raw_dataset(root / "raw", SPEC)
        for case, channels in ABSENT.items():
            for channel in channels:
                (raw / "imagesTr" / f"case_Tr{case}_{channel:04d}.nii.gz").unlink()
        for path in (raw / "imagesTr").glob("*_0002.nii.gz"):
            case = int(path.name.split("_")[1].removeprefix("Tr"))
            image = sitk.ReadImage(str(path))
            sitk.WriteImage(image * 0 if case in DUMMIES else image + OFFSET, str(path))
        plan_d2net(SPEC, "-c", "3d_fullres", "-np", 1, "--verify_dataset_integrity")
        yield root / "preprocessed" / SPEC.folder_name


@pytest.fixture(scope="module")
def data(cohort):
    return cohort / "D2NetPlans_3d_fullres"


def test_what_a_case_lacks_is_noted_beside_the_data(data):
    content = json.loads(availability_file(data).read_text(encoding="utf-8"))
    assert (content["modalities"], content["available"]) == (list(SPEC.channels), FLAGS)
    sizes = content["raw_sizes"]
    assert sizes.keys() == FLAGS.keys()
    assert {len(sizes["case_Tr1"]), len(sizes["case_Tr7"])} == {3, 5}  # label included
    assert all(size > 0 for of_case in sizes.values() for size in of_case.values())


def test_an_absent_channel_is_zero_and_the_others_are_normalized(data):
    dataset = nnUNetDatasetBlosc2(str(data))
    for case, flags in FLAGS.items():
        images, _, _, properties = dataset.load_case(case)
        assert properties["available_modalities"] == flags
        for image, flag in zip(images[:], flags, strict=True):
            assert image.any() == flag
            if flag:
                assert abs(image.mean()) < 1e-3
                assert image.std() == pytest.approx(1, abs=1e-3)


def test_intensities_come_from_real_images_only(cohort):
    fingerprint = json.loads((cohort / "dataset_fingerprint.json").read_text(encoding="utf-8"))
    of_t1ce = fingerprint["foreground_intensity_properties_per_channel"]["2"]
    assert of_t1ce["min"] > OFFSET / 2
    assert of_t1ce["std"] < OFFSET / 10
    assert len(fingerprint["spacings"]) == SPEC.n_train
    assert fingerprint["d2net_appearance"]["plain background"] in (True, False)


def test_the_fingerprint_of_complete_cases_is_nnunets(tmp_path):
    spec = RawDataset(808, "Complete", SPEC.shape, SPEC.spacing, SPEC.channels, SPEC.labels, None, 5, 1)
    with tiny_nnunet(tmp_path):
        write_raw_dataset(tmp_path / "raw", spec)
        path = tmp_path / "preprocessed" / spec.folder_name / "dataset_fingerprint.json"
        plan_stock(spec, "-c", "3d_fullres", "--no_pp")
        expected = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        plan_d2net(spec, "-c", "3d_fullres", "--no_pp")
    ours = json.loads(path.read_text(encoding="utf-8"))
    properties = "foreground_intensity_properties_per_channel"
    for channel, statistics in expected.pop(properties).items():
        assert ours[properties][channel] == pytest.approx(statistics, rel=1e-5)
    del ours[properties]
    del ours["d2net_appearance"]  # nnU-Net does not note it
    assert ours == expected


def test_folds_have_incomplete_cases_each(cohort, root):
    trainer = make_trainer(root, SPEC, "D2NetPlans")
    trainer.do_split()
    splits = json.loads((cohort / "splits_final.json").read_text(encoding="utf-8"))
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == sorted(FLAGS)
    assert all(set(split["train"]) | set(split["val"]) == set(FLAGS) for split in splits)
    assert {len(split["val"]) for split in splits} == {1, 2}


def seeded_training(root, trainer_class, monkeypatch):
    """Train two steps and validate, everything in this process; return weights and what the trainer was shown."""
    monkeypatch.setattr(trainer_class, "n_epochs", 1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    trainer = make_trainer(root, SPEC, "D2NetPlans", trainer=trainer_class, fold="all")
    seen, step_on = [], trainer.step_on

    def spy(batch, present, available):
        seen.append((present.clone(), available.clone()))
        return step_on(batch, present, available)

    trainer.step_on = spy
    trainer.run_training()
    return {name: weight.clone() for name, weight in trainer.network.state_dict().items()}, seen


@pytest.mark.parametrize("trainer_class", [D2NetTrainer, nnUNetTrainerModalityDropout])
def test_voxels_of_absent_modalities_have_no_influence(data, root, monkeypatch, trainer_class):
    pristine = data.with_name("pristine")
    weights, seen = seeded_training(root, trainer_class, monkeypatch)
    assert all((available <= present).all() and available.any(1).all() for present, available in seen)
    assert any(not present.all() for present, _ in seen)
    shutil.copytree(data, pristine)
    try:
        rng, dataset = np.random.default_rng(1), nnUNetDatasetBlosc2(str(pristine))
        for case, flags in FLAGS.items():
            images, labels, _, properties = dataset.load_case(case)
            images, labels = np.array(images[:]), np.array(labels[:])
            images[~np.array(flags)] = rng.normal(scale=50, size=images.shape)[~np.array(flags)]
            (data / f"{case}.b2nd").unlink()
            (data / f"{case}_seg.b2nd").unlink()
            nnUNetDatasetBlosc2.save_case(images, labels, properties, str(data / case))
        again, _ = seeded_training(root, trainer_class, monkeypatch)
    finally:
        shutil.rmtree(data)
        pristine.rename(data)
    assert all(torch.equal(weight, again[name]) for name, weight in weights.items())


def test_trained_validated_and_predicted(cohort, root, tmp_path, monkeypatch):
    monkeypatch.setattr(D2NetTrainer, "n_epochs", 1)
    words = [SPEC.dataset_id, "3d_fullres", 0, "-device", "cpu"]
    assert d2net("train", *words) == 0
    fold = root / "results" / SPEC.folder_name / "D2NetTrainer__D2NetPlans__3d_fullres" / "fold_0"
    assert (fold / "validation" / "summary.json").is_file()
    images = root / "raw" / SPEC.folder_name / "imagesTs"
    (images / "case_Ts0_0001.nii.gz").unlink()
    words = ["-i", images, "-o", tmp_path, "-d", SPEC.dataset_id, "-c", "3d_fullres", "-f", 0, "-device", "cpu"]
    assert d2net("predict", *words, "--disable_tta") == 0
    assert {path.name for path in tmp_path.glob("*.nii.gz")} == {"case_Ts0.nii.gz", "case_Ts1.nii.gz"}


def test_a_case_that_preprocessing_has_not_seen(data, root):
    trainer = make_trainer(root, SPEC, "D2NetPlans")
    with pytest.raises(UserError, match=r"available_modalities.json does not know new: preprocess again"):
        trainer.present_modalities({"data": torch.zeros(1, 4, 2, 2, 2), "keys": ["new"]})


@pytest.mark.parametrize("text", ["", "[]", '{"modalities": ["a", "b"], "available": {"x": [true]}}'])
def test_a_damaged_note(data, root, text):
    path = availability_file(data)
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"available_modalities.json.*: preprocess again"):
            _ = make_trainer(root, SPEC, "D2NetPlans").cohort
    finally:
        path.write_text(before, encoding="utf-8")


def plan_fails(root, capsys, *words):
    assert main(["plan_and_preprocess", "-d", "809", "-npfp", "1", "--no_pbar", "--no_pp", *words]) == 1
    return capsys.readouterr().err


def test_bad_cases_are_told_one_by_one(tmp_path, capsys):
    spec = RawDataset(
        809, "Bad", (12, 12, 12), (1.0, 1.0, 1.0), ("T1", "T2"), {"background": 0, "lesion": 1}, None, 5, 1
    )
    with tiny_nnunet(tmp_path):
        raw = write_raw_dataset(tmp_path / "raw", spec)
        for channel in range(2):
            path = raw / "imagesTr" / f"case_Tr0_{channel:04d}.nii.gz"
            sitk.WriteImage(sitk.ReadImage(str(path)) * 0, str(path))
        path = raw / "imagesTr" / "case_Tr1_0001.nii.gz"
        path.write_bytes(path.read_bytes()[:-40])
        label = raw / "labelsTr" / "case_Tr2.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(label))[1:], str(label))
        lines = plan_fails(tmp_path, capsys).splitlines()
        for case, words in ((0, "every image is constant"), (1, "cut short"), (2, "differ in shape")):
            assert any(f"training case 'case_Tr{case}'" in line and words in line for line in lines)
        assert "3 of 5 training cases cannot be used" in lines[-1]
        assert not (tmp_path / "preprocessed" / spec.folder_name / "dataset_fingerprint.json").exists()
        for name in ("0", "1", "2"):
            for path in raw.glob(f"*Tr/case_Tr{name}*"):
                path.unlink()
        for path in (raw / "imagesTr").glob("*_0001.nii.gz"):
            path.unlink()
        assert "no training case has T2" in plan_fails(tmp_path, capsys)
