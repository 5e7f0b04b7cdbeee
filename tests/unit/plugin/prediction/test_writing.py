import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import content_state
from nnunetv2_d2net.plugin.prediction import writing
from nnunetv2_d2net.plugin.prediction.subset_network import StackedHeads
from nnunetv2_d2net.plugin.prediction.writing import is_written, segmentation_of, write_segmentation

GEOMETRY = {"spacing": (1.0, 1.0, 1.0), "origin": (-3.0, 4.0, 5.0), "direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}


def case_of(shape):
    """Random logits and the properties of a case that was neither cropped nor resampled."""
    logits = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "sitk_stuff": GEOMETRY,
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
    }
    return logits, properties


def write(predictor, target, shape=(6, 7, 8), *, probabilities=False):
    logits, properties = case_of(shape)
    write_segmentation(predictor, logits, properties, target, {"absent": ["T1"]}, probabilities=probabilities)
    return logits


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["a", "with space", "[x]*?", "v1.2", "Müller"])
def test_a_segmentation_and_its_note(predictor, tmp_path, name):
    logits = write(predictor, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.nii.gz", f"{name}.modalities.json"}
    written = json.loads((tmp_path / f"{name}.modalities.json").read_text(encoding="utf-8"))
    sizes = [round(int((logits.argmax(0) == label).sum()) / 1000, 3) for label in (1, 2)]
    files = {".nii.gz": content_state(tmp_path / f"{name}.nii.gz")}
    assert written == {"absent": ["T1"], "volumes (ml)": dict(zip("ab", sizes, strict=True)), "files": files}
    image = sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image), logits.argmax(0))
    assert np.allclose(image.GetOrigin(), GEOMETRY["origin"])
    assert np.allclose(image.GetDirection(), GEOMETRY["direction"])


def test_what_is_there_counts_only_as_it_was_written(predictor, tmp_path, caplog):
    target, endings = str(tmp_path / "a"), (".npz", ".nii.gz")
    assert not is_written(target, endings)
    write(predictor, Path(target), probabilities=True)
    assert is_written(target, endings)
    for ending in endings:
        path = Path(f"{target}{ending}")
        whole = path.read_bytes()
        path.unlink()
        assert not is_written(target, endings)
        path.write_bytes(whole)
    image = Path(f"{target}.nii.gz")
    for damaged in (whole[:-9], whole[:80] + b"damage" + whole[86:]):
        image.write_bytes(damaged)
        assert not is_written(target, endings)
        assert "a.nii.gz is damaged" in caplog.messages[-1]
        assert not is_written(target, [".nii.gz"])
    sitk.WriteImage(sitk.Image(3, 3, 3, sitk.sitkUInt8), str(image))  # a user's own
    with pytest.raises(UserError, match=r"a\.nii\.gz was changed after it was written: move it away"):
        is_written(target, endings)
    Path(f"{target}.modalities.json").unlink()
    assert is_written(target, [".nii.gz"])  # nnU-Net's


def test_probabilities(predictor, tmp_path):
    logits = write(predictor, tmp_path / "a", probabilities=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "a.npz", "a.pkl", "a.modalities.json"}
    saved = np.load(tmp_path / "a.npz")["probabilities"]
    assert np.allclose(saved, logits.softmax(0), atol=1e-6)
    _, properties = case_of((6, 7, 8))
    labels, probabilities = segmentation_of(predictor, logits, properties, probabilities=True)
    assert np.array_equal(probabilities, saved)
    assert np.array_equal(labels, segmentation_of(predictor, logits, properties, probabilities=False))


def test_one_case_is_finished_while_another_is_in_the_network(predictor):
    """Several subsets then share the window, and the predictor's label manager counts the maps of all."""
    logits, properties = case_of((6, 7, 8))
    expected = segmentation_of(predictor, logits, properties, probabilities=False)
    predictor.label_manager = StackedHeads(21)
    assert np.array_equal(segmentation_of(predictor, logits, properties, probabilities=False), expected)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), UserError),
        (RuntimeError("ITK ERROR: no"), UserError),
        (RuntimeError("can't allocate memory"), RuntimeError),
    ],
)
def test_an_interrupted_export_leaves_nothing(predictor, tmp_path, monkeypatch, error, seen):
    def half(_logits, _properties, _configuration, _plans, _dataset_json, unfinished, *_args, **_kwargs):
        for ending in (".npz", ".nii.gz"):
            Path(unfinished + ending).write_text("half", encoding="utf-8")
        raise error

    (tmp_path / "a.nii.gz").write_text("of an earlier run", encoding="utf-8")
    (tmp_path / "a.b.nii.gz").write_text("of another case", encoding="utf-8")
    monkeypatch.setattr(writing, "export_prediction_from_logits", half)
    with pytest.raises(seen):
        write(predictor, tmp_path / "a", probabilities=True)
    assert names_in(tmp_path) == ["a.b.nii.gz", "a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_text(encoding="utf-8") == "of an earlier run"


def test_while_a_file_grows_it_has_another_name(predictor, tmp_path, monkeypatch):
    real, seen = writing.export_prediction_from_logits, []

    def watched(*args, **kwargs):
        real(*args, **kwargs)
        seen.extend(path.name for path in tmp_path.iterdir() if path.is_file())

    monkeypatch.setattr(writing, "export_prediction_from_logits", watched)
    write(predictor, tmp_path / "a")
    assert seen == []
    assert (tmp_path / "a.nii.gz").is_file()


def test_the_segmentation_appears_last(predictor, tmp_path, monkeypatch):
    """Its presence tells a resumed run that the case is done."""
    order, real = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (order.append(Path(target).name), real(path, target)))
    write(predictor, tmp_path / "a", probabilities=True)
    assert order[-1] == "a.nii.gz"
    assert set(order[:-1]) == {"a.npz", "a.pkl", "a.modalities.json"}


@contextmanager
def file_size_limit(n_bytes):
    """The nearest to a full disk that needs no other rights: writing beyond this size fails."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_itk_cuts_a_file_short_without_an_error(predictor, tmp_path):
    with file_size_limit(20_000), pytest.raises(UserError, match="cut short"):
        write(predictor, tmp_path / "a", (60, 60, 60))
    assert names_in(tmp_path) == []
    write(predictor, tmp_path / "a", (60, 60, 60))
    assert (tmp_path / "a.nii.gz").stat().st_size > 20_000, "the limit was too high to test anything"
