"""Cases on their way into the training: labels turn with images, and what is written goes back."""

import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.base.orientation import TURNED, orientation_of, turn
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.plugin.planning import fingerprint
from nnunetv2_d2net.plugin.planning.fingerprint import D2NetFingerprintExtractor
from nnunetv2_d2net.plugin.preprocessing.cohort import orientations_of
from nnunetv2_d2net.plugin.preprocessing.preprocessor import MissingModalityPlansManager, accept_absent_files
from nnunetv2_d2net.plugin.preprocessing.turning import as_trained, turning_back
from nnunetv2_d2net.plugin.training.companion import CompanionTrainer
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer
from tests.conftest import ANISOTROPIC_3D, nnunet_environment, write_raw_dataset
from tests.unit.plugin.preprocessing.conftest import build_dataset_json, build_plans


def read(path, orientation="RAS"):
    """A label map ``(1, z, y, x)`` of 3, 4 and 5 voxels, and its properties."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8))
    image.SetSpacing((1.0, 2.0, 3.0))
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return SimpleITKIO().read_seg(str(path))


def test_labels_turn_with_images_and_stay_where_nothing_is_known(tmp_path):
    label, properties = read(tmp_path / "a.nii.gz", "PIR")
    images = np.stack([label[0], 9 - label[0]])
    turned, seg, found = as_trained(images, label, properties, {ORIENTATION: "LPS"})
    np.testing.assert_array_equal(seg, turn(label, "PIR", "LPS"))
    np.testing.assert_array_equal(turned, np.stack([seg[0], 9 - seg[0]]))
    assert (orientation_of(found), found["spacing"]) == ("LPS", [3.0, 2.0, 1.0])
    assert as_trained(images, None, properties, {ORIENTATION: "LPS"})[1] is None
    for plans in ({}, {ORIENTATION: "PIR"}):
        assert as_trained(images, label, properties, plans) == (images, label, properties)
    assert as_trained(images, label, {"spacing": [1, 1, 1]}, {ORIENTATION: "LPS"})[2] == {"spacing": [1, 1, 1]}


def test_a_training_case_is_turned_and_its_segmentation_written_onto_its_own_grid(tmp_path):
    """As nnU-Net's final validation writes it, in a process that the writer is sent to."""
    label, _ = read(tmp_path / "a.nii.gz", "PIR")
    plans = build_plans(["ZScoreNormalization"], spacing=(3.0, 2.0, 1.0)).plans | {ORIENTATION: "LPS"}
    plans = MissingModalityPlansManager(plans)
    preprocessor = plans.get_configuration("tiny").preprocessor_class(verbose=False)
    files = [str(tmp_path / "a.nii.gz")]
    settings = (plans, plans.get_configuration("tiny"), build_dataset_json(1))
    _, seg, properties = preprocessor.run_case(files, files[0], *settings)
    np.testing.assert_array_equal(np.maximum(seg, 0), turn(label, "PIR", "LPS"))
    assert properties[TURNED]["from"] == "PIR"
    writer = pickle.loads(pickle.dumps(plans.image_reader_writer_class()))
    writer.write_seg(np.maximum(seg[0], 0), str(tmp_path / "written.nii.gz"), properties)
    written, place = SimpleITKIO().read_seg(str(tmp_path / "written.nii.gz"))
    np.testing.assert_array_equal(written, label)
    assert place == SimpleITKIO().read_seg(files[0])[1]


def test_readers_keep_their_names_and_are_wrapped_once():
    writer = turning_back(SimpleITKIO)
    assert issubclass(writer, SimpleITKIO)
    assert writer.__name__ == "SimpleITKIO"
    assert turning_back(writer) is writer


def test_only_nnunets_own_plans_get_our_writer():
    plans = build_plans(["ZScoreNormalization"])
    accept_absent_files(plans.get_configuration("tiny"))
    assert type(plans) is PlansManager
    accept_absent_files(plans.get_configuration("tiny"), plans)
    assert type(plans) is MissingModalityPlansManager
    assert type(pickle.loads(pickle.dumps(plans))) is MissingModalityPlansManager


# How training data lie


def save(folder, **orientations):
    folder.mkdir(exist_ok=True)
    for case, orientation in orientations.items():
        properties = read(folder / "label.nii.gz", orientation)[1] if orientation else {"spacing": [1, 1, 1]}
        with (folder / f"{case}.pkl").open("wb") as file:
            pickle.dump(properties, file)


def test_preprocessed_cases_are_counted(tmp_path):
    save(tmp_path / "data", a="LPS", b="RAS", c="LPS", d="")
    assert orientations_of(tmp_path / "data") == Counter({"LPS": 2, "RAS": 1, "": 1})
    assert not orientations_of(tmp_path / "none")


@pytest.mark.parametrize(
    ("cases", "before", "after"),
    [
        ({"a": "RAS", "b": "RAS"}, "", "RAS"),
        ({"a": "RAS", "b": "RAS"}, "LPS", "RAS"),  # plans that were made for other data
        ({"a": "RAS", "b": "LPS"}, "LPS", ""),
        ({"a": "RAS", "b": ""}, "", ""),
        ({"a": "", "b": ""}, "LPS", "LPS"),
        ({}, "", ""),
    ],
)
def test_a_trainer_lets_the_plans_say_how_its_cases_lie(tmp_path, cases, before, after):
    save(tmp_path / "data", **cases)
    said, plans = [], {ORIENTATION: before} if before else {}
    trainer = SimpleNamespace(
        plans_manager=SimpleNamespace(plans=plans),
        preprocessed_dataset_folder=str(tmp_path / "data"),
        print_to_log_file=said.append,
    )
    trainer._orientations = lambda: ModalityDroppingTrainer._orientations(trainer)
    ModalityDroppingTrainer._note_orientation(trainer)
    assert plans.get(ORIENTATION, "") == after
    assert len(said) == (len(set(cases.values())) > 1)
    kept = dict(plans)
    CompanionTrainer._note_orientation(trainer)  # what stock nnU-Net predicts, it predicts
    assert plans == kept


def test_a_mixed_cohort_is_told_when_it_is_planned(tmp_path, caplog):
    with nnunet_environment(tmp_path):
        raw = write_raw_dataset(tmp_path / "raw", ANISOTROPIC_3D)
        for path in raw.rglob("case_Tr1*.nii.gz"):
            sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS"), str(path))
        extractor = D2NetFingerprintExtractor.__new__(D2NetFingerprintExtractor)
        extractor.num_foreground_voxels_for_intensitystats, extractor.show_progress_bar = 1000, False
        extractor.num_processes = 1
        dataset = fingerprint.Dataset.read(raw / "dataset.json")
        content = extractor._fingerprint(dataset, fingerprint.training_cases(raw, dataset))
    assert not any("orientation" in key for key in content)
    assert [line for line in caplog.messages if line.startswith("cases lie in several ways (LPS 4, RAS 1): ")]
