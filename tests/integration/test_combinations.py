"""Everything beside the three cycles, one call or one step each."""

import json
import math
from copy import deepcopy

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
from nnunetv2.evaluation.find_best_configuration import find_best_configuration_entry_point
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry, install_from_zip_entry_point
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.plugin.training import variants
from nnunetv2_d2net.plugin.training.variants import find_trainer
from tests.conftest import LARGE_3D, REGIONS_3D, REGIONS_M5, write_raw_dataset
from tests.integration.conftest import (
    N_TRAIN_STEPS,
    Model,
    d2net,
    make_trainer,
    nnunet,
    plan_d2net,
    plan_stock,
    read_plans,
    tiny_nnunet,
    train_d2net,
)

pytestmark = pytest.mark.slow

D2NetTrainer = find_trainer("D2NetTrainer")
ModalityDropout = find_trainer("nnUNetTrainerModalityDropout")
LOWRES_TARGET_GB = 0.015  # the patch covers less than a quarter of the image


def one_step(trainer):
    """Do one training and one validation step on real batches; every weight must have moved or stayed finite."""
    trainer.initialize()
    batches_train, batches_validation = trainer.get_dataloaders()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    before = deepcopy(trainer.network.state_dict())
    trainer.on_train_epoch_start()
    batch = next(batches_train)
    loss = trainer.train_step(batch)["loss"]
    assert np.isfinite(loss)
    after = trainer.network.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        outputs = trainer.validation_step(next(batches_validation))
    assert np.isfinite(outputs["loss"])
    return batch


@pytest.fixture(autouse=True)
def _other_results(tmp_path, monkeypatch, request):
    """Trainers that a test constructs write their logs elsewhere."""
    if "regions_model" not in request.fixturenames:
        monkeypatch.setenv("nnUNet_results", str(tmp_path))


@pytest.fixture(scope="module")
def five(root):
    """REGIONS_M5, planned by D2NetPlanner and with residual encoders."""
    with tiny_nnunet(root):
        write_raw_dataset(root / "raw", REGIONS_M5)
        plan_d2net(REGIONS_M5, "-c", "3d_fullres", "-np", 1)
        plan_d2net(REGIONS_M5, "--no_pp", "-pl", "D2NetResEncPlanner")
    return REGIONS_M5


@pytest.fixture(scope="module")
def lowres(root):
    """LARGE_3D, planned as usual and under a memory target so small that nnU-Net plans a low resolution, too."""
    with tiny_nnunet(root):
        write_raw_dataset(root / "raw", LARGE_3D)
        plan_d2net(LARGE_3D, "--no_pp")
        words = ["-gpu_memory_target", LOWRES_TARGET_GB, "-overwrite_plans_name", "D2NetLowresPlans"]
        plan_d2net(LARGE_3D, *words, "-c", "3d_lowres", "-np", 1)
    return LARGE_3D


@pytest.fixture(scope="module")
def rival(root, regions_data):
    """The modality-dropout baseline on the same plans as regions_model."""
    with tiny_nnunet(root):
        model = Model(REGIONS_3D, "3d_fullres", "nnUNetPlans", "nnUNetTrainerModalityDropout_1epoch", root)
        train_d2net(*model.train_words, "-p", "nnUNetPlans", "--npz")
    return model


def test_five_modalities(root, five):
    trainer = make_trainer(root, five, "D2NetPlans")
    batch = one_step(trainer)
    assert batch["data"].shape[1] == trainer.network.n_modalities == 5


def test_residual_encoder_of_our_planner(root, five):
    plans = read_plans(root, five, "D2NetResEncPlans")["configurations"]["3d_fullres"]
    assert plans["data_identifier"] == "D2NetResEncPlans_3d_fullres"
    trainer = make_trainer(root, five, "D2NetResEncPlans", data_identifier="D2NetPlans_3d_fullres")
    one_step(trainer)
    assert type(trainer.network.encoder).__name__ == "ResidualEncoder"


