"""One patient gives one result, however the files lie: cases are turned to the training data, segmentations back."""

import json
import pickle

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.base.orientation import TURNED
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from nnunetv2_d2net.plugin.preprocessing.preprocessor import accept_absent_files
from nnunetv2_d2net.plugin.preprocessing.turning import how_trained
from tests.unit.plugin.prediction.conftest import build_network, build_predictor
from tests.unit.plugin.preprocessing.conftest import brains, build_dataset_json, build_plans

TRANSPOSE = (1, 0, 2)
SPACING = (1.0, 1.2, 1.6)  # x, y, z; resampled
TILTED = (0.995, -0.0998, 0, 0.0998, 0.995, 0, 0, 0, 1)
OTHERS = ["RAS", "PIR", "SLA"]


def plans_of(orientation):
    plans = build_plans(["ZScoreNormalization"] * 3, spacing=(1.5, 1.0, 1.0), transpose=TRANSPOSE).plans
    return PlansManager(plans | ({ORIENTATION: orientation} if orientation else {}))


def predictor_of(orientation, kind=D2NetPredictor):
    plans = plans_of(orientation)
    return build_predictor(build_network(plans), plans, kind=kind)


def patient(channels=(0, 1, 2)):
    """Images by channel, which lie LPS and a little oblique."""
    images = {}
    for m in channels:
        image = sitk.GetImageFromArray(brains(margins=(2, 1, 1))[m])
        image.SetSpacing(SPACING)
        image.SetOrigin((5.0, -7.0, 3.0))
        image.SetDirection(TILTED)
        images[m] = image
    return images


def write(folder, orientation, channels=(0, 1, 2)):
    folder.mkdir()
    for m, image in patient(channels).items():
        sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(folder / f"a_{m:04d}.nii.gz"))
    return folder


def predict(predictor, source, target, **how):
    predictor.predict_from_files(str(source), str(target), **how)
    return sitk.ReadImage(str(target / "a.nii.gz")), json.loads(
        (target / "a.modalities.json").read_text(encoding="utf-8")
    )


def same_grid(segmentation, file):
    image = sitk.ReadImage(str(file))
    assert segmentation.GetSize() == image.GetSize()
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(segmentation, what)(), getattr(image, what)(), atol=1e-5)


def lps(segmentation):
    return sitk.GetArrayFromImage(sitk.DICOMOrient(segmentation, "LPS"))


@pytest.fixture
def upright(tmp_path):
    """What the patient's segmentation is where nothing is turned."""
    segmentation, note = predict(predictor_of(""), write(tmp_path / "lps", "LPS"), tmp_path / "upright")
    labels = sitk.GetArrayFromImage(segmentation)
    assert len(np.unique(labels)) == 3
    assert note["orientation"] == "LPS, not turned: the training data do not say how they lie"
    return labels


@pytest.mark.parametrize("orientation", OTHERS)
def test_a_turned_patient_gives_the_same_result_on_its_own_grid(orientation, upright, tmp_path):
    source = write(tmp_path / "in", orientation)
    segmentation, note = predict(predictor_of("LPS"), source, tmp_path / "out", save_probabilities=True)
    np.testing.assert_array_equal(lps(segmentation), upright)
    same_grid(segmentation, source / "a_0000.nii.gz")
    assert note["orientation"] == f"{orientation}, turned to LPS, as the training data lie, and the segmentation back"
    probabilities = np.load(tmp_path / "out" / "a.npz")["probabilities"]
    np.testing.assert_array_equal(probabilities.argmax(0), sitk.GetArrayFromImage(segmentation))
    with (tmp_path / "out" / "a.pkl").open("rb") as file:
        properties = pickle.load(file)
    assert TURNED not in properties
    np.testing.assert_allclose(properties["sitk_stuff"]["direction"], segmentation.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(properties["spacing"], segmentation.GetSpacing()[::-1], atol=1e-5)


def test_a_patient_that_lies_as_the_training_data_is_not_turned(upright, tmp_path):
    segmentation, note = predict(predictor_of("LPS"), tmp_path / "lps", tmp_path / "out")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(segmentation), upright)
    assert note["orientation"] == "LPS, not turned: the training data lie LPS"


