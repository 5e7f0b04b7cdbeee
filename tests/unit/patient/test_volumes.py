import csv
import io

import numpy as np
import SimpleITK as sitk

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.patient.volumes import as_csv, as_json, label_names, measure_volumes
from tests.one_patient import REGIONS


def dataset(labels, **more):
    return Dataset.of({"channel_names": {"0": "T1"}, "labels": {"background": 0, **labels}, "file_ending": "", **more})


def segmentation():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 0, :4], labels[1, 0, :3], labels[2, 0, :2] = 2, 1, 3
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((2.0, 5.0, 10.0))  # 0.1 ml
    return image


def test_volumes_of_labels_and_regions():
    found = measure_volumes(segmentation(), dataset(REGIONS, regions_class_order=[2, 1, 3]))
    assert [(v.kind, v.name, v.values, v.ml) for v in found] == [
        ("label", "necrotic or non-enhancing core", (1,), 0.3),
        ("label", "edema", (2,), 0.4),
        ("label", "enhancing tumor", (3,), 0.2),
        ("region", "whole tumor", (1, 2, 3), 0.9),
        ("region", "tumor core", (1, 3), 0.5),
        ("region", "enhancing tumor", (3,), 0.2),
    ]
    content = as_json(found)
    assert content["labels"]["edema"] == {"values": [2], "ml": 0.4}
    assert content["regions"]["tumor core"] == {"values": [1, 3], "ml": 0.5}
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert rows[4] == {"kind": "region", "name": "tumor core", "values": "1 3", "ml": "0.5"}


def test_labels_of_other_models():
    assert label_names({"lesion": (1,), "organ, left": (2,)}) == {1: "lesion", 2: "organ, left"}
    assert label_names({"a": (1, 2, 3), "b": (2,), "c": (3,)}) == {1: "a without b and c", 2: "b", 3: "c"}
    found = measure_volumes(segmentation(), dataset({"lesion": 1, "organ, left": 2, "third": 3, "none": 4}))
    volumes = {v.name: v.ml for v in found[:4]}
    assert (volumes["lesion"], volumes["organ, left"], volumes["none"]) == (0.3, 0.4, 0.0)
    assert next(csv.DictReader(io.StringIO(as_csv(found[1:])))) == {
        "kind": "label",
        "name": "organ, left",
        "values": "2",
        "ml": "0.4",
    }