def test_residual_encoder_of_stock_plans(root, five):
    plan_stock(five, "--no_pp", "-pl", "nnUNetPlannerResEncM")
    plans = read_plans(root, five, "nnUNetResEncUNetMPlans")["configurations"]["3d_fullres"]
    assert plans["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")
    trainer = make_trainer(root, five, "nnUNetResEncUNetMPlans", data_identifier="D2NetPlans_3d_fullres")
    one_step(trainer)
    assert type(trainer.network) is D2Net


def test_fold_all_trains_on_every_case(root, five):
    trainer = make_trainer(root, five, "D2NetPlans", fold="all")
    training, validation = trainer.do_split()
    assert len(training) == five.n_train
    assert sorted(training) == sorted(validation)
    one_step(trainer)
    assert trainer.output_folder.endswith("fold_all")


@pytest.mark.parametrize("trainer_class", [D2NetTrainer, ModalityDropout])
def test_without_deep_supervision(root, five, trainer_class):
    trainer = make_trainer(root, five, "D2NetPlans", trainer=trainer_class)
    trainer.enable_deep_supervision = False
    batch = one_step(trainer)
    assert isinstance(batch["target"], torch.Tensor)
    assert not trainer.network.decoder.deep_supervision


def test_modality_dropout_is_nnunets_network_and_loss(root, five):
    trainer = make_trainer(root, five, "D2NetPlans", trainer=ModalityDropout)
    stock = make_trainer(root, five, "D2NetPlans", trainer=nnUNetTrainer)
    one_step(trainer)
    stock.initialize()
    assert type(trainer.network) is type(stock.network)
    assert trainer.network.state_dict().keys() == stock.network.state_dict().keys()
    assert repr(trainer.loss) == repr(stock.loss)


def test_matched_baseline_has_the_plans_network(root, regions_data):
    stock = make_trainer(root, REGIONS_3D, "D2NetPlans", trainer=nnUNetTrainer)
    one_step(stock)
    ours = make_trainer(root, REGIONS_3D, "D2NetPlans")
    ours.initialize()
    for part in ("encoder", "decoder"):
        shapes = [
            {name: value.shape for name, value in getattr(trainer.network, part).state_dict().items()}
            for trainer in (stock, ours)
        ]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("trainer_class", [D2NetTrainer, ModalityDropout])
def test_validation_sees_the_same_subsets_in_every_epoch(root, five, trainer_class):
    trainer = make_trainer(root, five, "D2NetPlans", trainer=trainer_class)
    trainer.num_val_iterations_per_epoch = 4
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[1])
    trainer.network.eval()

    def note(_, inputs):  # D2-Net hides what it is told is absent
        images, *mask = inputs
        seen.append(mask[0] if mask else images.flatten(2).ne(0).any(-1))

    trainer.network.register_forward_pre_hook(note)
    seen, epochs = [], []
    for _ in range(2):
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            for _ in range(trainer.num_val_iterations_per_epoch):
                trainer.validation_step(batch)
        assert all((available == available[0]).all() for available in seen)
        epochs.append([tuple(available[0].tolist()) for available in seen])
        seen.clear()
    assert epochs[0] == epochs[1]
    assert epochs[0][0] == (True,) * 5
    assert len(set(epochs[0])) == 4


def test_paper_settings(root, five):
    trainer = make_trainer(
        root, five, "D2NetPlans", trainer=find_trainer("D2NetTrainerPaper"), fold="all", batch_size=4
    )
    trainer.on_train_start()
    assert next(trainer.dataloader_train)["data"].shape[0] == trainer.batch_size == 2
    assert trainer.num_iterations_per_epoch == math.ceil(five.n_train / 2) == 3 != N_TRAIN_STEPS
    assert trainer.num_epochs == 400
    assert type(trainer.optimizer) is torch.optim.Adam
    assert trainer.optimizer.param_groups[0]["lr"] == 3e-4
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 5e-5
    assert set(trainer.loss_weights.values()) == {1.0}
    assert trainer.p_complete == 0


