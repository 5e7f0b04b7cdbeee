"""What the trainers promise of a step: what is drawn, shown, reconstructed and weighed, and which options arrive."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS, LossOptions
from nnunetv2_d2net.method.modalities import subset_rotation
from nnunetv2_d2net.method.network.d2net import D2NetOptions
from nnunetv2_d2net.method.network.outputs import D2NetOutputs
from nnunetv2_d2net.plugin.training import dropping
from nnunetv2_d2net.plugin.training.adamw import D2NetTrainerAdamW, nnUNetTrainerModalityDropoutAdamW
from nnunetv2_d2net.plugin.training.conditioned import nnUNetTrainerModalityDropoutConditioned
from nnunetv2_d2net.plugin.training.dropping import (
    ModalityDroppingTrainer,
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutModulated,
)
from nnunetv2_d2net.plugin.training.imputing import nnUNetTrainerModalityDropoutImputed
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer

COHORT = {"a": [True, True, False], "b": [True, True, True]}
PRESENT = torch.tensor([COHORT["a"], COHORT["b"]])
OURS = [
    D2NetTrainer,
    D2NetTrainerAdamW,
    nnUNetTrainerModalityDropout,
    nnUNetTrainerModalityDropoutAdamW,
    nnUNetTrainerModalityDropoutModulated,
    nnUNetTrainerModalityDropoutImputed,
    nnUNetTrainerModalityDropoutConditioned,
]


@pytest.fixture
def ready(trainer_of):
    """A trainer whose first epoch has begun, of a cohort in which case a lacks a modality."""

    def ready(kind=D2NetTrainer, **settings):
        trainer = trainer_of(type(kind.__name__, (kind,), settings), n_stages=3)
        trainer.said = []
        trainer.print_to_log_file = lambda *words, **_: trainer.said.append(words)
        trainer.initialize()
        trainer.cohort = COHORT
        trainer.on_train_epoch_start()
        return trainer

    return ready


def noted(module):
    """What a module is called with from now on."""
    calls = []
    module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls


def draw(monkeypatch, *rows):
    """Let these masks be drawn; note what they are drawn from."""
    asked = []
    monkeypatch.setattr(dropping, "draw_available", lambda *given: asked.append(given) or torch.tensor(rows))
    return asked


# --- what is drawn ---


@pytest.mark.parametrize("kind", OURS)
def test_what_the_cases_have_is_drawn_from_with_the_trainers_probability(ready, make_batch, monkeypatch, kind):
    trainer = ready(kind, p_complete=0.3)
    asked = draw(monkeypatch, [True, False, False], [False, True, True])
    trainer.train_step(make_batch())
    ((present, p_complete, generator),) = asked
    assert torch.equal(present, PRESENT)
    assert p_complete == 0.3
    assert generator is trainer.subset_generator


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("p_complete", [0.0, 1.0])
def test_what_is_shown_is_some_of_what_is_there(ready, make_batch, kind, p_complete):
    trainer = ready(kind, p_complete=p_complete)
    shown = noted(trainer.network)
    for i in range(8):
        trainer.train_step_index = 1  # without the diagnostics of an epoch's first step
        trainer.train_step(make_batch(i))
    masks = torch.stack([x[1] if len(x) > 1 else x[0].flatten(2).ne(0).any(-1) for x in shown])
    assert masks.any(-1).all()
    assert not (masks & ~PRESENT).any()
    assert bool((masks == PRESENT).all()) == (p_complete == 1)


def test_order_of_the_keys_decides_which_case_lacks_what(ready, make_batch):
    trainer = ready()
    assert torch.equal(trainer.present_modalities(make_batch(names=("b", "a"))), PRESENT.flip(0))
    trainer.cohort = {}  # stock nnU-Net has preprocessed: everything is there
    assert trainer.present_modalities(make_batch()).tolist() == [[True] * 3] * 2
    trainer.cohort = {"a": COHORT["a"]}
    with pytest.raises(UserError, match=r"available_modalities\.json does not know b: preprocess again"):
        trainer.present_modalities(make_batch())


def test_processes_and_runs_draw_subsets_of_their_own(trainer_of):
    def first_draws(seed, rank):
        np.random.seed(seed)
        kind = type("OfRank", (D2NetTrainer,), {"local_rank": property(lambda _: rank, lambda *_: None)})
        return torch.rand(8, generator=trainer_of(kind).subset_generator).tolist()

    assert first_draws(0, 0) == first_draws(0, 0)
    assert len({tuple(first_draws(seed, rank)) for seed in (0, 1) for rank in (0, 1)}) == 4


# --- what is shown, and what is reconstructed ---


def test_the_loss_gets_the_images_before_dropping_and_what_is_present(ready, make_batch, monkeypatch):
    trainer = ready()
    draw(monkeypatch, [True, False, False], [False, True, True])
    trainer.train_step_index = 1
    of_network, of_loss, batch = noted(trainer.network), noted(trainer.loss), make_batch()
    trainer.train_step(batch)
    ((images, available),), ((outputs, target, whole, present),) = of_network, of_loss
    assert torch.equal(available, torch.tensor([[True, False, False], [False, True, True]]))
    assert torch.equal(images, batch["data"])
    assert isinstance(outputs, D2NetOutputs)
    assert all(torch.equal(x, y) for x, y in zip(target, batch["target"], strict=True))
    assert torch.equal(whole, batch["data"])
    assert whole[0, 1].any()  # hidden, and to be reconstructed
    assert torch.equal(present, PRESENT)


def test_hidden_images_are_reconstructed_and_absent_ones_are_not(ready, make_batch, monkeypatch):
    """The same in numbers: the image that is hidden changes the loss, the one that is absent does not."""
    draw(monkeypatch, [True, False, False], [False, True, True])
    losses = []
    for changed in (None, (0, 1), (1, 0), (0, 2)):
        torch.manual_seed(0)
        trainer = ready(loss_ramps={})
        trainer.train_step_index = 1
        batch = make_batch()
        if changed is not None:
            batch["data"][changed] *= 3
        losses.append(float(trainer.train_step(batch)["loss"]))
    assert losses[0] != losses[1]
    assert losses[0] != losses[2]
    assert losses[0] == losses[3]


def test_the_rival_sees_zeros_where_something_is_hidden(ready, make_batch, monkeypatch):
    trainer = ready(nnUNetTrainerModalityDropout)
    draw(monkeypatch, [True, False, False], [False, True, True])
    of_network, of_loss, batch = noted(trainer.network), noted(trainer.loss), make_batch()
    trainer.train_step(batch)
    ((images,),), ((outputs, target),) = of_network, of_loss
    shown = torch.tensor([[True, False, False], [False, True, True]])
    assert torch.equal(images[shown], batch["data"][shown])
    assert not images[~shown].any()
    assert [x.shape[1] for x in outputs] == [3, 3]
    assert all(torch.equal(x, y) for x, y in zip(target, batch["target"], strict=True))


# --- weights and ramps ---


def test_ramps_grow_linearly_and_other_weights_stay(ready):
    weights = {"sc": 0.5, "rec": 0.4, "aux": 0.3}
    trainer = ready(loss_weights=weights, loss_ramps={"rec": 0.1, "aux": 0.5, "sc": 0.0})
    trainer.num_epochs, trainer.num_iterations_per_epoch = 10, 20
    found = []
    for trainer.current_epoch, trainer.train_step_index in [(0, 0), (0, 10), (1, 0), (3, 5), (9, 19)]:
        found.append(trainer.current_weights())
    assert [w["sc"] for w in found] == [0.5] * 5
    assert [w["rec"] for w in found] == pytest.approx([0, 0.2, 0.4, 0.4, 0.4])
    assert [w["aux"] for w in found] == pytest.approx([0, 0.3 * 0.1, 0.3 * 0.2, 0.3 * 0.65, 0.3])


def test_the_weights_of_the_step_are_the_losses(ready, make_batch):
    trainer = ready()
    trainer.num_epochs, trainer.num_iterations_per_epoch = 5, 4
    seen = []
    trainer.loss.register_forward_pre_hook(lambda *_: seen.append(dict(trainer.loss.weights)))
    for i in range(3):
        assert trainer.train_step_index == i
        trainer.train_step(make_batch(i))
    assert [w["rec"] for w in seen] == pytest.approx([0, 0.05, 0.1])
    assert seen[0] == {"seg": 1.0, **D2NetTrainer.loss_weights, "rec": 0.0}
    trainer.on_train_epoch_start()
    assert trainer.train_step_index == 0


def test_weights_of_the_trainers():
    """They are choices, which a test can only repeat; the paper's are 1, at all times, and it drops in every step."""
    paper, ours = find_trainer("D2NetTrainerPaper"), D2NetTrainer
    assert paper.loss_weights == dict.fromkeys(LOSS_TERMS[1:], 1.0)
    assert (paper.loss_ramps, paper.p_complete, paper.n_epochs) == ({}, 0.0, 400)
    assert (ours.loss_ramps, ours.p_complete, ours.n_epochs) == ({"rec": 0.1}, 0.5, None)
    assert ours.loss_weights == {
        **dict.fromkeys(("sc", "fc", "rec"), 0.1),
        "kd_feature": 0.05,
        "kd_logit": 0.2,
        "aux": 0.5,
        "consis": 0.5,
    }
    assert (ours.network_options, ours.loss_options) == (D2NetOptions(), LossOptions())


