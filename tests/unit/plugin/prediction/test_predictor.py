import contextlib
import errno
import gzip
import hashlib
import json
import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from skimage import io

from nnunetv2_d2net.base.appearance import APPEARANCE, CohortAppearance, appearance_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction import writing
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.note import Measured, Model, write_measured
from nnunetv2_d2net.plugin.prediction.subset_network import SubsetNetwork
from tests.unit.base.test_appearance import head
from tests.unit.plugin.prediction.conftest import HALF, Sums, build_network, build_predictor, unweighted, write_cases
from tests.unit.plugin.preprocessing.conftest import brains, build_dataset_json, build_plans, write_image

ALL = modality_subsets(3)
SOME = [[True, False, True], [False, False, True], [True, True, True]]
TILE = (slice(None), *[slice(8)] * 3)


def close(ours, expected):
    torch.testing.assert_close(ours.float(), expected.float(), **HALF)


# the network


@torch.no_grad()
@pytest.mark.parametrize("available", SOME)
def test_the_mask_reaches_d2net(predictor, network, data, available):
    tile = data[TILE]
    tile[1, :, :4] = 0
    mask = torch.tensor([available])
    close(unweighted(predictor).predict_logits_of_subsets(tile, mask)[0], network(tile[None], mask)[0])


@pytest.mark.parametrize("available", SOME)
def test_other_networks_see_zeros(data, available):
    logits = unweighted(build_predictor(Sums())).predict_logits_of_subsets(data, torch.tensor([available]))[0]
    close(logits, Sums()((data * torch.tensor(available)[:, None, None, None])[None])[0])


@pytest.mark.parametrize("network_of", [Sums, lambda: build_network(build_plans(["ZScoreNormalization"] * 3))])
def test_an_absent_modality_has_no_influence_even_as_nan(network_of, data):
    predictor, mask = build_predictor(network_of()), torch.tensor([[True, False, True]])
    before = predictor.predict_logits_of_subsets(data, mask)
    data[1] = torch.nan
    kept = data.clone()
    assert torch.equal(predictor.predict_logits_of_subsets(data, mask), before)
    assert torch.equal(data.nan_to_num(), kept.nan_to_num()), "the caller's images are not changed"


@pytest.mark.parametrize("mirror_axes", [None, (0, 1, 2)])
def test_a_complete_case_is_predicted_as_nnunet_does(network, plans, data, mirror_axes):
    ours = build_predictor(network, plans, mirror_axes=mirror_axes)
    theirs = build_predictor(network, plans, mirror_axes=mirror_axes, kind=nnUNetPredictor)
    expected = theirs.predict_logits_from_preprocessed_data(data)
    assert torch.equal(ours.predict_logits_from_preprocessed_data(data), expected)


@pytest.mark.parametrize("mirror_axes", [None, (0, 2)])
def test_subsets_in_one_window_equal_separate_calls(network, plans, data, mirror_axes):
    predictor = build_predictor(network, plans, mirror_axes=mirror_axes)
    together = predictor.predict_logits_of_subsets(data, ALL)
    assert together.shape == (7, 3, *data.shape[1:])
    for subset, logits in zip(ALL, together, strict=True):
        close(logits, predictor.predict_logits_of_subsets(data, subset[None])[0])
    assert (together[0] - together[-1]).abs().max() > 0.1, "the subsets differ in the first place"


@torch.no_grad()
def test_mirroring_averages_over_flips_with_the_same_mask(network, plans, data):
    tile, mask = data[TILE], torch.tensor([[True, False, True]])
    flips = [(), (2,), (4,), (2, 4)]
    expected = sum(network(tile[None].flip(f), mask).flip(f)[0] for f in flips) / len(flips)
    predictor = unweighted(build_predictor(network, plans, mirror_axes=(0, 2)))
    close(predictor.predict_logits_of_subsets(tile, mask)[0], expected)


def test_folds_are_averaged(plans, data):
    folds = [build_network(plans, seed=seed).state_dict() for seed in (1, 2)]
    single = [
        build_predictor(build_network(plans), plans, weights=[fold]).predict_logits_of_subsets(data, ALL[:3]).float()
        for fold in folds
    ]
    assert (single[0] - single[1]).abs().max() > 0.1
    both = build_predictor(build_network(plans), plans, weights=folds).predict_logits_of_subsets(data, ALL[:3])
    close(both, (single[0] + single[1]) / 2)


@pytest.mark.parametrize("n_subsets", [1, 3])
def test_a_compiled_network(network, plans, data, n_subsets):
    other = build_network(plans, seed=3)
    expected = build_predictor(other, plans).predict_logits_of_subsets(data, ALL[2 : 2 + n_subsets])
    compiled = torch.compile(network, backend="eager")
    predictor = build_predictor(compiled, plans, weights=[other.state_dict()])
    close(predictor.predict_logits_of_subsets(data, ALL[2 : 2 + n_subsets]), expected)
    assert predictor.network is compiled


@torch.no_grad()
@pytest.mark.parametrize("subsets", [ALL[4:5], ALL])
def test_a_2d_configuration_predicts_slices(subsets):
    plans = build_plans(["ZScoreNormalization"] * 3, patch_size=(8, 8), spacing=(1.0, 1.0))
    network = build_network(plans)
    data = torch.randn(3, 4, 8, 8)
    logits = unweighted(build_predictor(network, plans)).predict_logits_of_subsets(data, subsets)
    assert logits.shape == (len(subsets), 3, 4, 8, 8)
    for subset, ours in zip(subsets, logits, strict=True):
        close(ours, torch.stack([network(data[:, z][None], subset[None])[0] for z in range(4)], 1))


def test_a_case_smaller_than_a_tile(predictor):
    data = torch.randn(3, 5, 9, 4)
    assert predictor.predict_logits_of_subsets(data, ALL[:2]).shape == (2, 3, 5, 9, 4)


