"""Label numbers and regions, against what nnU-Net itself makes of them."""

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.layouts import BRATS2018, BRATS2021, BRATS2023
from nnunetv2_d2net.data.convert.scheme import inverse_of, make_scheme

WHOLE = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3}


def survives_nnunet(scheme, seen):
    """Every label, as regions, comes back as itself from nnU-Net's own conversion."""
    described = scheme.described(seen)
    manager = LabelManager(described["labels"], described.get("regions_class_order"))
    labels = np.array(sorted({scheme.values[value] for value in seen}))[:, None, None]
    assert list(np.ediff1d(manager.all_labels)) == [1] * (len(manager.all_labels) - 1)
    if not manager.has_regions:
        return True
    regions = np.stack([np.isin(labels, region) for region in manager.foreground_regions]).astype(np.float32)
    return np.array_equal(manager.convert_probabilities_to_segmentation(regions), labels)


@pytest.mark.parametrize("layout", [BRATS2018, BRATS2021])
def test_label_4_of_the_old_years_is_enhancing_tumor(layout):
    assert layout.scheme.values == {0: 0, 1: 1, 2: 2, 4: 3}
    assert layout.scheme.described([0, 1, 2, 4]) == {"labels": WHOLE, "regions_class_order": [2, 1, 3]}
    assert list(layout.scheme.described([0])["labels"]) == list(WHOLE)  # the order counts for nnU-Net
    assert inverse_of(layout.scheme.values) == {0: 0, 1: 1, 2: 2, 3: 4}
    assert survives_nnunet(layout.scheme, [0, 1, 2, 4])


def test_the_resection_cavity_is_a_region_only_where_it_occurs():
    assert BRATS2023.scheme.described([0, 1, 2, 3]) == {"labels": WHOLE, "regions_class_order": [2, 1, 3]}
    with_cavity = BRATS2023.scheme.described([0, 2, 4])
    assert with_cavity == {"labels": WHOLE | {"resection cavity": 4}, "regions_class_order": [2, 1, 3, 4]}
    assert survives_nnunet(BRATS2023.scheme, [0, 1, 2, 3])
    assert survives_nnunet(BRATS2023.scheme, [0, 1, 2, 3, 4])


def test_classes_without_regions_are_numbered_in_order_and_ignore_comes_last():
    scheme = make_scheme({7: "ignore", 3: "b", 9: "a", 5: "background", 4: "b"})
    assert scheme.values == {0: 0, 7: 3, 3: 1, 9: 2, 5: 0, 4: 1}
    assert scheme.described([0]) == {"labels": {"background": 0, "b": 1, "a": 2, "ignore": 3}}
    assert inverse_of(scheme.values) == {0: 0, 1: 3, 2: 9, 3: 7}
    manager = LabelManager(scheme.labels, None)
    assert manager.ignore_label == 3
    assert survives_nnunet(scheme, [0, 3, 9])


@pytest.mark.parametrize(
    ("names", "regions", "message"),
    [
        ({0: "tumor"}, None, "0 is always the background"),
        ({1: "background"}, None, "no label but background"),
        (dict.fromkeys(range(1, 3), "x") | {i: f"l{i}" for i in range(3, 300)}, None, "nnU-Net's files hold"),
        ({1: "a", 2: "b"}, {"all": ["a", "c"]}, "region 'all' holds 'c'"),
        ({1: "a"}, {"all": []}, "region 'all' holds 'nothing'"),
        ({1: "a", 2: "b"}, {"all": ["a"]}, "label 'b' is in no region"),
        ({1: "a", 2: "b"}, {"all": ["a", "b"]}, "'a' and 'b' beside the regions after it"),
        ({1: "a", 2: "b"}, {"b": ["b"], "all": ["a", "b"]}, "region 'b' holds nothing"),
        ({1: "a"}, {"ignore": ["a"]}, "cannot be called ignore"),
    ],
)
def test_what_nnunet_could_not_tell_apart_is_refused(names, regions, message):
    with pytest.raises(UserError, match=message):
        make_scheme(names, regions)