def test_means_of_the_terms_are_logged(ready, make_batch):
    trainer = ready()
    terms = []
    for i in range(3):
        outputs = trainer.train_step(make_batch(i))
        terms.append(trainer.loss.last_terms)
    trainer.on_train_epoch_end([outputs])
    logged = [trainer.logger.get_value(f"loss/{name}", step=-1) for name in LOSS_TERMS]
    assert logged == pytest.approx(torch.stack(terms).mean(0).tolist())
    words = {name: round(value, 4) for name, value in zip(LOSS_TERMS, logged, strict=True)}
    assert trainer.said[-1] == ("loss", words)
    trainer.on_train_epoch_start()
    assert not trainer.term_sums.any()
    outputs = trainer.train_step(make_batch())
    trainer.on_train_epoch_end([outputs])
    assert trainer.logger.get_value("loss/seg", step=-1) == pytest.approx(float(trainer.loss.last_terms[0]))


def test_means_of_several_processes_are_those_of_all(ready, monkeypatch):
    """As if another process had three times the terms of this one."""
    trainer = ready()
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_epoch_end", lambda *_: None)
    for name, instead in (("all_reduce", lambda tensor: tensor.mul_(4)), ("get_world_size", lambda: 2)):
        monkeypatch.setattr(torch.distributed, name, instead)
    trainer.is_ddp, trainer.train_step_index = True, 5
    trainer.term_sums += 10
    trainer.on_train_epoch_end([])
    assert trainer.said[-1] == ("loss", dict.fromkeys(LOSS_TERMS, 4.0))


