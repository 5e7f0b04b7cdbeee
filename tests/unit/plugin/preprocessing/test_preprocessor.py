import copy
import json
import pickle

import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.preprocessor import (
    AVAILABLE,
    CONSTANT,
    MissingModalityConfiguration,
    MissingModalityPreprocessor,
    accept_absent_files,
    accepting_absent_files,
    available_in,
    planned_shape,
)
from tests.unit.plugin.preprocessing.conftest import brains, build_dataset_json, build_plans, write_image

Z_SCORE, CT = "ZScoreNormalization", "CTNormalization"
SETTINGS = {
    "z-score": {"schemes": [Z_SCORE] * 3},
    "z-score in the mask": {"schemes": [Z_SCORE] * 3, "use_mask": True},
    "CT": {"schemes": [CT] * 3},
    "CT in the mask": {"schemes": [CT] * 3, "use_mask": True},
    "mixed": {"schemes": [CT, Z_SCORE, "RescaleTo01Normalization"]},
    "resampled": {"schemes": [Z_SCORE, CT, Z_SCORE], "spacing": (1.5, 0.8, 1.2)},
    "resampled, transposed": {
        "schemes": [CT] * 3,
        "use_mask": True,
        "spacing": (0.9, 1.0, 2.0),
        "transpose": (2, 0, 1),
    },
    "2d": {"schemes": [Z_SCORE, CT, CT], "spacing": (0.8, 1.2), "patch_size": (8, 8)},
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def settings(request):
    return request.param


def run(preprocessor, images, plans, seg=None, **properties):
    content = build_dataset_json(len(images))
    properties = {"spacing": [1.0, 1.0, 1.0], **properties}
    configuration = plans.get_configuration("tiny")
    return preprocessor(verbose=False).run_case_npy(images, seg, properties, plans, configuration, content)


def with_channels_only(settings, kept):
    """Plans of a model that has these channels alone."""
    plans = build_plans(**settings | {"schemes": [settings["schemes"][m] for m in kept]})
    all_intensities = build_plans(**settings).foreground_intensity_properties_per_channel
    plans.plans["foreground_intensity_properties_per_channel"] = {
        str(i): all_intensities[str(m)] for i, m in enumerate(kept)
    }
    return plans


def same_properties(ours, theirs):
    extra = {AVAILABLE, CONSTANT}
    assert {key: value for key, value in ours.items() if key not in extra} == theirs


def test_a_complete_case_comes_out_bit_for_bit_as_nnunets(settings):
    images, plans = brains(margins=(1, 2, 3)), build_plans(**settings)
    seg = (images[:1] > 15).astype(np.int16)
    for labels in (None, seg):
        ours = run(MissingModalityPreprocessor, images, plans, labels)
        theirs = run(DefaultPreprocessor, images, plans, labels)
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
        assert ours[2].pop(AVAILABLE) == [True, True, True]
        assert str(ours[2]) == str(theirs[2])


@pytest.mark.parametrize("kept", [[0], [2], [0, 1], [1, 2], [0, 2]])
@pytest.mark.parametrize("margins", [(1, 2, 3), (3, 2, 1), (2, 1, 2)])
def test_an_absent_modality_changes_nothing_about_the_others(settings, kept, margins):
    images = brains(margins=margins)
    absent = [m for m in range(3) if m not in kept]
    flags = [m in kept for m in range(3)]
    data, seg, properties = run(
        MissingModalityPreprocessor, images, build_plans(**settings), available_modalities=flags
    )
    expected, expected_seg, expected_properties = run(
        DefaultPreprocessor, images[kept], with_channels_only(settings, kept)
    )
    assert np.array_equal(data[kept], expected)
    assert np.array_equal(seg, expected_seg)
    assert (data[absent] == 0).all(), "CT normalization would turn 0 into something else"
    assert properties[AVAILABLE] == flags
    same_properties(properties, expected_properties)


@pytest.mark.parametrize("content", [0, 3, np.nan, 1e6])
def test_what_an_absent_modality_holds_is_ignored(content):
    images, plans = brains(), build_plans([CT, Z_SCORE, CT])
    expected = run(MissingModalityPreprocessor, images, plans, available_modalities=[True, False, True])
    images[1] = content
    given = run(MissingModalityPreprocessor, images.copy(), plans, available_modalities=[True, False, True])
    assert np.array_equal(given[0], expected[0])
    assert given[2] == expected[2]


def test_the_callers_images_stay_as_they_are():
    images = brains()
    before = images.copy()
    run(MissingModalityPreprocessor, images, build_plans([CT] * 3), available_modalities=[False, True, True])
    assert np.array_equal(images, before)


def test_a_constant_image_counts_as_absent_without_flags():
    images = brains()
    images[2] = 40  # would make the crop the whole image
    data, _, properties = run(MissingModalityPreprocessor, images, build_plans([Z_SCORE] * 3))
    expected, _, expected_properties = run(DefaultPreprocessor, images[:2], build_plans([Z_SCORE] * 2))
    assert np.array_equal(data[:2], expected)
    assert not data[2].any()
    assert properties["bbox_used_for_cropping"] == expected_properties["bbox_used_for_cropping"]
    assert properties[AVAILABLE] == [True, True, False]


@pytest.fixture
def files(tmp_path):
    return [write_image(tmp_path / f"a_{m:04d}.nii.gz", image) for m, image in enumerate(brains(margins=(1, 2, 3)))]


def run_files(preprocessor, files, seg=None, n_modalities=3, dataset_json=None):
    plans = build_plans([CT] * n_modalities, spacing=(1.2, 1.0, 1.0))
    content = dataset_json or build_dataset_json(n_modalities)
    return preprocessor(verbose=False).run_case(files, seg, plans, plans.get_configuration("tiny"), content)


def test_files_of_a_complete_case(files, tmp_path):
    seg = write_image(tmp_path / "seg.nii.gz", brains()[0] > 15)
    for labels in (None, seg):
        ours, theirs = (run_files(p, files, labels) for p in (MissingModalityPreprocessor, DefaultPreprocessor))
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
        assert (ours[2].pop(AVAILABLE), ours[2].pop(CONSTANT)) == ([True] * 3, [])
        assert str(ours[2]) == str(theirs[2])


@pytest.mark.parametrize("there", [[0], [1, 2], [2]])
def test_files_of_an_incomplete_case(files, there):
    data, _, properties = run_files(MissingModalityPreprocessor, [files[m] for m in there])
    arrays = brains(margins=(1, 2, 3))
    expected, _, expected_properties = run(
        DefaultPreprocessor, arrays[there], with_channels_only({"schemes": [CT] * 3, "spacing": (1.2, 1.0, 1.0)}, there)
    )
    assert np.array_equal(data[there], expected)
    assert not data[[m for m in range(3) if m not in there]].any()
    assert properties["bbox_used_for_cropping"] == expected_properties["bbox_used_for_cropping"]


def test_a_constant_file_is_said(files, caplog):
    write_image(files[1], np.full((10, 12, 11), 5))
    _, _, properties = run_files(MissingModalityPreprocessor, files)
    assert f"{files[1]} is constant and counts as absent" in caplog.messages
    assert not [line for line in caplog.messages if f"{files[1]} shows" in line]
    assert properties[CONSTANT] == [files[1]]
    assert properties[AVAILABLE] == [True, False, True]


def test_dataset_json_may_be_a_file(files, tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(build_dataset_json(3)), encoding="utf-8")
    assert run_files(MissingModalityPreprocessor, files[1:], dataset_json=str(path))[2][AVAILABLE] == [
        False,
        True,
        True,
    ]


class Doubled(DefaultPreprocessor):
    def _normalize(self, *args):
        return 2 * super()._normalize(*args)


def test_any_preprocessor_of_the_plans_can_do_it(files):
    accepting = accepting_absent_files(Doubled)
    assert issubclass(accepting, Doubled)
    assert accepting_absent_files(accepting) is accepting
    single, double = (run_files(p, files[1:])[0] for p in (MissingModalityPreprocessor, accepting))
    assert np.allclose(double, 2 * single)
    assert single[1:].any()


def test_the_configuration_hands_out_our_preprocessor():
    configuration = build_plans([CT] * 3).get_configuration("tiny")
    accept_absent_files(configuration)
    first = configuration.preprocessor_class
    assert issubclass(first, MissingModalityPreprocessor)
    accept_absent_files(configuration)
    assert configuration.preprocessor_class is first
    assert configuration.patch_size == [8, 8, 8]


def test_the_configuration_travels_to_other_processes():
    configuration = build_plans([CT] * 3).get_configuration("tiny")
    accept_absent_files(configuration)
    for twin in (pickle.loads(pickle.dumps(configuration)), copy.deepcopy(configuration)):
        assert type(twin) is MissingModalityConfiguration
        assert twin.configuration == configuration.configuration
        assert issubclass(twin.preprocessor_class, MissingModalityPreprocessor)


def test_somebody_elses_configuration_is_left_alone():
    class Theirs(ConfigurationManager):
        pass

    configuration = Theirs(build_plans([CT] * 3).get_configuration("tiny").configuration)
    accept_absent_files(configuration)
    assert type(configuration) is Theirs


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_availability_is_flags_without_constant_images(kind):
    images = brains(4)
    images[3] = 0
    assert available_in(images).tolist() == [True, True, True, False]
    assert available_in(images, kind([True, False, True, True])).tolist() == [True, False, True, False]


def test_a_broken_modality_may_be_declared_absent():
    images = brains()
    images[1, 0, 0, 0] = np.nan
    assert available_in(images, [True, False, True]).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_modality(value):
    images = brains()
    images[1:, 4, 4, 4] = value
    with pytest.raises(UserError, match="modality 1, 2 holds NaN or infinite voxels: repair it, or say it is absent"):
        available_in(images)


@pytest.mark.parametrize("flags", [[], [True], [True] * 4])
def test_a_wrong_number_of_flags(flags):
    with pytest.raises(UserError, match=f"{len(flags)} availability flags for 3 modalities"):
        available_in(brains(), flags)


def test_no_modality_is_left():
    images = brains()
    images[2] = 1
    for flags in ([False] * 3, [False, False, True]):
        with pytest.raises(UserError, match="no modality is left"):
            available_in(images, flags)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(("spacing", "patch"), [((1.3, 0.7, 2.0), (8, 8, 8)), ((0.7, 2.0), (8, 8))])
def test_the_planned_shape_is_what_preprocessing_makes(transpose, spacing, patch):
    plans = build_plans([Z_SCORE] * 3, spacing=spacing, patch_size=patch, transpose=transpose)
    images = brains(shape=(14, 12, 11), margins=(1, 2, 3))
    data, _, properties = run(MissingModalityPreprocessor, images, plans, available_modalities=[True, False, True])
    configuration = plans.get_configuration("tiny")
    assert planned_shape(properties, plans, configuration) == list(data.shape[1:])
    assert planned_shape({}, plans, configuration) is None
    configuration.configuration["preprocessor_name"] = "Mine"
    assert planned_shape(properties, plans, configuration) is None