def test_modality_encoders_have_their_own_momentum(root, five):
    trainer = make_trainer(root, five, "D2NetPlans")
    trainer.initialize()
    main_group, encoder_group = trainer.optimizer.param_groups
    for group in (main_group, encoder_group):  # a checkpoint finds each parameter's state by its place in the group
        names = [name for p in group["params"] for name, other in trainer.network.named_parameters() if other is p]
        assert names == [name for name, _ in trainer.network.named_parameters() if name in set(names)]
    assert all("modality_encoder" in name for name in names)
    assert len(names) == len(list(trainer.network.modality_encoder.parameters()))
    assert len(main_group["params"]) + len(encoder_group["params"]) == len(list(trainer.network.parameters()))
    assert (main_group["momentum"], encoder_group["momentum"]) == (0.99, 0.9)
    trainer.lr_scheduler.step(500)
    assert main_group["lr"] == encoder_group["lr"] < trainer.initial_lr


def test_bfloat16_on_the_cpu_leaves_the_losses_in_float32(root, five, monkeypatch):
    monkeypatch.setenv("D2NET_CPU_BFLOAT16", "1")
    trainer = make_trainer(root, five, "D2NetPlans")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    seen = []
    segmentation_loss = trainer.loss.segmentation_loss
    segmentation_loss.register_forward_pre_hook(lambda _m, inputs: seen.extend(x.dtype for x in inputs[0]))
    trainer.network.encoder.register_forward_hook(lambda _m, _i, skips: seen.append(skips[-1].dtype))
    batch = next(trainer.dataloader_train)
    trainer.train_step_index = 1  # without the diagnostics of an epoch's first step
    assert math.isfinite(trainer.train_step(batch)["loss"])
    assert seen[0] == torch.bfloat16
    assert set(seen[1:]) == {torch.float32}
    assert torch.isfinite(trainer.term_sums).all()


ROWS_OF_TABLE_II = {  # which of the four terms each row has
    "D2NetTrainerNoSFMCNoKD": (),
    "D2NetTrainerOnlySC": ("sc",),
    "D2NetTrainerOnlyFC": ("fc",),
    "D2NetTrainerNoKD": ("sc", "fc"),
    "D2NetTrainerOnlyKDFeature": ("kd_feature",),
    "D2NetTrainerOnlyKDLogit": ("kd_logit",),
    "D2NetTrainerNoSFMC": ("kd_feature", "kd_logit"),
    "D2NetTrainer": ("sc", "fc", "kd_feature", "kd_logit"),
}


def test_every_trainer_is_constructed_by_nnunet(root, five):
    for name in [*variants.__all__, "D2NetTrainer_5epochs", "D2NetTrainerNoKD_1epoch"]:
        trainer_class = find_trainer(name)
        trainer = make_trainer(root, five, "D2NetPlans", trainer=trainer_class)
        assert trainer.num_epochs == (trainer_class.n_epochs or 1000)
        assert f"/{name}__D2NetPlans__3d_fullres/" in trainer.output_folder


@pytest.mark.parametrize("name", ROWS_OF_TABLE_II)
def test_rows_of_table_ii_reach_the_loss(root, five, name):
    trainer = make_trainer(root, five, "D2NetPlans", trainer=find_trainer(name))
    trainer.initialize()
    varied = ("sc", "fc", "kd_feature", "kd_logit")
    assert tuple(term for term in varied if trainer.loss.weights[term] > 0) == ROWS_OF_TABLE_II[name]
    for term in ROWS_OF_TABLE_II[name]:
        assert trainer.loss.weights[term] == D2NetTrainer.loss_weights[term]
    for term in ("aux", "consis", "rec"):
        assert trainer.loss.weights[term] == D2NetTrainer.loss_weights[term] > 0


def test_memory_target_changes_the_patch(root, lowres):
    usual = read_plans(root, lowres, "D2NetPlans")["configurations"]["3d_fullres"]["patch_size"]
    small = read_plans(root, lowres, "D2NetLowresPlans")["configurations"]["3d_fullres"]["patch_size"]
    assert math.prod(small) < math.prod(usual)