# --- options ---


def test_options_of_the_losses_arrive(ready):
    options = LossOptions(
        sampling="all_pairs", temperature=0.5, drop_dc=True, kd_reduction="sum", n_positives=2, negative_radius=4
    )
    assert all(one != other for one, other in zip(options, LossOptions(), strict=True))
    loss = ready(loss_options=options, loss_weights={"sc": 0.25}).loss
    assert loss.options == options
    assert loss.weights == dict.fromkeys(LOSS_TERMS, 1.0) | {"sc": 0.25}
    assert (loss.regions, loss.ignore_label) == (False, None)
    assert loss.level_weights == (1.0, 0.0)
    assert loss.segmentation_loss.weight_factors == (1.0, 0.0)
    assert set(map(type, loss.level_weights)) == {float}  # torch.compile breaks its graph at numpy's numbers


def test_without_deep_supervision_there_is_one_level(trainer_of):
    trainer = trainer_of(D2NetTrainer, n_stages=3)
    trainer.enable_deep_supervision = False
    trainer.initialize()
    assert trainer.loss.level_weights == (1.0,)


@pytest.mark.parametrize(
    ("labels", "regions", "ignore_label"),
    [
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, False, 3),
        ({"background": 0, "whole": [1, 2], "core": 2}, True, None),
    ],
)
def test_kind_of_the_labels_arrives(trainer_of, labels, regions, ignore_label):
    names = {str(i): name for i, name in enumerate("abc")}
    order = {"regions_class_order": [1, 2]} if regions else {}
    dataset_json = {"channel_names": names, "labels": labels, "file_ending": ".nii.gz", **order}
    trainer = trainer_of(D2NetTrainer, n_stages=3, dataset_json=dataset_json)
    trainer.initialize()
    assert (trainer.loss.regions, trainer.loss.ignore_label) == (regions, ignore_label)