@pytest.mark.parametrize("fails", [True, False])
def test_network_and_labels_are_put_back(predictor, network, data, monkeypatch, fails):
    labels = predictor.label_manager
    if fails:
        monkeypatch.setattr(SubsetNetwork, "forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predictor.predict_logits_of_subsets(data, ALL)
    else:
        predictor.predict_logits_of_subsets(data, ALL)
    assert predictor.network is network
    assert predictor.label_manager is labels


def test_without_a_mask_zeros_are_absent(predictor, data):
    data[1] = 0
    expected = predictor.predict_logits_of_subsets(data, torch.tensor([[True, False, True]]))[0]
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), expected)
    predictor.allowed = (True, True, False)
    expected = predictor.predict_logits_of_subsets(data, torch.tensor([[True, False, False]]))[0]
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), expected)


# arrays and images in memory


PROPERTIES = {"spacing": [1.0, 1.0, 1.0]}


def test_an_array_is_predicted_as_nnunet_does(predictor, network):
    images = brains()
    stock = build_predictor(network, build_plans(["ZScoreNormalization"] * 3), kind=nnUNetPredictor)
    expected, probabilities = stock.predict_single_npy_array(images, dict(PROPERTIES), None, None, True)  # noqa: FBT003
    labels, ours = predictor.predict_single_npy_array(images, PROPERTIES, save_or_return_probabilities=True)
    assert np.array_equal(labels, expected)
    assert np.allclose(ours, probabilities, rtol=0, atol=1e-6)
    assert np.array_equal(predictor.predict_single_npy_array(images, PROPERTIES), expected)
    assert PROPERTIES == {"spacing": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("kind", [tuple, list, np.array, torch.tensor])
def test_an_array_with_a_mask(predictor, kind):
    images = brains(margins=(1, 3, 3))
    labels = predictor.predict_single_npy_array(images, PROPERTIES, available=kind([False, True, True]))
    garbage = images.copy()
    garbage[0] = np.nan
    again = predictor.predict_single_npy_array(garbage, PROPERTIES, available=kind([False, True, True]))
    assert np.array_equal(labels, again)
    images[0] = 0
    assert np.array_equal(labels, predictor.predict_single_npy_array(images, PROPERTIES)), "constant is absent"
    assert labels.shape == images.shape[1:]
    assert not labels[:3].any(), "outside the crop of what is available"


def test_a_mask_and_what_is_allowed(predictor):
    expected = predictor.predict_single_npy_array(brains(), PROPERTIES, available=[False, False, True])
    predictor.allowed = (False, True, True)
    for flags in ([True, False, True], np.array([True, False, True])):
        assert np.array_equal(predictor.predict_single_npy_array(brains(), PROPERTIES, available=flags), expected)
    with pytest.raises(UserError, match="no modality is left"):
        predictor.predict_single_npy_array(brains(), PROPERTIES, available=[True, False, False])


@pytest.mark.parametrize("allowed", [None, (True, True, False)])
@pytest.mark.parametrize("flags", [[], [True], [True] * 4])
def test_a_wrong_number_of_flags(predictor, allowed, flags):
    predictor.allowed = allowed
    with pytest.raises(UserError, match="availability flags for 3 modalities"):
        predictor.predict_single_npy_array(brains(), PROPERTIES, available=flags)


def test_arrays_that_cannot_be_predicted(predictor):
    images = brains()
    images[2, 5, 5, 5] = np.inf
    with pytest.raises(UserError, match="modality 2 holds NaN or infinite"):
        predictor.predict_single_npy_array(images, PROPERTIES)
    with pytest.raises(UserError, match="previous stage"):
        predictor.predict_single_npy_array(images, PROPERTIES, segmentation_previous_stage=images[0])


def test_a_list_of_arrays_is_restricted_to_what_is_allowed(predictor, monkeypatch):
    def in_this_process(images, _previous, properties, names, plans, content, configuration, *_):
        for image, given, name in zip(images, properties, names or [None] * len(images), strict=True):
            preprocessor = configuration.preprocessor_class(verbose=False)
            array, _, props = preprocessor.run_case_npy(image, None, given, plans, configuration, content)
            yield {"data": torch.from_numpy(array), "data_properties": props, "ofile": name}

    monkeypatch.setattr(predict_from_raw_data, "preprocessing_iterator_fromnpy", in_this_process)
    images = [brains(seed=0), brains(seed=1)]
    properties = [dict(PROPERTIES), {**PROPERTIES, "available_modalities": [True, False, True]}]
    predictor.allowed = (True, True, False)
    ours = predictor.predict_from_list_of_npy_arrays(
        images, None, properties, None, 1, num_processes_segmentation_export=0
    )
    predictor.allowed = None
    for labels, image, flags in zip(ours, images, ([True, True, False], [True, False, False]), strict=True):
        assert np.array_equal(labels, predictor.predict_single_npy_array(image, PROPERTIES, available=flags))
    assert properties[0] == PROPERTIES


def test_an_array_to_a_file(predictor, tmp_path, labels_on_disk):
    geometry = {"spacing": (1.0, 1.0, 1.0), "origin": (1.0, 2.0, 3.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
    properties = {**PROPERTIES, "sitk_stuff": geometry}
    arguments = {"output_file_truncated": str(tmp_path / "a"), "available": [True, True, False]}
    assert predictor.predict_single_npy_array(brains(), properties, **arguments) is None
    expected = predictor.predict_single_npy_array(brains(), properties, available=[True, True, False])
    assert np.array_equal(labels_on_disk(tmp_path)["a"], expected)
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "a.modalities.json"}
    (tmp_path / "b.nii.gz").mkdir()
    with pytest.raises(UserError, match="1 case could not be segmented"):
        predictor.predict_single_npy_array(brains(), properties, output_file_truncated=str(tmp_path / "b"))


def sitk_image(array, **geometry):
    image = sitk.GetImageFromArray(array)
    for what, value in geometry.items():
        getattr(image, f"Set{what}")(value)
    return image


def test_images_in_memory_keep_their_geometry(predictor):
    geometry = {"Spacing": (1.0, 1.1, 0.9), "Origin": (-5.0, 6.0, 7.0), "Direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}
    images = {name: sitk_image(array, **geometry) for name, array in zip(("FLAIR", "T1ce"), brains(2), strict=True)}
    result = predictor.predict_images(images)
    for what, value in geometry.items():
        assert np.allclose(getattr(result, f"Get{what}")(), value), what
    array = np.stack([brains(2)[0], np.zeros_like(brains(2)[0]), brains(2)[1]])
    expected = predictor.predict_single_npy_array(array, {"spacing": [0.9, 1.1, 1.0]})
    assert np.array_equal(sitk.GetArrayFromImage(result), expected)
    assert expected.any()


def test_a_2d_image_in_memory():
    plans = build_plans(["ZScoreNormalization"] * 3, patch_size=(8, 8), spacing=(1.0, 1.0))
    image = sitk_image(brains(1, (1, 12, 11), margins=[0])[0, 0], Spacing=(1.0, 1.5), Origin=(3.0, 4.0))
    result = build_predictor(plans=plans).predict_images({"T1": image})
    assert (result.GetSize(), result.GetSpacing(), result.GetOrigin()) == ((11, 12), (1.0, 1.5), (3.0, 4.0))


def test_images_in_memory_that_make_no_case(predictor):
    image, other = sitk_image(brains(1)[0]), sitk_image(brains(1)[0], Origin=(1.0, 0.0, 0.0))
    for images, message in [
        ({}, "no modality is given"),
        ({"PD": image}, "PD is no modality"),
        ({"T1": image, "FLAIR": other}, "FLAIR and T1 differ in origin"),
        ({"T1": sitk_image(np.ones((4, 5, 6), np.float32))}, "no modality is left"),
    ]:
        with pytest.raises(UserError, match=message):
            predictor.predict_images(images)


# files


def outputs(folder):
    return {path.name for path in folder.iterdir()} - {"dataset.json", "plans.json", "predict_from_raw_data_args.json"}


MIXED = {"whole": [0, 1, 2], "no first": [1, 2], "no last": [0, 1], "only": [1]}


@pytest.mark.parametrize("threads", [0, 2])
def test_a_folder_of_complete_and_incomplete_cases(predictor, tmp_path, labels_on_disk, threads):
    source = write_cases(tmp_path / "in", MIXED)
    out = tmp_path / "out"
    processes = {"num_processes_preprocessing": threads, "num_processes_segmentation_export": threads}
    assert predictor.predict_from_files(source, str(out), **processes) == [None] * 4
    assert outputs(out) == {f"{case}{ending}" for case in MIXED for ending in (".nii.gz", ".modalities.json")}
    segmentations = labels_on_disk(out)
    for seed, (case, channels) in enumerate(MIXED.items()):
        flags = [m in channels for m in range(3)]
        images = brains(seed=seed, margins=(2, 1, 1))
        expected = predictor.predict_single_npy_array(images, PROPERTIES, available=flags)
        assert np.array_equal(segmentations[case], expected)
        content = json.loads((out / f"{case}.modalities.json").read_text(encoding="utf-8"))
        assert content["available modalities"] == [("FLAIR", "T1", "T1ce")[m] for m in channels]
    assert predictor.failures == {}


def test_a_modality_that_is_not_allowed_is_like_an_absent_file(predictor, tmp_path, labels_on_disk):
    complete = write_cases(tmp_path / "complete", {"a": [0, 1, 2]})
    predictor.predict_from_files(write_cases(tmp_path / "in", {"a": [0, 2]}), str(tmp_path / "absent"))
    predictor.allowed = (True, False, True)
    predictor.predict_from_files(complete, str(tmp_path / "dropped"))
    absent, dropped = (labels_on_disk(tmp_path / name)["a"] for name in ("absent", "dropped"))
    assert np.array_equal(absent, dropped)
    absent, dropped = (
        (tmp_path / name / "a.modalities.json").read_text(encoding="utf-8") for name in ("absent", "dropped")
    )
    assert absent == dropped.replace(str(tmp_path / "complete"), str(tmp_path / "in"))


def test_without_an_output_segmentations_are_returned(predictor, tmp_path):
    write_cases(tmp_path / "in", {"a": [0, 2], "b": [1]})
    for name in ("x", "y", "z"):
        write_image(tmp_path / f"{name}.nii.gz", brains(seed=9)["xyz".index(name)])
    named = [str(tmp_path / "in" / f"a_{m:04d}.nii.gz") for m in (2, 0)]
    free = [str(tmp_path / f"{name}.nii.gz") for name in ("x", "y", "z")]
    one, two = predictor.predict_from_files([named, free], None)
    images = brains(seed=0, margins=(2, 1, 1))
    assert np.array_equal(one, predictor.predict_single_npy_array(images, PROPERTIES, available=[True, False, True]))
    assert np.array_equal(two, predictor.predict_single_npy_array(brains(seed=9), PROPERTIES))
    labels, probabilities = predictor.predict_from_files([free], None, save_probabilities=True)[0]
    assert np.array_equal(labels, two)
    assert probabilities.shape == (3, *labels.shape)


def test_outputs_may_have_names_of_their_own(predictor, tmp_path):
    write_cases(tmp_path / "in", {"a": [1]})
    (tmp_path / "out").mkdir()
    predictor.predict_from_files([[str(tmp_path / "in" / "a_0001.nii.gz")]], [str(tmp_path / "out" / "mine")])
    assert outputs(tmp_path / "out") == {"mine.nii.gz", "mine.modalities.json"}


def test_only_what_is_missing_is_predicted_again(predictor, tmp_path, monkeypatch):
    source, out = write_cases(tmp_path / "in", MIXED), tmp_path / "out"
    predictor.predict_from_files(source, str(out), save_probabilities=True)
    (out / "only.nii.gz").unlink()
    (out / "whole.npz").unlink()
    seen, real = [], predictor.read
    monkeypatch.setattr(predictor, "read", lambda files: (seen.append(Path(files[0]).name), real(files))[1])
    predictor.predict_from_files(source, str(out), save_probabilities=True, overwrite=False)
    assert sorted(seen) == ["only_0001.nii.gz", "whole_0000.nii.gz"]
    assert {"only.nii.gz", "whole.npz"} < outputs(out)


def test_what_another_model_made_or_this_one_from_other_modalities_is_not_taken_for_done(predictor, tmp_path, caplog):
    source, out = write_cases(tmp_path / "in", MIXED), tmp_path / "out"
    predictor.model = Model(tmp_path, {"fold_0/checkpoint_final.pth": "1"}, {})
    predictor.predict_from_files(source, str(out))
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    predictor.predict_from_files(source, str(out), overwrite=False)
    predictor.allowed = [True, False, True]
    with pytest.raises(UserError, match="could not be segmented"):
        predictor.predict_from_files(source, str(out), overwrite=False)
    assert "whole.nii.gz was made from other modalities (FLAIR, T1, T1ce): pass another -o, or remove it" in caplog.text
    predictor.failures.clear()
    predictor.allowed, predictor.model = None, Model(tmp_path, {"fold_1/checkpoint_final.pth": "2"}, {})
    with pytest.raises(UserError, match="could not be segmented"):
        predictor.predict_from_files(source, str(out), overwrite=False)
    assert "whole.nii.gz was made by other checkpoints: pass another -o, or remove it" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")} == before


@pytest.mark.parametrize("left", [[0], [1], [0, 1]])
@pytest.mark.parametrize("of_an_earlier_version", [False, True])
def test_a_case_of_which_files_have_gone_is_not_taken_for_done(
    predictor, tmp_path, caplog, left, of_an_earlier_version
):
    source, out = write_cases(tmp_path / "in", {"a": [0, 1, 2]}), tmp_path / "out"
    predictor.predict_from_files(source, str(out))
    for m in {0, 1, 2} - set(left):
        (tmp_path / "in" / f"a_{m:04d}.nii.gz").unlink()
    if of_an_earlier_version:
        without_images(out / "a.modalities.json")
        if left == [0]:  # might hold all
            predictor.predict_from_files(source, str(out), overwrite=False)
            return
    with pytest.raises(UserError, match="could not be segmented"):
        predictor.predict_from_files(source, str(out), overwrite=False)
    assert "a.nii.gz was made from other modalities (FLAIR, T1, T1ce): pass another -o, or remove it" in caplog.text
    (out / "a.nii.gz").unlink()
    predictor.predict_from_files(source, str(out), overwrite=False)
    predictor.predict_from_files(source, str(out), overwrite=False)


def without_images(path):
    """Turn a note into one of an earlier version."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.pop("images of the case (size, sha256)")
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("several", [False, True])
def test_a_segmentation_of_other_images_is_not_taken_for_done(predictor, all_subsets, tmp_path, caplog, several):
    predictor = all_subsets if several else predictor
    source, out = write_cases(tmp_path / "in", {"a": [0, 1, 2], "b": [1]}), tmp_path / "out"
    predictor.predict_from_files(source, str(out))
    predictor.predict_from_files(source, str(out), overwrite=False)
    write_cases(tmp_path / "in", {"b": [], "a": [1]})  # another patient's
    with pytest.raises(UserError, match=r"^1 case could not be segmented \('a'\)"):
        predictor.predict_from_files(source, str(out), overwrite=False)
    assert "a.nii.gz was made from other images (T1): pass another -o, or remove it" in caplog.text
    assert not several or "out/FLAIR/a.nii.gz was" not in caplog.text
    for path in out.rglob("a.modalities.json"):
        without_images(path)
    predictor.predict_from_files(source, str(out), overwrite=False)


def test_a_picture_that_holds_all_channels_stays_done(tmp_path):
    plans = build_plans(["ZScoreNormalization"] * 3, patch_size=(8, 8), spacing=(1.0, 1.0), reader="NaturalImage2DIO")
    predictor, out = build_predictor(plans=plans), tmp_path / "out"
    (tmp_path / "in").mkdir()
    picture = np.random.default_rng(0).integers(1, 255, (12, 10, 3)).astype(np.uint8)
    io.imsave(tmp_path / "in" / "a_0000.png", picture, check_contrast=False)
    predictor.predict_from_files(str(tmp_path / "in"), str(out))
    before = (out / "a.png").stat().st_mtime_ns
    predictor.predict_from_files(str(tmp_path / "in"), str(out), overwrite=False)
    without_images(out / "a.modalities.json")
    predictor.predict_from_files(str(tmp_path / "in"), str(out), overwrite=False)
    assert (out / "a.png").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ([["flair_a", "t1_a", "t1ce_a"], ["flair_b", "t1_b", "t1ce_b"]], "2 cases would be written as 'fl'"),
        ([["flair", "t1", "t1ce"]], "1 case would be written as ''"),
    ],
)
def test_cases_that_would_be_written_over_each_other_are_refused(predictor, all_subsets, tmp_path, cases, told):
    files = [[str(tmp_path / f"{name}.nii.gz") for name in names] for names in cases]
    for of in (predictor, all_subsets):
        with pytest.raises(UserError, match=f"^{told}: name the files of each case CASE_0000 and so on$"):
            of.predict_from_files(files, str(tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_cases_are_split_into_parts(predictor, tmp_path):
    source = write_cases(tmp_path / "in", MIXED)
    done = []
    for part in range(3):
        predictor.predict_from_files(source, str(tmp_path / f"{part}"), num_parts=3, part_id=part)
        done += [name for name in outputs(tmp_path / f"{part}") if name.endswith(".nii.gz")]
    assert sorted(done) == sorted(f"{case}.nii.gz" for case in MIXED)


def test_a_bad_case_is_one_parts_alone(predictor, tmp_path):
    source, complaints = write_cases(tmp_path / "in", MIXED), []
    (Path(source) / "bad_0009.nii.gz").touch()
    for part in range(3):
        with contextlib.suppress(UserError):
            predictor.predict_from_files(source, str(tmp_path / f"{part}"), num_parts=3, part_id=part)
        complaints += list(predictor.failures)
    assert complaints == ["bad"]


def test_cases_are_split_into_parts_without_threads(predictor, tmp_path):
    source = write_cases(tmp_path / "in", MIXED)
    done = []
    for part in range(3):
        predictor.part = (part, 3)
        predictor.predict_from_files_sequential(source, str(tmp_path / f"{part}"))
        done += [name for name in outputs(tmp_path / f"{part}") if name.endswith(".nii.gz")]
    assert sorted(done) == sorted(f"{case}.nii.gz" for case in MIXED)


def test_sequential_prediction_is_the_same(predictor, tmp_path, labels_on_disk):
    source, (a, b, c) = write_cases(tmp_path / "in", MIXED), (tmp_path / name for name in "abc")
    predictor.predict_from_files(source, str(a))
    predictor.predict_from_files_sequential(source, str(b), True)  # noqa: FBT003 - nnU-Net calls it like this
    predictor.predict_from_files_sequential(
        list_of_lists_or_source_folder=source, output_folder_or_list_of_truncated_output_files=str(c), overwrite=False
    )
    for case, labels in labels_on_disk(a).items():
        assert np.array_equal(labels_on_disk(b)[case], labels)
        assert np.array_equal(labels_on_disk(c)[case], labels)
    assert (b / "only.npz").is_file()
    assert not (a / "only.npz").exists()
    assert not (c / "only.npz").exists()


def test_bad_cases_are_reported_and_the_others_predicted(predictor, tmp_path, caplog):
    bad = {"cut": [0, 1], "nan": [0, 2], "twice": [0], "line\nbreak": [1]}
    source, out = Path(write_cases(tmp_path / "in", {**bad, **MIXED})), tmp_path / "out"
    (source / "cut_0001.nii.gz").write_bytes((source / "cut_0001.nii.gz").read_bytes()[:-300])
    write_image(source / "nan_0002.nii.gz", np.full((10, 12, 11), np.nan))
    (source / "twice_0000.nii").touch()
    with pytest.raises(UserError) as error:
        predictor.predict_from_files(str(source), str(out))
    summary = str(error.value)
    assert summary.startswith("4 cases could not be segmented (")
    assert "\n" not in summary
    assert "--continue_prediction" in summary
    lines = [record.message for record in caplog.records if record.levelname == "ERROR"]
    for case, words in zip(bad, ("cut_0001.nii.gz cannot be read", "NaN", "remove one", "rename it"), strict=True):
        assert repr(case) in summary
        assert [words in line for line in lines if line.startswith(f"case {case!r}: ")] == [True]
    assert set(predictor.failures) == set(bad)
    assert outputs(out) == {f"{case}{ending}" for case in MIXED for ending in (".nii.gz", ".modalities.json")}

    predictor.predict_from_files(write_cases(tmp_path / "good", MIXED), str(out))
    assert predictor.failures == {}, "failures are those of the last call"


def test_a_case_that_shrinks_to_nothing(network, tmp_path, caplog):
    plans = build_plans(["ZScoreNormalization"] * 3, spacing=(9.0, 9.0, 9.0))
    source, out = write_cases(tmp_path / "in", {"good": [0]}), tmp_path / "out"
    point = np.zeros((10, 12, 11))
    point[5, 5, 5] = 1
    write_image(tmp_path / "in" / "point_0000.nii.gz", point)
    with pytest.raises(UserError, match=r"1 case could not be segmented \('point'\)"):
        build_predictor(network, plans).predict_from_files(source, str(out))
    assert "case 'point': nnU-Net cannot preprocess it (" in caplog.text
    assert outputs(out) == {"good.nii.gz", "good.modalities.json"}
    with pytest.raises(UserError, match="nnU-Net cannot preprocess it"):
        build_predictor(network, plans).predict_single_npy_array(np.stack(3 * [point]), {"spacing": [1.0] * 3})


def test_a_folder_of_bad_cases_only(predictor, tmp_path):
    source = Path(write_cases(tmp_path / "in", {"a": [0]}))
    (source / "a_0007.nii.gz").touch()
    with pytest.raises(UserError, match="1 case could not be segmented"):
        predictor.predict_from_files(str(source), str(tmp_path / "out"))


def test_a_constant_image_is_said_and_noted(predictor, tmp_path, caplog):
    source, out = write_cases(tmp_path / "in", {"a": [0, 1, 2]}), tmp_path / "out"
    file = write_image(tmp_path / "in" / "a_0001.nii.gz", np.full((10, 12, 11), 4))
    predictor.predict_from_files(source, str(out))
    assert f"{file} is constant and counts as absent" in caplog.messages
    content = json.loads((out / "a.modalities.json").read_text(encoding="utf-8"))
    assert content["constant images, taken as absent"] == [file]
    assert content["absent modalities"] == ["T1"]


def test_which_file_is_which_modality_is_said_first(predictor, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = write_cases(tmp_path / "in", {"a": [0, 2], "b": [1]})
    predictor.predict_from_files(source, str(tmp_path / "out"))
    assert caplog.messages[:3] == [
        "2 cases: FLAIR (_0000) of 1, T1 (_0001) of 1, T1ce (_0002) of 1",
        "case 'a': FLAIR = a_0000.nii.gz, T1ce = a_0002.nii.gz",
        "case 'b': T1 = b_0001.nii.gz",
    ]


def test_volume_and_measured_dice_are_said_last(predictor, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = write_cases(tmp_path / "in", {"a": [0, 2]}, spacing=(2.0, 3.0, 4.0))
    write_image(tmp_path / "in" / "a_0002.nii.gz", brains(seed=0, margins=(2, 1, 1))[0], spacing=(2.0, 3.0, 4.0))
    predictor.predict_from_files(source, str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "a.modalities.json").read_text(encoding="utf-8"))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "a.nii.gz")))
    sizes = {name: round(int((labels == value).sum()) * 0.024, 3) for name, value in (("a", 1), ("b", 2))}
    assert content["volumes (ml)"] == sizes
    (remark,) = content["remarks on the images"]
    assert "hold the same voxels" in remark
    said = ", ".join(f"{name} {size:.1f} ml" for name, size in sizes.items())
    assert caplog.messages[-1] == f"case 'a': {said}; Dice with FLAIR, T1ce: never measured"


def test_nan_outside_the_field_of_view(predictor, tmp_path):
    source = write_cases(tmp_path / "in", {"a": [0, 1]})
    voxels = brains(seed=0)[1]
    voxels[:1] = np.nan
    write_image(tmp_path / "in" / "a_0001.nii.gz", voxels)
    with pytest.raises(UserError, match="1 case could not be segmented"):
        predictor.predict_from_files(source, str(tmp_path / "out"))
    assert "pass --nan_outside_as_zero" in predictor.failures["a"]
    predictor.nan_outside_as_zero = True
    predictor.predict_from_files(source, str(tmp_path / "out"))
    assert (tmp_path / "out" / "a.nii.gz").is_file()


def test_an_output_folder_that_is_a_file(predictor, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="pass another output folder"):
        predictor.predict_from_files(write_cases(tmp_path / "in", MIXED), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "written (No space left on device): free space"),
        (RuntimeError("itkIO.cxx:1110:\nITK ERROR: no file"), "written (ITK ERROR: no file): free space"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "resampled (DefaultCPUAllocator: can't allocate memory): free memory, predict fewer cases at a time "
            "(-npp, -nps)",
        ),
    ],
)
@pytest.mark.parametrize("threads", [0, 2])
def test_a_full_disk_spoils_one_case_only(predictor, tmp_path, monkeypatch, caplog, error, words, threads):
    source, out, real = write_cases(tmp_path / "in", MIXED), tmp_path / "out", writing.export_prediction_from_logits

    def full(logits, properties, configuration, plans, content, unfinished, *args, **kwargs):
        if Path(unfinished).name == "only":
            Path(f"{unfinished}.nii.gz").write_text("half", encoding="utf-8")
            raise error
        real(logits, properties, configuration, plans, content, unfinished, *args, **kwargs)

    monkeypatch.setattr(writing, "export_prediction_from_logits", full)
    with pytest.raises(UserError, match=r"1 case could not be segmented \('only'\)"):
        predictor.predict_from_files(source, str(out), num_processes_segmentation_export=threads)
    problems = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert problems == [f"case 'only': {out / 'only'} cannot be {words} or pass another -o"]
    finished = {f"{case}{ending}" for case in MIXED if case != "only" for ending in (".nii.gz", ".modalities.json")}
    assert outputs(out) == finished


@pytest.mark.parametrize("threads", [0, 1])
def test_too_little_memory_on_the_gpu_is_one_line(predictor, tmp_path, monkeypatch, threads):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "predict_logits_of_subsets", out_of_memory)
    source = write_cases(tmp_path / "in", {"a": [0, 1, 2], "b": [0]}, (1, 1, 1))
    with pytest.raises(UserError, match="too small: free some, or pass --not_on_device, and --continue_prediction"):
        predictor.predict_from_files(
            source,
            str(tmp_path / "out"),
            num_processes_preprocessing=threads,
            num_processes_segmentation_export=threads,
        )
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_an_interrupted_run_leaves_nothing_half_written(predictor, tmp_path, monkeypatch):
    source, out, real = write_cases(tmp_path / "in", MIXED), tmp_path / "out", writing.export_prediction_from_logits

    def interrupted(logits, properties, configuration, plans, content, unfinished, *args, **kwargs):
        Path(f"{unfinished}.nii.gz").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "export_prediction_from_logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predictor.predict_from_files(source, str(out), num_processes_segmentation_export=0)
    assert not list(out.glob("*.nii.gz"))
    monkeypatch.setattr(writing, "export_prediction_from_logits", real)
    predictor.predict_from_files(source, str(out), overwrite=False)
    assert {f"{case}.nii.gz" for case in MIXED} < outputs(out)


def test_2d_pictures_some_of_them_absent(tmp_path):
    plans = build_plans(["ZScoreNormalization"] * 3, patch_size=(8, 8), spacing=(1.0, 1.0), reader="NaturalImage2DIO")
    predictor = build_predictor(plans=plans)
    arrays = np.random.default_rng(0).integers(1, 255, (3, 12, 10)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    for m in (1, 2):
        io.imsave(tmp_path / "in" / f"a_{m:04d}.png", arrays[m], check_contrast=False)
    predictor.predict_from_files(str(tmp_path / "in"), str(tmp_path / "out"))
    expected = predictor.predict_single_npy_array(
        arrays[:, None].astype(np.float32), {"spacing": (999, 1, 1)}, available=[False, True, True]
    )
    assert np.array_equal(io.imread(tmp_path / "out" / "a.png"), expected[0])


def test_cases_that_others_preprocessed(predictor, network, plans, tmp_path):
    """nnU-Net's own iterators yield an array, or the name of a file that is to be removed."""
    images, flags = brains(), [True, False, True]
    preprocess = predictor.configuration_manager.preprocessor_class(verbose=False).run_case_npy
    properties = {**PROPERTIES, "available_modalities": flags}
    data, _, properties = preprocess(
        images, None, properties, plans, predictor.configuration_manager, predictor.dataset_json
    )
    np.save(tmp_path / "data.npy", data)
    items = [
        {"data": given, "data_properties": properties, "ofile": None}
        for given in (data, torch.from_numpy(data), str(tmp_path / "data.npy"))
    ]
    expected = predictor.predict_single_npy_array(images, PROPERTIES, available=flags)
    results = predictor.predict_from_data_iterator(items)
    assert len(results) == 3
    assert all(np.array_equal(labels, expected) for labels in results)
    assert not (tmp_path / "data.npy").exists()


def test_a_network_from_memory_accepts_absent_files(predictor):
    assert predictor.configuration_manager.preprocessor_class is not DefaultPreprocessor
    assert issubclass(predictor.configuration_manager.preprocessor_class, DefaultPreprocessor)


# models on disk


@pytest.fixture
def trained(tmp_path):
    """A model of nnU-Net's own trainer with two folds."""
    plans = build_plans(["ZScoreNormalization"] * 3)
    folder = tmp_path / "Dataset007_Tiny" / "nnUNetTrainer__TinyPlans__tiny"
    for fold in ("fold_0", "fold_all"):
        (folder / fold).mkdir(parents=True)
        unet = build_network(plans)
        weights = {k: v for k, v in unet.state_dict().items() if k.startswith(("encoder.", "decoder."))}
        checkpoint = {
            "network_weights": weights,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "tiny"},
            "inference_allowed_mirroring_axes": None,
        }
        torch.save(checkpoint, folder / fold / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans.plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(build_dataset_json(3)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("folds", "names"), [([0], ["fold_0"]), ("all", ["fold_all"]), (None, ["fold_0"])])
def test_a_model_from_its_folder(predictor, trained, tmp_path, folds, names, caplog):
    measured = {"FLAIR+T1+T1ce": {"core": Measured(0.8)}, "FLAIR+T1": {"core": Measured(0.3)}}
    write_measured(trained, measured, "two cases")
    predictor.initialize_from_trained_model_folder(str(trained), folds)
    predictor.predict_from_files(write_cases(tmp_path / "in", {"a": [0, 1]}), str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "a.modalities.json").read_text(encoding="utf-8"))
    assert content["model"] == trained.name
    assert content["checkpoints (sha256)"] == {
        f"{name}/checkpoint_final.pth": hashlib.sha256(
            (trained / name / "checkpoint_final.pth").read_bytes()
        ).hexdigest()
        for name in names
    }
    warning = "core is unreliable without T1ce: mean Dice 0.30 instead of 0.80 with all modalities"
    assert content["warnings"] == [warning]
    assert f"case 'a': {warning}" in caplog.messages


def test_a_case_unlike_the_training_data_is_told_and_noted(predictor, trained, tmp_path, caplog):
    fingerprint = {"spacings": [[9, 9, 9]], "shapes_after_crop": [[2, 2, 2]]}
    (trained / "dataset_fingerprint.json").write_text(json.dumps(fingerprint), encoding="utf-8")
    predictor.initialize_from_trained_model_folder(str(trained), [0])
    predictor.predict_from_files(write_cases(tmp_path / "in", {"a": [0, 1]}), str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "a.modalities.json").read_text(encoding="utf-8"))
    line, *_ = content["unlike the training data"]
    assert line == "has voxels of 1 x 1 x 1 mm, the training data of 9 mm"
    assert f"case 'a' {line}" in caplog.messages


def test_swapped_modalities_are_told_once_and_noted_for_files_and_arrays(trained, tmp_path, caplog):
    caplog.set_level("INFO", "nnunetv2_d2net")
    cohort = CohortAppearance.of([appearance_of(head(seed), (True,) * 3, (1, 1, 1)) for seed in range(8)])
    fingerprint = {"spacings": [[1, 1, 1]], "shapes_after_crop": [[17, 17, 17]], APPEARANCE: cohort.as_json()}
    (trained / "dataset_fingerprint.json").write_text(json.dumps(fingerprint), encoding="utf-8")
    predictor = build_predictor(kind=AllSubsetsPredictor)
    predictor.initialize_from_trained_model_folder(str(trained), [0])
    known = "voxel size, head and background, looks of the modalities"
    assert f"what is compared of each case with the training data: {known}" in caplog.messages
    (tmp_path / "in").mkdir()
    swapped = head(20)[[1, 0, 2]]
    for m, image in enumerate(swapped):
        write_image(tmp_path / "in" / f"a_{m:04d}.nii.gz", image)
    predictor.predict_from_files(str(tmp_path / "in"), str(tmp_path / "out"))
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "out").rglob("a.modalities.json")]
    (line,) = notes[0]["unlike the training data"]
    assert line.startswith("has FLAIR that looks like T1 and T1 that looks like FLAIR")
    assert len(notes) == 7
    assert all(note["unlike the training data"] == [line] for note in notes)
    assert caplog.messages.count(f"case 'a' {line}") == 1
    predictor.predict_single_npy_array(swapped, {"spacing": (1.0, 1.0, 1.0)})
    assert predictor.note is not None
    assert predictor.note["unlike the training data"] == [line]
    assert f"case 'in memory' {line}" in caplog.messages