def test_low_resolution_trains(root, lowres):
    trainer = make_trainer(root, lowres, "D2NetLowresPlans", "3d_lowres")
    batch = one_step(trainer)
    plans = read_plans(root, lowres, "D2NetLowresPlans")["configurations"]
    assert list(batch["data"].shape[2:]) == plans["3d_lowres"]["patch_size"]
    assert min(plans["3d_lowres"]["spacing"]) > 1


@pytest.mark.parametrize("trainer_class", [D2NetTrainer, ModalityDropout])
def test_a_cascade_is_refused(root, lowres, trainer_class):
    trainer = make_trainer(root, lowres, "D2NetLowresPlans", "3d_cascade_fullres", trainer=trainer_class)
    with pytest.raises(UserError, match=r"cascade.*not a modality.*3d_fullres"):
        trainer.initialize()


def test_pretrained_weights(root, regions_model):
    trainer = make_trainer(root, REGIONS_3D, "nnUNetPlans", fold=1)
    torch.manual_seed(1)
    maybe_load_checkpoint(
        trainer,
        continue_training=False,
        validation_only=False,
        pretrained_weights_file=str(regions_model.fold / "checkpoint_final.pth"),
    )
    pretrained = torch.load(regions_model.fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    for name, value in trainer.network.state_dict().items():
        if ".seg_layers." not in name:
            assert torch.equal(value, pretrained["network_weights"][name]), name
    assert trainer.current_epoch == 0


def test_ensemble_of_two_predictions(regions_model, rival, tmp_path):
    for model in (regions_model, rival):
        words = model.predict_words(model.raw / "imagesTs", tmp_path / model.trainer)
        assert d2net("predict", *words, "--drop", "T1") == 0
    folders = [tmp_path / model.trainer for model in (regions_model, rival)]
    nnunet(entry_point_ensemble_folders, "-i", *folders, "-o", tmp_path / "both", "-np", 1, "--save_npz")
    mean, *parts = (np.load(path / "case_Ts0.npz")["probabilities"] for path in (tmp_path / "both", *folders))
    np.testing.assert_allclose(mean, np.mean(parts, 0), atol=1e-3)
    assert not np.array_equal(*parts)
    assert (tmp_path / "both" / "case_Ts1.nii.gz").is_file()


def test_find_best_configuration(regions_model, rival):
    words = [REGIONS_3D.dataset_id, "-p", "nnUNetPlans", "-c", "3d_fullres", "-f", 0, "-np", 1]
    nnunet(find_best_configuration_entry_point, *words, "-tr", regions_model.trainer, rival.trainer)
    found = json.loads((regions_model.folder.parent / "inference_information.json").read_text(encoding="utf-8"))
    assert {name.split("___")[0] for name in found["all_results"]} == {
        regions_model.folder.name,
        rival.folder.name,
        "ensemble",
    }
    assert all(0 <= dice <= 1 for dice in found["all_results"].values())


def test_a_model_travels_as_zip(regions_model, tmp_path, monkeypatch):
    archive, output = tmp_path / "model.zip", tmp_path / "prediction"
    words = ["-d", REGIONS_3D.dataset_id, "-o", archive, "-c", "3d_fullres", "-f", 0]
    nnunet(export_pretrained_model_entry, *words, "-tr", regions_model.trainer, "-p", regions_model.plans)
    images = regions_model.raw / "imagesTs"
    nnunet(predict_entry_point, *regions_model.predict_words(images, output / "here"))
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    nnunet(install_from_zip_entry_point, archive)
    nnunet(predict_entry_point, *regions_model.predict_words(images, output / "there"))
    for case in ("case_Ts0.nii.gz", "case_Ts1.nii.gz"):
        here, there = (sitk.GetArrayFromImage(sitk.ReadImage(str(output / o / case))) for o in ("here", "there"))
        assert np.array_equal(here, there)