def test_without_an_orientation_in_the_plans_nothing_is_turned(upright, tmp_path):
    """What stock nnU-Net gives."""
    source = write(tmp_path / "in", "RAS")
    segmentation, note = predict(predictor_of(""), source, tmp_path / "out")
    assert (lps(segmentation) != upright).mean() > 0.02
    assert note["orientation"] == "RAS, not turned: the training data do not say how they lie"
    stock = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    plans = plans_of("")
    network = build_network(plans)
    settings = (plans, plans.get_configuration("tiny"), [network.state_dict()], build_dataset_json(3), "T", None)
    stock.manual_initialization(network, *settings)
    (tmp_path / "stock").mkdir()
    stock.predict_from_files_sequential(str(source), str(tmp_path / "stock"))
    expected = sitk.ReadImage(str(tmp_path / "stock" / "a.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(segmentation), sitk.GetArrayFromImage(expected))


def test_an_incomplete_patient_and_every_subset(tmp_path):
    found = {}
    for orientation in ("LPS", "PIR"):
        folder = tmp_path / orientation
        folder.mkdir()
        source = write(folder / "in", orientation, channels=(0, 2))
        predictor_of("LPS", AllSubsetsPredictor).predict_from_files(str(source), str(folder / "out"))
        for path in (folder / "out").rglob("a.nii.gz"):
            segmentation = sitk.ReadImage(str(path))
            same_grid(segmentation, source / "a_0000.nii.gz")
            found.setdefault(path.parent.name, []).append(lps(segmentation))
    assert set(found) == {"FLAIR", "T1ce", "FLAIR+T1ce"}
    for one, other in found.values():
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("orientation", ["LPS", "SLA"])
def test_images_and_arrays_in_memory(orientation, upright):
    names = dict(enumerate(("FLAIR", "T1", "T1ce")))
    images = {names[m]: sitk.DICOMOrient(image, orientation) for m, image in patient().items()}
    predictor = predictor_of("LPS")
    segmentation = predictor.predict_images(images)
    np.testing.assert_array_equal(lps(segmentation), upright)
    assert segmentation.GetDirection() == images["T1"].GetDirection()
    array = np.stack([sitk.GetArrayFromImage(image) for image in images.values()])
    first = images["FLAIR"]
    place = {"spacing": first.GetSpacing(), "origin": first.GetOrigin(), "direction": first.GetDirection()}
    properties = {"spacing": first.GetSpacing()[::-1], "sitk_stuff": place}
    labels, probabilities = predictor.predict_single_npy_array(array, properties, save_or_return_probabilities=True)
    np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(segmentation))
    assert probabilities.shape[1:] == labels.shape
    del properties["sitk_stuff"]  # an array without a header is taken as it lies
    plain = predictor.predict_single_npy_array(array, properties)
    assert np.array_equal(plain, labels) == (orientation == "LPS")


def test_nnunets_own_predictor_turns_segmentations_back(upright, tmp_path):
    """As ``nnUNetv2_predict`` does, whose predictor gets its network from our trainers."""
    plans = plans_of("LPS")
    network, configuration = build_network(plans), plans.get_configuration("tiny")
    accept_absent_files(configuration, plans)
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    weights = [network.state_dict()]
    predictor.manual_initialization(network, plans, configuration, weights, build_dataset_json(3), "T", None)
    source = write(tmp_path / "in", "PIR")
    (tmp_path / "out").mkdir()
    predictor.predict_from_files_sequential(str(source), str(tmp_path / "out"))
    segmentation = sitk.ReadImage(str(tmp_path / "out" / "a.nii.gz"))
    same_grid(segmentation, source / "a_0000.nii.gz")
    np.testing.assert_array_equal(lps(segmentation), upright)


def test_files_that_do_not_say_where_the_sides_are_are_taken_as_they_lie(upright, tmp_path):
    source = write(tmp_path / "in", "RAS")
    for path in source.iterdir():
        image = nibabel.load(path)
        image.set_qform(None, code=0)
        image.set_sform(None, code=0)
        nibabel.save(image, path)
    segmentation, note = predict(predictor_of("LPS"), source, tmp_path / "out")
    untold, _ = predict(predictor_of(""), source, tmp_path / "untold")
    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(image) for image in (segmentation, untold)))
    assert note["orientation"] == "not known, not turned: the training data lie LPS"


def test_what_happens_is_told_once_when_a_model_is_loaded():
    assert how_trained({ORIENTATION: "LPS"}).startswith("images that do not lie LPS, as the training data, are turned")
    assert how_trained({}).endswith("no image is turned")


def test_the_remedy_for_mixed_cohorts_turns_whatever_it_reads(tmp_path):
    """nnU-Net's reader that turns to RAS: every orientation gives one result, each on its own grid."""
    plans = build_plans(["ZScoreNormalization"] * 3, spacing=(1.5, 1.0, 1.0), reader="SimpleITKIOWithReorient")
    plans = PlansManager(plans.plans | {ORIENTATION: "RAS"})  # as a trainer of ours notes it
    found = []
    for orientation in ("LPS", "PIR"):
        source = write(tmp_path / orientation, orientation)
        predictor = build_predictor(build_network(plans), plans)
        segmentation, note = predict(predictor, source, tmp_path / f"out_{orientation}")
        same_grid(segmentation, source / "a_0000.nii.gz")
        assert note["orientation"] == "RAS, not turned: the training data lie RAS"
        found.append(lps(segmentation))
    np.testing.assert_array_equal(*found)
