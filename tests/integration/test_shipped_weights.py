"""The model that comes with the package: what its card says, and that it finds a tumor with each sequence absent."""

import hashlib
import re

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_d2net import segment
from nnunetv2_d2net.patient.model import WEIGHTS, shipped_checkpoint
from nnunetv2_d2net.study.scores.metrics import dice

MEBIBYTES = 2**20
SPACING = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def patient():
    """A plain phantom, which the weights have not seen: images by sequence, and its labels."""
    pytest.importorskip("nilearn")
    from nnunetv2_d2net.data.phantom.case import simulate_case
    from nnunetv2_d2net.data.phantom.mri import MODALITIES

    case = simulate_case("small", np.random.SeedSequence(5))
    images = {}
    for name, voxels in zip(MODALITIES, case.images, strict=True):
        images[name] = sitk.GetImageFromArray(voxels)
        images[name].SetSpacing(SPACING)
    return images, case.labels


def test_the_card_is_of_these_weights():
    checkpoint = shipped_checkpoint()
    (said,) = re.findall(r"\b[0-9a-f]{64}\b", (WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8"))
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == said
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 10 * MEBIBYTES
    weights = torch.load(checkpoint, weights_only=True)["network_weights"]
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


@pytest.mark.slow
@pytest.mark.parametrize("absent", [None, "FLAIR", "T1", "T1ce", "T2"])
def test_it_finds_a_tumor_with_any_sequence_absent(patient, absent):
    images, labels = patient
    result = segment({name: image for name, image in images.items() if name != absent})
    assert result.note["absent modalities"] == ([absent] if absent else [])
    assert "simulated" in str(result.note["Dice measured on"])
    found = sitk.GetArrayFromImage(result.segmentation)
    assert dice(found > 0, labels > 0) > 0.3  # a tenth of the brain anywhere would have about 0.1