def test_a_model_that_says_nothing_of_its_training_data(predictor, trained, caplog):
    caplog.set_level("INFO", "nnunetv2_d2net")
    predictor.initialize_from_trained_model_folder(str(trained), [0])
    assert any("with the training data: nothing, as the model" in line for line in caplog.messages)


def test_arrays_are_looked_at_as_files_are(predictor, caplog):
    images = np.stack([head(0)[0]] * 3)
    images[1] = np.roll(head(1)[1], 6, 1)  # another head
    with pytest.raises(UserError, match=r"^T1 shows another head than FLAIR .*: register them onto each other$"):
        predictor.predict_single_npy_array(images, {"spacing": (1.0, 1.0, 1.0)})
    predictor.predict_single_npy_array(images, {"spacing": (1.0, 1.0, 1.0)}, available=[True, False, True])
    (remark,) = predictor.note["remarks on the images"]
    assert remark.startswith("FLAIR and T1ce hold the same voxels")
    assert remark in caplog.messages
    assert set(predictor.note["volumes (ml)"]) == {"a", "b"}
    with pytest.raises(UserError, match="shows another head"):
        predictor.get_data_iterator_from_raw_npy_data([images], None, [{"spacing": (1.0, 1.0, 1.0)}], None, 1)


def test_a_cascade_is_refused(predictor, trained):
    plans = json.loads((trained / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["tiny"]["previous_stage"] = "low"
    (trained / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    content = build_dataset_json(3)
    checkpoint = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    weights = checkpoint["network_weights"]
    for name, tensor in weights.items():  # a cascade has a channel more for each label of the previous stage
        if (
            tensor.ndim == 5
            and tensor.shape[1] == 3
            and name.startswith(("encoder.stages.0", "decoder.encoder.stages.0"))
        ):
            weights[name] = torch.zeros(tensor.shape[0], 3 + len(content["labels"]) - 1, *tensor.shape[2:])
    torch.save(checkpoint, trained / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match="is a cascade") as error:
        predictor.initialize_from_trained_model_folder(str(trained), [0])
    assert str(trained) in str(error.value)


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_checkpoint(path, change):
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


def test_a_hostile_model_is_refused_before_nnunet_sees_it(predictor, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(nnUNetPredictor, "initialize_from_trained_model_folder", None)
    foreign = {"dropout_op": "torch.nn.modules.module.torch.os.mkdir", "dropout_op_kwargs": {"path": "RAN"}}

    def change(plans):
        plans["configurations"]["tiny"]["architecture"]["arch_kwargs"] |= foreign

    edit(trained / "plans.json", change)
    with pytest.raises(UserError, match=r"plans\.json: configuration tiny names code from elsewhere"):
        predictor.initialize_from_trained_model_folder(str(trained), [0])


def without_channel(checkpoint):
    for name, weight in checkpoint["network_weights"].items():
        checkpoint["network_weights"][name] = weight[:, :1] if weight.ndim > 1 else weight


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["network_weights"].clear(), "network_weights"),
        (lambda c: [w.fill_(np.nan) for w in c["network_weights"].values()], "NaN or infinite"),
        (without_channel, r"does not fit the network of .*plans\.json and .*dataset\.json"),
        (lambda c: c.update(trainer_name="NoSuchTrainer"), "trainer that nnU-Net does not find: set nnUNet_extTrainer"),
        (lambda c: c.update(trainer_name="os"), "can build nothing|does not find"),
        (lambda c: c["init_args"].update(configuration="2d"), r"plans\.json has no configuration 2d"),
    ],
)
def test_checkpoints_of_other_models(predictor, trained, change, match):
    edit_checkpoint(trained / "fold_0" / "checkpoint_final.pth", change)
    with pytest.raises(UserError, match=match) as error:
        predictor.initialize_from_trained_model_folder(str(trained), [0])
    assert "\n" not in str(error.value)
    assert str(trained) in str(error.value)


def test_folds_of_different_shape(predictor, trained):
    edit_checkpoint(trained / "fold_all" / "checkpoint_final.pth", without_channel)
    with pytest.raises(UserError, match=r"fold_all.* is of another model than .*fold_0"):
        predictor.initialize_from_trained_model_folder(str(trained), [0, "all"])


@pytest.mark.parametrize("arguments", [{"no_such": 1}, {"n_stages": "three"}])
def test_plans_from_which_nothing_can_be_built(predictor, trained, arguments):
    def change(plans):
        plans["configurations"]["tiny"]["architecture"]["arch_kwargs"] |= arguments

    edit(trained / "plans.json", change)
    with pytest.raises(UserError, match=r"can build nothing from its plans\.json") as error:
        predictor.initialize_from_trained_model_folder(str(trained), [0])
    assert "\n" not in str(error.value)


def test_a_model_without_folds(predictor, trained):
    with pytest.raises(UserError, match="has no fold"):
        predictor.initialize_from_trained_model_folder(str(trained), None, "checkpoint_no.pth")
    with pytest.raises(UserError, match="no_model does not exist"):
        predictor.initialize_from_trained_model_folder("no_model", None)


def test_without_output_a_bad_case_leaves_its_place_empty_and_the_others_are_returned(tmp_path):
    predictor = build_predictor()
    good = str(next(Path(write_cases(tmp_path / "in", {"a": [0]})).iterdir()))
    bad = str(tmp_path / "b_0000.nii.gz")
    Path(bad).write_bytes(b"no image")
    first, second, third = predictor.predict_from_files([[good], [bad], [good]], None)
    assert second is None
    assert np.array_equal(first, third)
    assert list(predictor.failures) == ["b_0000.nii.gz"]


def test_a_segmentation_lies_where_the_images_do_for_readers_of_either_matrix(predictor, tmp_path):
    source = write_cases(tmp_path / "in", {"a": (0, 1, 2)})
    for path in (tmp_path / "in").iterdir():
        image = nibabel.load(path)
        moved = image.affine.copy()
        moved[:3, 3] += (9, -7, 5)
        image.set_qform(image.affine, 1)
        image.set_sform(moved, 2)
        path.write_bytes(gzip.compress(image.to_bytes()))
    predictor.predict_from_files(source, str(tmp_path / "out"), num_processes_preprocessing=0)
    header, theirs = (nibabel.load(tmp_path / name).header for name in ("out/a.nii.gz", "in/a_0000.nii.gz"))
    assert np.allclose(header.get_qform(), theirs.get_qform())
    assert np.allclose(header.get_sform(), theirs.get_sform())


def test_numbers_of_the_channels_may_have_gaps(predictor, tmp_path, labels_on_disk):
    write_cases(tmp_path / "in", {"a": (0, 1, 2), "b": (1, 2)})
    predictor.predict_from_files(str(tmp_path / "in"), str(tmp_path / "usual"), num_processes_preprocessing=0)
    for number, new in ((2, 7), (1, 3)):
        for path in (tmp_path / "in").glob(f"*_{number:04d}.nii.gz"):
            path.rename(path.with_name(path.name.replace(f"_{number:04d}", f"_{new:04d}")))
    predictor.dataset_json["channel_names"] = {"7": "C", "0": "A", "3": "B"}
    predictor.predict_from_files(str(tmp_path / "in"), str(tmp_path / "out"), num_processes_preprocessing=0)
    usual, found = labels_on_disk(tmp_path / "usual"), labels_on_disk(tmp_path / "out")
    assert usual.keys() == found.keys()
    assert all(np.array_equal(usual[case], found[case]) for case in usual)
