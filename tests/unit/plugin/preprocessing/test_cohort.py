import json

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.preprocessing.cohort import (
    AVAILABLE,
    availability_file,
    check_preprocessed,
    write_availability,
)

NAMES = ("T1", "T2")


def save(folder, case, n_channels=2, flags=None):
    images = np.ones((n_channels, 2, 2, 2), np.float32)
    properties = {} if flags is None else {AVAILABLE: flags}
    nnUNetDatasetBlosc2.save_case(images, images[:1].astype(np.int16), properties, str(folder / case))


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    save(folder, "a", flags=[True, True])
    save(folder, "b", flags=[False, True])
    write_availability(folder, NAMES, {"a": {"imagesTr/a_0000.nii.gz": 5}})
    references = tmp_path / "gt_segmentations"
    references.mkdir()
    for case in ("a", "b"):
        (references / f"{case}.nii.gz").touch()
    return folder


def refused(folder, *parts, names=NAMES):
    with pytest.raises(UserError) as error:
        check_preprocessed(folder, names, "run this")
    assert str(error.value).endswith(": run this")
    for part in parts:
        assert part in str(error.value), str(error.value)


def test_data_of_ours(ours):
    assert check_preprocessed(ours, NAMES, "run this") == ["a", "b"]
    assert json.loads(availability_file(ours).read_text(encoding="utf-8")) == {
        "modalities": ["T1", "T2"],
        "available": {"a": [True, True], "b": [False, True]},
        "raw_sizes": {"a": {"imagesTr/a_0000.nii.gz": 5}},
    }


def test_data_whose_preprocessing_was_interrupted_before_the_labels_were_copied(ours):
    (ours.parent / "gt_segmentations" / "b.nii.gz").unlink()
    refused(ours, "gt_segmentations lacks b, with which the final validation compares")
    (ours.parent / "gt_segmentations" / "a.nii.gz").unlink()
    (ours.parent / "gt_segmentations").rmdir()
    refused(ours, "gt_segmentations lacks a, b")


def test_complete_data_of_nnunets(tmp_path):
    save(tmp_path, "a")
    assert check_preprocessed(tmp_path, NAMES, "run this") == ["a"]


def test_data_of_another_shape_than_planned(ours):
    seen = []
    assert check_preprocessed(ours, NAMES, "run this", seen.append) == ["a", "b"]
    assert [properties[AVAILABLE] for properties in seen] == [[True, True], [False, True]]
    assert check_preprocessed(ours, NAMES, "run this", lambda _: (2, 2, 2)) == ["a", "b"]
    with pytest.raises(UserError, match=f"^a of {ours} has 2 x 2 x 2 and not 2 x 4 x 2 voxels, as other plans made"):
        check_preprocessed(ours, NAMES, "run this", lambda _: [2, 4, 2])


def test_incomplete_data_of_nnunets(tmp_path):
    save(tmp_path, "a")
    save(tmp_path, "b", 1)
    refused(tmp_path, f"b of {tmp_path} has 1 channel, not 2")


def test_no_data(tmp_path):
    refused(tmp_path, "no preprocessed case")


def test_nnunet_has_preprocessed_over_ours(ours):
    for path in ours.glob("b*"):
        path.unlink()
    save(ours, "b")
    refused(ours, "available_modalities.json", "b was preprocessed from")


def test_preprocessing_was_interrupted(ours):
    availability_file(ours).unlink()
    refused(ours, "available_modalities.json", "a was preprocessed from")


def test_the_note_speaks_of_other_data(ours):
    refused(ours, "other modalities (T1, T2)", names=("T1", "FLAIR"))
    save(ours, "c", flags=[True, True])
    refused(ours, "other cases (c)")
    for case in "ac":
        (ours / f"{case}.pkl").unlink()
    refused(ours, "other cases (a)")


def test_a_damaged_case(ours):
    (ours / "a.pkl").write_bytes(b"")
    refused(ours, "cannot be read")
