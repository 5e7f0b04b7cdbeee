import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.modalities import modality_subsets
from nnunetv2_d2net.plugin.prediction import predictor as predictor_module
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from tests.unit.plugin.prediction.conftest import build_predictor, write_cases
from tests.unit.plugin.preprocessing.conftest import brains, build_plans, write_image

NAMES = ["FLAIR", "T1", "T1ce"]
SUBSETS = {subset_name(flags, NAMES): tuple(flags) for flags in modality_subsets(3).tolist()}
CASES = {"whole": [0, 1, 2], "part": [1, 2], "only": [0]}


def cases_of(subset):
    """Cases of ``CASES`` that have all modalities of a subset."""
    return {case for case, channels in CASES.items() if all(m in channels for m in range(3) if SUBSETS[subset][m])}


def segmented(folder):
    return {path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz")}


@pytest.fixture
def source(tmp_path):
    return write_cases(tmp_path / "in", CASES)


@pytest.fixture
def work(all_subsets, monkeypatch):
    """Lists of what is read, preprocessed together and predicted together."""
    done = {"read": [], "preprocess": [], "predict": []}

    def watch(what, name, entry):
        real = getattr(all_subsets, name)

        def watched(*args):
            done[what].append(entry(*args))
            return real(*args)

        monkeypatch.setattr(all_subsets, name, watched)

    watch("read", "read", lambda files: Path(files[0]).name.split("_")[0])
    watch("preprocess", "_preprocess_group", lambda group: len(group.subsets))
    watch("predict", "predict_logits_of_subsets", lambda _data, subsets: [tuple(s) for s in subsets.tolist()])
    return done


def test_a_folder_per_subset_without_the_cases_that_cannot_have_it(all_subsets, source, tmp_path):
    all_subsets.predict_from_files(source, str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(SUBSETS)
    for subset in SUBSETS:
        folder = tmp_path / "out" / subset
        files = {f"{case}{ending}" for case in cases_of(subset) for ending in (".nii.gz", ".modalities.json")}
        assert {path.name for path in folder.iterdir()} == files | {"dataset.json", "plans.json"}


@pytest.mark.parametrize("margins", [(1, 1, 1), (3, 1, 2)])
def test_equal_to_separate_runs(all_subsets, network, plans, tmp_path, labels_on_disk, margins):
    source = write_cases(tmp_path / "in", {"a": [0, 1, 2]}, margins)
    all_subsets.predict_from_files(source, str(tmp_path / "out"), save_probabilities=True)
    separate = build_predictor(network, plans)
    for name, flags in SUBSETS.items():
        separate.allowed = flags
        separate.predict_from_files(source, str(tmp_path / "alone" / name), save_probabilities=True)
        files = (tmp_path / folder / name / "a.npz" for folder in ("out", "alone"))
        ours, theirs = (np.load(file)["probabilities"] for file in files)
        # nnU-Net adds logits in half precision, which turns the last bit of float32 into 2^-11 of a logit
        assert np.allclose(ours, theirs, atol=5e-3)
        ours, theirs = (labels_on_disk(tmp_path / folder / name)["a"] for folder in ("out", "alone"))
        assert np.mean(ours != theirs) < 0.01
        assert ours.any()


def test_each_case_is_read_once_and_equal_masks_are_preprocessed_once(all_subsets, work, tmp_path):
    all_subsets.predict_from_files(write_cases(tmp_path / "in", CASES, (1, 1, 1)), str(tmp_path / "out"))
    assert sorted(work["read"]) == sorted(CASES)
    assert sorted(work["preprocess"]) == [1, 3, 7]


@pytest.mark.parametrize(("margins", "groups"), [((3, 2, 1), [1, 2, 4]), ((2, 1, 1), [1, 6]), ((1, 2, 2), [3, 4])])
def test_images_of_different_extent_are_preprocessed_apart(all_subsets, work, tmp_path, margins, groups):
    all_subsets.predict_from_files(write_cases(tmp_path / "in", {"a": [0, 1, 2]}, margins), str(tmp_path / "out"))
    assert sorted(work["preprocess"]) == groups


def test_holes_make_no_difference(all_subsets, work, tmp_path):
    images = brains(3)
    images[1, 4:6, 4:6, 4:6] = 0
    (tmp_path / "in").mkdir()
    for m, image in enumerate(images):
        write_image(tmp_path / "in" / f"a_{m:04d}.nii.gz", image)
    all_subsets.predict_from_files(str(tmp_path / "in"), str(tmp_path / "out"))
    assert work["preprocess"] == [7]


@pytest.mark.parametrize(("use_mask", "groups"), [(False, [7]), (True, [1, 6])])
def test_equal_boxes_are_one_crop_unless_normalization_uses_the_mask(tmp_path, monkeypatch, use_mask, groups):
    images = brains(3)
    images[1, 1:4, 1:4, 1:4] = 0  # a corner, no hole: another mask in the same box
    (tmp_path / "in").mkdir()
    for m, image in enumerate(images):
        write_image(tmp_path / "in" / f"a_{m:04d}.nii.gz", image)
    plans = build_plans(["ZScoreNormalization"] * 3, use_mask=use_mask)
    together, alone = (build_predictor(plans=plans, kind=kind) for kind in (AllSubsetsPredictor, D2NetPredictor))
    real, sizes = together._preprocess_group, []
    monkeypatch.setattr(together, "_preprocess_group", lambda group: (sizes.append(len(group.subsets)), real(group))[1])
    together.predict_from_files(str(tmp_path / "in"), str(tmp_path / "out"), save_probabilities=True)
    assert sorted(sizes) == groups
    for name in ("T1", "FLAIR"):
        alone.allowed = SUBSETS[name]
        alone.predict_from_files(str(tmp_path / "in"), str(tmp_path / "alone" / name), save_probabilities=True)
        files = (tmp_path / folder / name / "a.npz" for folder in ("out", "alone"))
        ours, theirs = (np.load(file)["probabilities"] for file in files)
        assert np.allclose(ours, theirs, atol=5e-3)


def test_too_little_memory_on_the_gpu(all_subsets, tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(all_subsets, "predict_logits_of_subsets", out_of_memory)
    source = write_cases(tmp_path / "in", {"a": [0, 1, 2]}, (1, 1, 1))
    with pytest.raises(UserError, match="4 subsets at once: pass a smaller --subsets_per_pass"):
        all_subsets.predict_from_files(source, str(tmp_path / "out"))


@pytest.mark.parametrize("per_pass", [1, 3, 7, 100])
def test_subsets_per_pass_bounds_the_batch(all_subsets, work, tmp_path, per_pass):
    source = write_cases(tmp_path / "in", {"a": [0, 1, 2]}, (1, 1, 1))
    all_subsets.subsets_per_pass = per_pass
    all_subsets.predict_from_files(source, str(tmp_path / "out"))
    sizes = [len(subsets) for subsets in work["predict"]]
    assert max(sizes) == min(per_pass, 7)
    assert len(sizes) == -(-7 // per_pass)
    assert sorted(s for subsets in work["predict"] for s in subsets) == sorted(SUBSETS.values())


def test_only_what_is_missing_is_done(all_subsets, work, source, tmp_path):
    out = tmp_path / "out"
    all_subsets.predict_from_files(source, str(out))
    for entries in work.values():
        entries.clear()
    (out / "T1" / "part.nii.gz").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    all_subsets.predict_from_files(source, str(out), overwrite=False)
    assert work["predict"] == [[SUBSETS["T1"]]]
    assert (out / "T1" / "part.nii.gz").is_file()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    all_subsets.predict_from_files(source, str(out), overwrite=False, save_probabilities=True)
    assert sum(len(subsets) for subsets in work["predict"]) == 1 + 7 + 3 + 1, "the probabilities were missing"


def test_by_default_everything_is_done_again(all_subsets, work, source, tmp_path):
    for _ in range(2):
        all_subsets.predict_from_files(source, str(tmp_path / "out"))
    assert sum(len(subsets) for subsets in work["predict"]) == 2 * (7 + 3 + 1)


def test_notes_name_the_modalities_of_their_subset(all_subsets, source, tmp_path):
    all_subsets.predict_from_files(source, str(tmp_path / "out"))
    for name, flags in SUBSETS.items():
        for case in cases_of(name):
            content = json.loads((tmp_path / "out" / name / f"{case}.modalities.json").read_text(encoding="utf-8"))
            assert content["available modalities"] == name.split("+")
            assert content["absent modalities"] == [n for n, flag in zip(NAMES, flags, strict=True) if not flag]


def test_subsets_of_what_is_allowed(all_subsets, source, tmp_path):
    all_subsets.allowed = (True, False, True)
    all_subsets.predict_from_files(source, str(tmp_path / "out"))
    folders = {path.name: segmented(path) for path in (tmp_path / "out").iterdir()}
    assert folders == {"FLAIR": {"whole", "only"}, "T1ce": {"whole", "part"}, "FLAIR+T1ce": {"whole"}}


def test_a_constant_image_is_like_an_absent_one(all_subsets, tmp_path):
    source = write_cases(tmp_path / "in", {"a": [0, 1, 2]})
    write_image(tmp_path / "in" / "a_0002.nii.gz", np.full((10, 12, 11), 3))
    all_subsets.predict_from_files(source, str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir() if segmented(path)} == {"FLAIR", "T1", "FLAIR+T1"}


@pytest.mark.parametrize("threads", [0, 2])
def test_bad_cases_are_reported_and_the_others_predicted(all_subsets, source, tmp_path, caplog, threads):
    write_cases(tmp_path / "in", {"bad": [0, 1]})
    (tmp_path / "in" / "bad_0001.nii.gz").write_text("no image", encoding="utf-8")
    (tmp_path / "in" / "worse_0000.nii").touch()
    processes = {"num_processes_preprocessing": threads, "num_processes_segmentation_export": threads}
    with pytest.raises(UserError, match=r"2 cases could not be segmented \('worse', 'bad'\)"):
        all_subsets.predict_from_files(source, str(tmp_path / "out"), **processes)
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert [message.startswith("case 'bad': ") for message in errors].count(True) == 1
    assert {name: segmented(tmp_path / "out" / name) for name in SUBSETS} == {name: cases_of(name) for name in SUBSETS}


def test_a_segmentation_that_cannot_be_written(all_subsets, source, tmp_path):
    (tmp_path / "out" / "T1" / "whole.nii.gz").mkdir(parents=True)
    with pytest.raises(UserError, match=r"1 case could not be segmented \('whole'\)"):
        all_subsets.predict_from_files(source, str(tmp_path / "out"))
    assert str(tmp_path / "out" / "T1" / "whole") in all_subsets.failures["whole"]
    assert segmented(tmp_path / "out" / "T1+T1ce") == {"whole", "part"}


def test_an_output_folder_that_is_a_file(all_subsets, source, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="pass another output folder"):
        all_subsets.predict_from_files(source, str(tmp_path / "out"))


@pytest.mark.parametrize(
    "arguments",
    [(None,), (["a", "b"],), ("out", False, True, 3, 3, "previous")],
    ids=["none", "list", "previous stage"],
)
def test_arguments_that_make_no_sense(all_subsets, source, arguments):
    with pytest.raises(UserError, match="all subsets go to one folder"):
        all_subsets.predict_from_files(source, *arguments)


def test_parts_share_the_cases(all_subsets, work, source, tmp_path):
    for part in range(2):
        all_subsets.predict_from_files(source, str(tmp_path / "out"), num_parts=2, part_id=part)
    assert sorted(work["read"]) == sorted(CASES)
    assert segmented(tmp_path / "out" / "T1ce") == {"whole", "part"}


@pytest.mark.parametrize("fails", [True, False])
def test_nnunets_progress_bars_come_back(all_subsets, source, tmp_path, monkeypatch, fails):
    all_subsets.allow_tqdm = True
    if fails:
        monkeypatch.setattr(predictor_module.SubsetNetwork, "forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            all_subsets.predict_from_files(source, str(tmp_path / "out"))
    else:
        all_subsets.predict_from_files(source, str(tmp_path / "out"))
    assert all_subsets.allow_tqdm is True


def test_a_2d_configuration(tmp_path):
    plans = build_plans(["ZScoreNormalization"] * 3, patch_size=(8, 8), spacing=(1.0, 1.0))
    source = write_cases(tmp_path / "in", {"a": [0, 2]})
    build_predictor(plans=plans, kind=AllSubsetsPredictor).predict_from_files(source, str(tmp_path / "out"))
    done = {path.name for path in (tmp_path / "out").iterdir() if segmented(path)}
    assert done == {"FLAIR", "T1ce", "FLAIR+T1ce"}


def test_few_groups_are_in_memory_at_a_time(all_subsets, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for m, image in enumerate(brains(3)):  # a box of its own for each subset
        image[: m + 1], image[:, : 2 - m] = 0, 0
        image[-3 + m :] = 0
        write_image(tmp_path / "in" / f"a_{m:04d}.nii.gz", image)
    made, done, ahead = [], [], []
    preprocess, predict = all_subsets._preprocess_group, all_subsets._logits_of
    monkeypatch.setattr(all_subsets, "_preprocess_group", lambda group: (made.append(group), preprocess(group))[1])

    def predicted(data, subsets):
        ahead.append(len(made) - len(done))
        yield from predict(data, subsets)
        done.append(subsets)

    monkeypatch.setattr(all_subsets, "_logits_of", predicted)
    all_subsets.predict_from_files(str(tmp_path / "in"), str(tmp_path / "out"), num_processes_preprocessing=1)
    assert len(made) > 3
    assert max(ahead) <= 2  # the one in the network and the next


def test_only_some_subsets(all_subsets, source, tmp_path, work):
    all_subsets.only = [SUBSETS["FLAIR"], SUBSETS["T1+T1ce"]]
    all_subsets.predict_from_files(source, str(tmp_path / "out"))
    assert {path.name: segmented(path) for path in (tmp_path / "out").iterdir()} == {
        "FLAIR": {"whole", "only"},
        "T1+T1ce": {"whole", "part"},
    }
    assert {subset for subsets in work["predict"] for subset in subsets} == set(all_subsets.only)
    all_subsets.allowed = (True, False, False)
    all_subsets.only = [SUBSETS["T1+T1ce"]]
    with pytest.raises(UserError, match="none of the subsets is left"):
        all_subsets.predict_from_files(source, str(tmp_path / "out"))
