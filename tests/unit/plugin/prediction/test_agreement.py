"""What is compared with a segmentation: the same without a modality, by one fold, without mirroring."""

import json

import pytest
import torch
from torch import nn

from nnunetv2_d2net.plugin.prediction.agreement import AGREEMENT, Witnesses, worst_agreement
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.note import closing_line
from nnunetv2_d2net.plugin.prediction.predictor import D2NetPredictor
from tests.unit.plugin.prediction.conftest import Sums, build_predictor, write_cases

REGIONS = ["lesion", "core"]


def dice(one, other):
    """Slow and obvious, of two lists of label values; lesion is 1 and 2, core is 2."""
    result = {}
    for region, values in (("lesion", (1, 2)), ("core", (2,))):
        a, b = ({n for n, v in enumerate(labels.flatten().tolist()) if v in values} for labels in (one, other))
        result[region] = 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
    return result


def masks_of(labels):
    return torch.stack([labels > 0, labels == 2])


def test_every_subset_meets_all_it_is_compared_with():
    given, labels = (True, True, False), {}
    witnesses = Witnesses([given], ["T1", "T2", "PD"], masks_of)
    assert witnesses.subsets == [(False, True, False), (True, False, False), given]
    for n, subset in enumerate(witnesses.subsets):
        labels[subset] = torch.randint(0, 3, (4, 5, 6), generator=torch.Generator().manual_seed(n))
        found = witnesses.agreement(subset, labels[subset], REGIONS)
    assert found == {
        "without T1": pytest.approx(dice(labels[given], labels[False, True, False]), abs=1e-4),
        "without T2": pytest.approx(dice(labels[given], labels[True, False, False]), abs=1e-4),
    }


def test_nothing_can_be_left_out_of_one_modality():
    witnesses = Witnesses([(True, False)], ["T1", "T2"], masks_of)
    assert witnesses.subsets == [(True, False)]
    assert witnesses.agreement((True, False), torch.zeros(2, 2), REGIONS) == {}


def test_two_empty_masks_agree_and_one_does_not():
    witnesses = Witnesses([(True, True)], ["T1", "T2"], masks_of)
    for subset, labels in zip(witnesses.subsets, ([0, 0], [1, 0], [0, 0]), strict=True):
        found = witnesses.agreement(subset, torch.tensor(labels), REGIONS)
    assert found == {"without T1": {"lesion": 1.0, "core": 1.0}, "without T2": {"lesion": 0.0, "core": 1.0}}
    assert worst_agreement(found) == "least agreement: lesion without T2, Dice 0.00"


class Lopsided(nn.Module):
    """Says another thing of a mirrored tile, and of each fold."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        total = images.sum(1)
        ramp = torch.linspace(-2, 2, total.shape[-1]).expand_as(total)
        return torch.stack([torch.zeros_like(total), total + ramp - self.threshold, ramp - total - self.threshold], 1)


def agreement_of(predictor, tmp_path, channels=(0, 1)):
    predictor.agreement = True
    predictor.predict_from_files(write_cases(tmp_path / "in", {"a": channels}), str(tmp_path / "out"))
    return json.loads((tmp_path / "out" / "a.modalities.json").read_text(encoding="utf-8"))


def segmented(tmp_path, labels_on_disk, name, **settings):
    """The segmentation of another call, to be compared with."""
    predictor = build_predictor(Lopsided(), **settings)
    predictor.predict_from_files(str(tmp_path / "in"), str(tmp_path / name))
    return labels_on_disk(tmp_path / name)["a"]


FOLDS = [{"threshold": torch.tensor(1.0)}, {"threshold": torch.tensor(-0.5)}]


def test_folds_and_mirroring_are_compared_as_separate_calls_would_be(tmp_path, labels_on_disk):
    content = agreement_of(build_predictor(Lopsided(), weights=FOLDS, mirror_axes=(2,)), tmp_path, (0,))
    (own,) = labels_on_disk(tmp_path / "out").values()
    assert list(content[AGREEMENT]) == ["by fold_0 alone", "by fold_1 alone", "without mirroring"]
    for n, what in enumerate(list(content[AGREEMENT])[:2]):
        other = segmented(tmp_path, labels_on_disk, f"fold_{n}", weights=[FOLDS[n]], mirror_axes=(2,))
        assert content[AGREEMENT][what] == pytest.approx(by_label(own, other), abs=0.02)
        assert min(by_label(own, other).values()) < 0.98
    plain = segmented(tmp_path, labels_on_disk, "plain", weights=FOLDS)
    assert content[AGREEMENT]["without mirroring"] == pytest.approx(by_label(own, plain), abs=0.02)


def by_label(one, other):
    names = {"a": 1, "b": 2}
    return {
        name: 2 * ((one == v) & (other == v)).sum() / max((one == v).sum() + (other == v).sum(), 1)
        for name, v in names.items()
    }


def test_the_segmentation_is_the_same_and_the_closing_line_names_the_worst(tmp_path, labels_on_disk):
    content = agreement_of(build_predictor(Sums()), tmp_path, (0, 1, 2))
    assert list(content[AGREEMENT]) == ["without FLAIR", "without T1", "without T1ce"]
    assert "; least agreement: " in closing_line(content)
    build_predictor(Sums()).predict_from_files(str(tmp_path / "in"), str(tmp_path / "plain"))
    assert (labels_on_disk(tmp_path / "out")["a"] == labels_on_disk(tmp_path / "plain")["a"]).all()
    plain = json.loads((tmp_path / "plain" / "a.modalities.json").read_text(encoding="utf-8"))
    assert AGREEMENT not in plain
    assert "agreement" not in closing_line(plain)


@pytest.mark.parametrize("kind", [D2NetPredictor, AllSubsetsPredictor])
def test_nothing_more_goes_through_the_network_than_is_needed(tmp_path, monkeypatch, kind):
    seen = []
    original = D2NetPredictor.predict_logits_of_subsets
    monkeypatch.setattr(kind, "predict_logits_of_subsets", lambda p, d, s: seen.extend(s.tolist()) or original(p, d, s))
    predictor = build_predictor(Sums(), kind=kind)
    predictor.agreement = True
    predictor.predict_from_files(write_cases(tmp_path / "in", {"a": [0, 1, 2]}), str(tmp_path / "out"))
    # one of the seven is cropped otherwise than the others, and must be seen in both crops
    assert len(seen) == {D2NetPredictor: 4, AllSubsetsPredictor: 8}[kind]


def test_all_subsets_are_compared_with_each_other(tmp_path):
    predictor = build_predictor(Sums(), kind=AllSubsetsPredictor, mirror_axes=(0,))
    predictor.agreement = True
    predictor.predict_from_files(write_cases(tmp_path / "in", {"a": [0, 2]}), str(tmp_path / "out"))
    found = {
        path.parent.name: list(json.loads(path.read_text(encoding="utf-8"))[AGREEMENT])
        for path in (tmp_path / "out").rglob("a.modalities.json")
    }
    assert found == {
        "FLAIR": ["without mirroring"],
        "T1ce": ["without mirroring"],
        "FLAIR+T1ce": ["without FLAIR", "without T1ce", "without mirroring"],
    }