def test_options_of_the_network_arrive(ready, make_batch):
    options = D2NetOptions(code_length=5, teacher_level=0, reconstruction_level=0, modulate_skips=True)
    trainer = ready(network_options=options)
    outputs = trainer.network(make_batch()["data"], PRESENT)
    assert outputs.modality_codes.shape[-1] == 5
    assert outputs.first_teacher_level == 0
    assert outputs.reconstructions.shape == (2, 3, 8, 8, 8)
    assert trainer.network.skip_modulation is not None
    assert trainer.network.n_modalities == 3


# --- optimizer ---


def test_the_modality_encoder_is_a_group_with_its_own_momentum(ready):
    trainer = ready()
    (others, own), network = trainer.optimizer.param_groups, trainer.network
    assert (others["momentum"], own["momentum"]) == (0.99, 0.9)
    for group in (others, own):
        assert (group["lr"], group["weight_decay"], group["nesterov"]) == (1e-2, 3e-5, True)
    assert list(map(id, own["params"])) == list(map(id, network.modality_encoder.parameters()))
    encoder = set(map(id, own["params"]))
    assert list(map(id, others["params"])) == [id(p) for p in network.parameters() if id(p) not in encoder]
    assert type(trainer.optimizer) is torch.optim.SGD
    trainer.lr_scheduler.step(trainer.num_epochs // 2)
    assert own["lr"] == others["lr"] == pytest.approx(1e-2 * 0.5**0.9)


# --- validation ---


@pytest.mark.parametrize("kind", OURS)
def test_validation_goes_through_the_rotation_of_what_is_there(ready, make_batch, kind):
    trainer = ready(kind)
    trainer.num_val_iterations_per_epoch = 4
    trainer.cohort = {"a": [True, False, False], "b": [True, True, True]}
    present = torch.tensor(list(trainer.cohort.values()))
    shown = noted(trainer.network)
    rotation = subset_rotation(3, 4)
    assert rotation[:, 0].tolist() != [True] * 4  # case a has none of some subset, and then shows all it has
    expected = [torch.stack([p & row if (p & row).any() else p for p in present]) for row in rotation]
    for _ in range(2):
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            for i in range(5):
                trainer.validation_step(make_batch(i))
    calls = [x[1] if len(x) > 1 else x[0].flatten(2).ne(0).any(-1) for x in shown]
    for half in (calls[:5], calls[5:]):
        assert all(torch.equal(a, b) for a, b in zip(half, [*expected, expected[0]], strict=True))


def test_validation_shows_the_images_and_counts_at_full_resolution(ready, make_batch):
    trainer = ready()
    trainer.on_validation_epoch_start()
    of_loss, batch = noted(trainer.loss), make_batch()
    with torch.no_grad():
        result = trainer.validation_step(batch)
        logits = trainer.network(batch["data"], PRESENT)
    assert float(result["loss"]) == pytest.approx(float(trainer.loss(logits, batch["target"])))
    predicted, target = logits[0].argmax(1), batch["target"][0][:, 0]
    for label in (1, 2):
        assert result["tp_hard"][label - 1] == ((predicted == label) & (target == label)).sum()
        assert result["fp_hard"][label - 1] == ((predicted == label) & (target != label)).sum()
        assert result["fn_hard"][label - 1] == ((predicted != label) & (target == label)).sum()
    assert torch.equal(of_loss[0][2], batch["data"])
    assert torch.equal(of_loss[0][3], PRESENT)


@pytest.mark.parametrize("kind", OURS)
def test_validation_without_deep_supervision_counts_alike(ready, make_batch, kind):
    trainer, batch, results = ready(kind), make_batch(), []
    for enabled in (True, False):
        trainer.enable_deep_supervision = trainer.network.decoder.deep_supervision = enabled
        trainer.loss_of = lambda *_: torch.zeros(())
        trainer.network.eval()
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            results.append(trainer.validation_step(batch if enabled else batch | {"target": batch["target"][0]}))
    for name in ("tp_hard", "fp_hard", "fn_hard"):
        assert results[0][name].tolist() == results[1][name].tolist()
        assert results[0][name].all()


# --- diagnostics ---


def test_the_first_step_of_an_epoch_measures_what_each_term_does(ready, make_batch):
    trainer = ready(loss_weights={name: 0.0 for name in LOSS_TERMS if name not in ("seg", "aux")})
    calls = noted(trainer.network.encoder)
    trainer.train_step(make_batch())
    assert len(calls) == 2
    shares = {name: trainer.logger.get_value(f"gradient_share/{name}", step=-1) for name in LOSS_TERMS}
    assert sum(shares.values()) == pytest.approx(1)
    assert [name for name, share in shares.items() if share > 0] == ["seg", "aux"]
    trainer.train_step(make_batch())
    assert len(calls) == 3


@pytest.mark.parametrize("scaled", [False, True])
def test_shares_are_of_the_networks_weighted_terms_on_all_that_is_there(ready, make_batch, monkeypatch, scaled):
    trainer, asked = ready(), []
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if scaled else None
    monkeypatch.setattr(
        "nnunetv2_d2net.plugin.training.trainer.gradient_shares",
        lambda *given: asked.append(given) or dict.fromkeys(LOSS_TERMS, 0.125),
    )
    shown, batch = noted(trainer.network), make_batch()
    trainer.train_step(batch)
    ((weighted, encoder, scale),) = asked
    assert encoder is trainer.network.encoder
    assert scale == (8.0 if scaled else 1.0)
    assert torch.equal(shown[0][0], batch["data"])
    assert torch.equal(shown[0][1], PRESENT)
    assert list(weighted) == list(LOSS_TERMS)
    assert weighted["rec"] == 0
    assert weighted["kd_logit"] > 0
    assert ("gradient_share", dict.fromkeys(LOSS_TERMS, 0.125)) in trainer.said


def test_a_lack_of_memory_costs_the_measurement_alone(ready, make_batch, monkeypatch):
    trainer = ready()

    def refuse(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("nnunetv2_d2net.plugin.training.trainer.gradient_shares", refuse)
    assert np.isfinite(trainer.train_step(make_batch())["loss"])
    assert all(math.isnan(trainer.logger.get_value(f"gradient_share/{name}", step=-1)) for name in LOSS_TERMS)


def test_the_first_validation_step_measures_how_much_bottleneck_and_codes_matter(ready, make_batch):
    trainer = ready()
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        for i in range(2):
            trainer.validation_step(make_batch(i))
    for name in ("logit_change/bottleneck_zeroed", "logit_change/codes_swapped", "codes/within_modality"):
        assert trainer.logger.get_value(name, step=None)[-1] > 0
        assert len(trainer.logger.get_value(name, step=None)) == 1


# --- precision ---


def test_air_is_looked_for_where_gradients_are_scaled(ready, make_batch):
    trainer = ready()
    batch = make_batch()
    batch["data"][0] = 0
    assert not trainer.step_on(batch, PRESENT, PRESENT).holds_air
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    step = trainer.step_on(batch, PRESENT, PRESENT)
    assert step.holds_air
    assert not trainer.step_on(make_batch(), PRESENT, PRESENT).holds_air
    with torch.no_grad():
        assert not trainer.step_on(batch, PRESENT, PRESENT).holds_air
    assert trainer.network_outputs(step).student_logits[0].dtype == torch.bfloat16
    assert trainer.network_outputs(step._replace(holds_air=False)).student_logits[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("said", "dtype"), [("1", torch.bfloat16), ("True", torch.bfloat16), ("t", torch.bfloat16), ("0", torch.float32)]
)
def test_bfloat16_on_a_cpu_where_that_is_asked_for(ready, make_batch, monkeypatch, said, dtype):
    trainer = ready()
    monkeypatch.setenv("D2NET_CPU_BFLOAT16", said)
    step = trainer.step_on(make_batch(), PRESENT, PRESENT)
    assert trainer.network_outputs(step).student_logits[0].dtype == dtype


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_are_clipped_at_12(ready, make_batch, scaled):
    trainer = ready()
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if scaled else None
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.loss.forward = lambda *_: 1e6 * sum(p.sum() for p in trainer.network.parameters())
    trainer.loss.last_terms = torch.zeros(len(LOSS_TERMS))
    trainer.train_step_index = 1
    trainer.train_step(make_batch())
    gradients = torch.cat([p.grad.flatten() for p in trainer.network.parameters()])
    assert gradients.norm().item() == pytest.approx(12, rel=1e-4)
    moved = [not torch.equal(p, old) for p, old in zip(trainer.network.parameters(), before, strict=True)]
    assert all(moved)


def test_what_a_step_does_not_reach_has_no_gradient(ready, make_batch):
    """Else its weights would decay, and go on by momentum."""
    trainer = ready(nnUNetTrainerModalityDropout)
    first, *others = trainer.network.parameters()
    for reached in ([first, *others], [first]):
        trainer.loss_of = lambda *_, reached=reached: sum(p.sum() for p in reached)
        trainer.train_step(make_batch())
    assert first.grad is not None
    assert all(p.grad is None for p in others)


def test_a_class_mixed_in_before_ours_is_named(ready):
    trainer = ready()
    trainer.network = nn.Identity()
    with pytest.raises(UserError, match="build_network_architecture is "):
        trainer.bare_network  # noqa: B018


# --- complete input first ---


@pytest.mark.parametrize("name", ["D2NetTrainerCompleteFirst", "nnUNetTrainerModalityDropoutCompleteFirst"])
def test_complete_input_comes_first_and_the_learning_rate_rises_again(ready, name):
    trainer = ready(find_trainer(f"{name}_10epochs"), p_complete=0.0)
    masks, rates = {}, {}
    for epoch in (0, 4, 5, 9):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        rates[epoch] = trainer.optimizer.param_groups[0]["lr"]
        masks[epoch] = torch.stack([trainer.draw(PRESENT) for _ in range(50)])
    for epoch in (0, 4):
        assert (masks[epoch] == PRESENT).all()
    for epoch in (5, 9):
        assert not (masks[epoch] == PRESENT).all()
    assert rates[0] == rates[5] == trainer.initial_lr
    assert rates[4] == rates[9] < rates[5]


def test_gate_is_logged_where_there_is_one(ready, make_batch):
    for options, names in ((D2NetOptions(), set()), (D2NetOptions(gated_bottleneck=True), {"gate_shut", "opening"})):
        trainer = ready(D2NetTrainer, network_options=options)
        trainer.network.eval()
        if names:
            torch.nn.init.ones_(trainer.bare_network.bottleneck_gate.gate)
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            trainer.validation_step(make_batch())
        logged = trainer.logger.local_logger.my_fantastic_logging
        found = {
            key.split("/")[1]: values[-1]
            for key, values in logged.items()
            if key.split("/")[-1] in {"gate_shut", "opening"}
        }
        assert found.keys() == names
        if names:
            assert found["opening"] == 1
            assert found["gate_shut"] > 1e-3
