"""The model that comes with the package: its card, any sequence absent, nnU-Net's own commands, fine-tuning."""

import hashlib
import re

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net import segment
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.patient.model import WEIGHTS, shipped_checkpoint, shipped_model
from nnunetv2_d2net.plugin.prediction.likeness import read_appearance, read_fingerprint
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropoutModulated
from nnunetv2_d2net.plugin.training.pretrained import load_fitting_weights
from nnunetv2_d2net.study.scores.metrics import dice
from tests.conftest import nnunet_environment
from tests.integration.conftest import d2net, nnunet

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


def test_it_knows_what_its_training_cases_looked_like():
    cohort = read_appearance(read_fingerprint(shipped_model()))
    assert cohort is not None
    assert cohort.tells_modalities
    assert cohort.is_of_brains


@pytest.mark.parametrize(("ours", "theirs"), [(("T1w", "t1gd", "T2w", "Flair"), (1, 2, 3, 0)), (("T1ce",), (2,))])
def test_fine_tuning_takes_all_but_the_segmentation_layers_by_the_names_of_modalities(ours, theirs):
    plans = PlansManager(read_json(shipped_model() / "plans.json", ""))
    network = nnUNetTrainerModalityDropoutModulated.build_network_architecture(
        plans, plans.get_configuration("3d_fullres"), len(ours), 5
    )
    taken, left, *_ = load_fitting_weights(network, shipped_checkpoint(), ours)
    assert "encoder (" in taken
    assert "modulation (" in taken
    assert set(re.findall(r"[\w.]+", left.partition(": ")[2])) == {
        f"decoder.seg_layers.{level}" for level in range(len(network.decoder.seg_layers))
    }
    weights = torch.load(shipped_checkpoint(), weights_only=True)["network_weights"]
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(network.state_dict()[name], weights[name].float()[:, theirs])


@pytest.mark.slow
def test_nnunets_own_commands_take_it(patient, tmp_path):
    images, _ = patient
    names = list(images)
    (tmp_path / "images").mkdir()
    for name, image in images.items():
        if name != "T1":
            sitk.WriteImage(image, tmp_path / "images" / f"case_{names.index(name):04d}.nii.gz")
    assert d2net("export", shipped_model(), "-o", tmp_path / "model.zip", "--half") == 0
    with nnunet_environment(tmp_path):
        announce_trainers()
        nnunet(install_from_zip_entry_point, tmp_path / "model.zip")
        words = ["-i", tmp_path / "images", "-o", tmp_path / "out", "-d", "998", "-c", "3d_fullres", "-f", "all"]
        trainer, plans, _ = shipped_model().name.split("__")
        nnunet(predict_entry_point, *words, "-tr", trainer, "-p", plans, "-device", "cpu", "-npp", "0", "-nps", "0")
    found = segment({name: image for name, image in images.items() if name != "T1"}, mirror=True)
    written = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "case.nii.gz"))
    assert np.array_equal(written, sitk.GetArrayFromImage(found.segmentation))
    assert written.any()


@pytest.mark.slow
@pytest.mark.parametrize("absent", [None, "FLAIR", "T1", "T1ce", "T2"])
def test_it_finds_a_tumor_with_any_sequence_absent(patient, absent):
    images, labels = patient
    result = segment({name: image for name, image in images.items() if name != absent})
    assert result.note["absent modalities"] == ([absent] if absent else [])
    assert "simulated" in str(result.note["Dice measured on"])
    found = sitk.GetArrayFromImage(result.segmentation)
    assert dice(found > 0, labels > 0) > 0.3  # a tenth of the brain anywhere would have about 0.1
