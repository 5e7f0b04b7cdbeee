"""The trainer of companions: from what it starts, what it measures, and how it chooses."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.method.modalities import modality_subsets, subset_codes
from nnunetv2_d2net.plugin.training import companion as module
from nnunetv2_d2net.plugin.training import dropping
from nnunetv2_d2net.plugin.training.companion import CHOICE, read_choice, target_of
from nnunetv2_d2net.plugin.training.dropping import ModalityDroppingTrainer
from nnunetv2_d2net.plugin.training.pretrained import starting_from
from nnunetv2_d2net.plugin.training.resuming import ResumingTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer

COMPANIONS = ("D2NetTrainerCompanion", "nnUNetTrainerModalityDropoutCompanion")
SUBSETS = modality_subsets(3)
COMPLETE = -1


@pytest.fixture
def companion_of(trainer_of):
    """A companion's trainer, initialized, that keeps its words in ``said``."""

    def companion_of(name=COMPANIONS[1], **settings):
        kind = find_trainer(name)
        trainer = trainer_of(type(kind.__name__, (kind,), settings))
        trainer.said = []
        trainer.print_to_log_file = lambda *words, **_: trainer.said.append(words)
        trainer.initialize()
        trainer.cohort = {}
        return trainer

    return companion_of


def save_stock(trainer, folder=None, made_for=(), axes=None, **changes):
    """Write a checkpoint of random weights where a stock nnU-Net's would be.

    Args:
        made_for: What its ``init_args`` hold beside the configuration.
        axes: Along which it may be mirrored.
        changes: To its weights.
    """
    folder = folder or Path(trainer.output_folder_base).parent / "nnUNetTrainer__TinyPlans__tiny" / "fold_0"
    folder.mkdir(parents=True)
    shared = (trainer.plans_manager, trainer.configuration_manager, 3, 3)
    network = nnUNetTrainer.build_network_architecture(*shared, enable_deep_supervision=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    weights = network.state_dict() | changes
    init_args = {"configuration": "tiny", **dict(made_for)}
    content = {"network_weights": weights, "trainer_name": "nnUNetTrainer", "init_args": init_args}
    torch.save(content | {"inference_allowed_mirroring_axes": axes}, folder / "checkpoint_final.pth")
    return folder / "checkpoint_final.pth", weights


def holds(network, weights):
    own = network.state_dict()
    return all(torch.equal(own[name], weight) for name, weight in weights.items())


# --- what it is, and from what it starts ---


@pytest.mark.parametrize("name", COMPANIONS)
def test_the_student_has_deep_supervision_as_asked_for_and_the_stock_network_has_none(companion_of, name):
    trainer = companion_of(name)
    shared = (trainer.plans_manager, trainer.configuration_manager, 3, 5)
    for asked, expected in (((), True), ((True,), True), ((False,), False)):
        network = type(trainer).build_network_architecture(*shared, *asked)
        assert network.decoder.deep_supervision is expected
        assert network.stock.decoder.deep_supervision is False
    assert len(network.by_stock) == 2**3
    images = torch.zeros(2, 3, 8, 8, 8)
    for available in (torch.ones(2, 3, dtype=torch.bool), torch.tensor([[True, False, True]] * 2)):
        assert network.eval()(images, available).shape == (2, 5, 8, 8, 8)


@pytest.mark.parametrize("name", COMPANIONS)
def test_it_starts_from_the_stock_model_of_the_same_plans_and_fold(companion_of, monkeypatch, name):
    trainer = companion_of(name)
    path, weights = save_stock(trainer)
    went_on = []
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", lambda *of: went_on.append(of))
    trainer.on_train_start()
    assert holds(trainer.companion.stock, weights)
    assert holds(trainer.companion.student, weights)
    said = (f"start: {path} (nnUNetTrainer): encoder (4 of 4 layers), decoder (4 of 4 layers) taken",)
    assert said in trainer.said
    assert went_on == [(trainer,)]


def test_an_unprepared_trainer_is_initialized_first(trainer_of, monkeypatch):
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", lambda _: None)
    trainer = trainer_of(find_trainer(COMPANIONS[1]))
    _, weights = save_stock(trainer)
    trainer.on_train_start()
    assert holds(trainer.companion.stock, weights)


def test_training_that_goes_on_does_not_start_again_nor_one_for_which_another_start_is_named(
    companion_of, monkeypatch, tmp_path
):
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", lambda _: None)
    trainer = companion_of()
    path, weights = save_stock(trainer, tmp_path / "elsewhere")
    trainer.current_epoch = 1
    trainer.on_train_start()
    assert not holds(trainer.companion.stock, weights)
    with starting_from(path):
        trainer = companion_of()
        trainer.on_train_start()
    assert holds(trainer.companion.stock, weights)


@pytest.mark.parametrize("axes", [None, (0, 2), (0, 1, 2)])
def test_it_mirrors_as_the_stock_model_does_in_training_prediction_and_when_it_goes_on(companion_of, monkeypatch, axes):
    def start(trainer):
        *_, trained = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert trained == trainer.inference_allowed_mirroring_axes == axes

    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", start)
    trainer = companion_of()
    save_stock(trainer, axes=axes)
    trainer.on_train_start()
    told = f"mirroring: along the axes {axes}, as the stock model, in the place of (0, 1, 2)"
    assert ((told,) in trainer.said) == (axes != (0, 1, 2))
    resumed = companion_of()
    resumed.current_epoch, resumed.inference_allowed_mirroring_axes = 1, axes  # as nnU-Net reads its checkpoint
    resumed.on_train_start()


@pytest.mark.parametrize("fold", [1, "all"])
def test_a_copied_checkpoint_of_another_fold_is_refused(companion_of, tmp_path, fold):
    trainer = companion_of()
    path, _ = save_stock(trainer, tmp_path / "elsewhere", {"fold": fold})
    with starting_from(path), pytest.raises(UserError, match="has seen validation cases of fold 0: start from fold 0"):
        companion_of()


def test_without_a_stock_model_it_says_which_one_it_needs(companion_of):
    trainer = companion_of()
    expected = Path(trainer.output_folder_base).parent / "nnUNetTrainer__TinyPlans__tiny/fold_0/checkpoint_final.pth"
    with pytest.raises(UserError, match=f"^{expected} does not exist, from which nnUNetTrainerModalityDropoutComp"):
        trainer.on_train_start()


def test_another_network_is_refused(companion_of):
    trainer = companion_of()
    save_stock(trainer, **{"encoder.stages.0.0.convs.0.conv.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"\(nnUNetTrainer\) is not the network of these plans: start from a stock"):
        trainer.on_train_start()


def named(*names):
    return {"dataset_json": {"channel_names": dict(enumerate(names))}}


def test_a_stock_model_whose_modalities_are_in_another_order_sees_each_in_its_place(companion_of):
    trainer = companion_of()
    path, weights = save_stock(trainer, made_for=named("T1ce", "FLAIR", "T1"))
    trainer.start_from(path)
    shared = (trainer.plans_manager, trainer.configuration_manager, 3, 3)
    theirs = nnUNetTrainer.build_network_architecture(*shared, enable_deep_supervision=False)
    theirs.load_state_dict(weights)
    images = torch.randn(1, 3, 8, 8, 8)
    torch.testing.assert_close(trainer.companion.eval()(images), theirs.eval()(images[:, [2, 0, 1]]))
    (line,) = (words[0] for words in trainer.said if "filters are taken by name" in words[0])
    assert "that model knows T1ce, FLAIR, T1, in this order" in line


@pytest.mark.parametrize("names", [("FLAIR", "T1", "T2"), ("FLAIR", "T1")])
def test_a_stock_model_of_other_modalities_is_refused(companion_of, names):
    trainer = companion_of()
    path, weights = save_stock(trainer, made_for=named(*names))
    with pytest.raises(UserError, match=f"^{path} is a model of {', '.join(names)}, this data set has FLAIR, T1, T1ce"):
        trainer.start_from(path)
    assert not holds(trainer.companion.stock, weights)


@pytest.mark.parametrize(
    ("key", "value", "is_same"),
    [
        ("batch_size", 9, True),
        ("spacing", [2.0, 1.0, 1.0], False),
        ("patch_size", [16, 8, 8], False),
        ("normalization_schemes", ["NoNormalization"] * 3, False),
        ("resampling_fn_probabilities_kwargs", {"order": 0}, False),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_a_stock_model_of_other_plans_of_that_name_is_refused(companion_of, key, value, is_same, beside):
    """Of the plans in the checkpoint, or where they are not there, of those in the model's folder."""
    trainer = companion_of()
    plans = json.loads(json.dumps(trainer.plans_manager.plans))
    plans["configurations"]["tiny"][key] = value
    path, weights = save_stock(trainer, made_for={} if beside else {"plans": plans})
    of_folder = plans if beside else trainer.plans_manager.plans
    (path.parents[1] / "plans.json").write_text(json.dumps(of_folder), encoding="utf-8")
    if is_same:
        trainer.start_from(path)
        assert holds(trainer.companion.stock, weights)
        return
    with pytest.raises(UserError, match=rf"^{path} was trained by other plans than the TinyPlans of now \({key}\): "):
        trainer.start_from(path)


def test_images_that_lie_otherwise_than_the_stock_models_are_told(companion_of, monkeypatch):
    trainer = companion_of()
    path, _ = save_stock(trainer)
    (path.parents[1] / "plans.json").write_text(json.dumps({ORIENTATION: "RAS"}), encoding="utf-8")
    monkeypatch.setattr(dropping, "orientations_of", lambda _: Counter({"LPS": 3}))
    plans = dict(trainer.plans_manager.plans)
    with starting_from(path):
        trainer._note_orientation()
    ((line,),) = trainer.said
    assert line.startswith("pretrained weights: WARNING: that model's training data lie RAS, these LPS")
    assert trainer.plans_manager.plans == plans


def test_a_stock_model_that_may_have_trained_on_the_cases_of_the_choice_is_told(companion_of, monkeypatch):
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_start", lambda _: None)
    trainer = companion_of()
    trainer.fold = 0
    splits = Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json"
    splits.parent.mkdir(parents=True, exist_ok=True)
    splits.write_text(json.dumps([{"train": ["c"], "val": ["a", "b"]}]), encoding="utf-8")
    path, _ = save_stock(trainer)
    summary = path.parent / "validation" / "summary.json"
    summary.parent.mkdir()
    told = []
    for validated in ("abc", "bc"):
        rows = [{"prediction_file": f"/elsewhere/{case}.nii.gz"} for case in validated]
        summary.write_text(json.dumps({"metric_per_case": rows}), encoding="utf-8")
        trainer.said.clear()
        trainer.on_train_start()
        told.append([line for (line,) in trainer.said if "WARNING" in line])
    assert told[0] == []
    assert told[1][0].startswith(f"start: WARNING: {path} was validated on other cases than fold 0 has now")
    assert "may have trained on a: the choice" in told[1][0]
    trainer.fold = "all"
    trainer.said.clear()
    with starting_from(path):
        trainer.on_train_start()
    assert not any("WARNING" in line for (line,) in trainer.said)


def test_a_class_mixed_in_before_ours_is_named(companion_of):
    class Silencing:
        @classmethod
        def build_network_architecture(cls, *_):
            return nn.Identity()

    trainer = companion_of()
    trainer.__class__ = type("Mixed", (Silencing, type(trainer)), {})
    trainer.network = nn.Identity()
    with pytest.raises(UserError, match=r"^Mixed: build_network_architecture is Silencing's, which leaves missing mod"):
        _ = trainer.companion


def test_pseudo_dice_is_the_students(companion_of, monkeypatch):
    trainer = companion_of()
    started, ended = [], []
    note = [lambda of: started.append(of.companion.student_only), lambda of, outputs: ended.append(outputs)]
    for name, noting in zip(("on_validation_epoch_start", "on_validation_epoch_end"), note, strict=True):
        monkeypatch.setattr(ModalityDroppingTrainer, name, noting)
    trainer.on_validation_epoch_start()
    assert trainer.companion.student_only
    trainer.on_validation_epoch_end(["outputs"])
    assert not trainer.companion.student_only
    assert (started, ended) == ([False], [["outputs"]])


# --- what it measures ---

LABELS = torch.zeros(4, 1, 16, 8, 8, dtype=torch.int16)
LABELS[0, :, :8], LABELS[0, :, 12:] = 1, 2  # 512 and 256 of 1024 voxels
LABELS[1, :, 0, 0, 0] = 2
LABELS[2] = -1
LABELS[3] = LABELS[0]
CASES = ["a", "b", "c", "d"]
DICE = {
    "stock": [(2 * 384 / (2 * 384 + 384 + 128) + 0) / 2, (0 + 0) / 2, (0 + 1) / 2],  # it finds label 1
    "student": [(0 + 2 * 128 / (2 * 128 + 640 + 128)) / 2, (1 + 2 / (2 + 767)) / 2, (1 + 0) / 2],  # it finds label 2
}
"""Means of both labels; one that is neither there nor found has 1."""


class Stored:
    """Stands in for nnU-Net's datasets."""

    def __init__(self, folder, names):
        self.folder, self.names = folder, names

    def load_case(self, name):
        assert self.folder.endswith("preprocessed/Dataset007_Tiny/tiny")
        assert name in self.names
        return np.full((3, 16, 8, 8), 0.5, np.float32), LABELS[CASES.index(name)].numpy(), None, {}


class Finding(nn.Module):
    """Finds one label in the first six slices of each tile of eight, and notes which modalities it was shown."""

    def __init__(self, label):
        super().__init__()
        self.label, self.shown, self.states = label, [], set()
        self.decoder = SimpleNamespace(deep_supervision=True)

    def forward(self, images):
        self.shown.append(tuple(images.flatten(2).any(2)[0].tolist()))
        self.states.add((self.training, self.decoder.deep_supervision, torch.is_grad_enabled()))
        logits = torch.zeros(1, 3, *images.shape[2:])
        logits[:, self.label, :6] = 1
        logits[:, 0, 6:] = 1
        return logits


@pytest.fixture
def measuring(companion_of, monkeypatch):
    """A companion of two networks that find label 1 and label 2, and what its choice is told."""

    def measuring(**settings):
        trainer = companion_of(n_choice_cases=4, **settings)
        trainer.companion.stock, trainer.companion.student = Finding(1), Finding(2)
        trainer.dataset_class, trainer.bars = Stored, []
        monkeypatch.setattr(
            module, "Bar", lambda items, **settings: trainer.bars.append(settings) or Bar(items, **settings)
        )
        trainer.cohort = {"d": [True, False, True]}
        trainer.network.train()
        monkeypatch.setattr(trainer, "do_split", lambda: (["train"], CASES))
        monkeypatch.setattr(trainer, "save_checkpoint", lambda _: None)
        monkeypatch.setattr(ModalityDroppingTrainer, "on_train_end", lambda _: None)
        return trainer

    return measuring


def expected_rows():
    rows = {}
    for subset in SUBSETS.tolist():
        name = "+".join(n for n, flag in zip(("FLAIR", "T1", "T1ce"), subset, strict=True) if flag)
        dice = {kind: np.mean(of + ([] if subset[1] else of[:1])) for kind, of in DICE.items()}  # d has no T1
        rows[name] = dice | {
            "predicts": "stock" if subset == [True] * 3 or dice["stock"] > dice["student"] else "student"
        }
    return rows


def test_both_networks_are_measured_on_whole_cases_with_each_subset_of_what_they_have(measuring, capsys):
    trainer = measuring()
    capsys.readouterr()
    trainer.on_train_end()
    written = json.loads((Path(trainer.output_folder) / CHOICE).read_text(encoding="utf-8"))
    expected = expected_rows()
    assert written["cases"] == CASES
    assert list(written["subsets"]) == list(expected)
    for name, row in expected.items():
        assert written["subsets"][name] == row | {kind: pytest.approx(row[kind], rel=1e-12) for kind in DICE}, name
    text = (Path(trainer.output_folder) / CHOICE).read_text(encoding="utf-8")
    assert text.strip() == json.dumps(written, indent=4)
    assert trainer.said[-1] == ("choice on 4 validation cases, mean Dice:", written["subsets"])
    for network in (trainer.companion.stock, trainer.companion.student):
        of_cases = [tuple(s) for s in SUBSETS.tolist()] * 3 + [tuple(s) for s in SUBSETS.tolist() if not s[1]]
        assert sorted(network.shown) == sorted(of_cases * 2)  # two tiles cover a case, and nothing is mirrored
        assert network.states <= {(False, False, False), (False, True, False)}
    assert trainer.companion.student.states == {(False, False, False)}
    assert trainer.companion.student.decoder.deep_supervision is True
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1  # nnU-Net's, of each predictor on a CPU: not of each case and subset
    assert "%|" not in printed.err
    assert [(bar["total"], bar["shown"]) for bar in trainer.bars] == [(4, True)]


def test_processes_share_the_cases_and_the_first_writes(measuring, monkeypatch):
    """As if there were two, one after the other."""
    found = []

    def all_gather_object(of_all, own):
        found.append(own.copy())
        of_all[:] = found if len(found) == 2 else [own, own]

    monkeypatch.setattr(module, "dist", SimpleNamespace(get_world_size=lambda: 2, all_gather_object=all_gather_object))
    for rank in (1, 0):
        trainer = measuring()
        trainer.is_ddp, trainer.local_rank = True, rank
        trainer.set_deep_supervision_enabled = lambda enabled: None
        trainer.on_train_end()
        assert (Path(trainer.output_folder) / CHOICE).exists() == (rank == 0)
        assert [(bar["total"], bar["shown"]) for bar in trainer.bars] == [(2, rank == 0)]
    of_second, of_first = (np.isnan(dice).all((0, 1)).tolist() for dice in found)
    assert of_second == [True, False, True, False]
    assert of_first == [False, True, False, True]
    written = json.loads((Path(trainer.output_folder) / CHOICE).read_text(encoding="utf-8"))["subsets"]
    for name, row in expected_rows().items():
        assert written[name] == row | {kind: pytest.approx(row[kind], rel=1e-12) for kind in DICE}, name


# --- how it chooses ---


@pytest.fixture
def choosing(companion_of, monkeypatch):
    """Let a companion choose by Dice values that are given for it; return which subsets are the stock network's."""

    def choosing(dice, n_cases=None, **settings):
        trainer = companion_of(**settings)
        trainer.asked = []
        monkeypatch.setattr(trainer, "do_split", lambda: ([], [f"case_{i}" for i in range(n_cases or dice.shape[2])]))
        monkeypatch.setattr(trainer, "_dice_of", lambda *asked: trainer.asked.append(asked) or dice)
        monkeypatch.setattr(trainer, "save_checkpoint", lambda _: None)
        monkeypatch.setattr(ModalityDroppingTrainer, "on_train_end", lambda _: None)
        trainer.on_train_end()
        written = json.loads((Path(trainer.output_folder) / CHOICE).read_text(encoding="utf-8"))
        by_stock = trainer.companion.by_stock[subset_codes(SUBSETS)].tolist()
        return SimpleNamespace(by_stock=by_stock, written=written, asked=trainer.asked, trainer=trainer)

    return choosing


def test_the_checkpoint_says_who_predicts_and_the_file_what_that_was_based_on(choosing, tmp_path):
    stock = np.full(7, 0.5)
    stock[3] = 0.7
    chosen = choosing(dice_of(stock, np.full(7, 0.6)))
    checkpoint = Path(chosen.trainer.output_folder) / "checkpoint_final.pth"
    content = {"trainer_name": "A", "init_args": {}, "network_weights": chosen.trainer.companion.state_dict()}
    torch.save(content, checkpoint)
    names = ("FLAIR", "T1", "T1ce")
    assert read_choice(checkpoint, names) == chosen.written
    predicts = {subset: row["predicts"] for subset, row in chosen.written["subsets"].items()}
    assert list(predicts.values()).count("stock") == 1
    lying = {subset: {"predicts": "nobody", "stock": 0.1} for subset in predicts} | {"T9": {}}
    for text, cases, more in (
        (json.dumps({"cases": ["a"], "subsets": lying}), ["a"], {"stock": 0.1}),
        ('{"cases": [], "subsets": {"FLAIR": 5}}', [], {}),
        ('{"subsets": []}', [], {}),
        ("{", [], {}),
    ):
        checkpoint.with_name(CHOICE).write_text(text, encoding="utf-8")
        expected = {subset: {**more, "predicts": who} for subset, who in predicts.items()}
        assert read_choice(checkpoint, names) == {"cases": cases, "subsets": expected}


def test_beside_the_choice_stands_how_far_the_gate_of_a_d2net_is_open(companion_of, tmp_path):
    for name, told in zip(COMPANIONS, ({"gate": pytest.approx(0.5)}, {}), strict=True):
        weights = companion_of(name).companion.state_dict()
        if told:
            weights["student.bottleneck_gate.gate"].fill_(0.5)
        path = tmp_path / f"{name}.pth"
        torch.save({"trainer_name": "A", "init_args": {}, "network_weights": weights}, path)
        choice = read_choice(path, ("FLAIR", "T1", "T1ce"))
        assert {key: choice[key] for key in choice.keys() - {"cases", "subsets"}} == told


def dice_of(stock, student, n_cases=8):
    """The same Dice in every case, a little spread; per subset, or for all."""
    noise = np.linspace(-0.01, 0.01, n_cases)
    return np.stack([np.broadcast_to(np.asarray(d, float), (7,))[:, None] + noise for d in (stock, student)])


def test_the_better_network_gets_the_subset_and_the_student_where_both_are_alike(choosing):
    stock, student = np.full(7, 0.5), np.full(7, 0.6)
    stock[3], stock[4] = 0.7, 0.6
    chosen = choosing(dice_of(stock, student))
    assert chosen.by_stock == [i == 3 for i in range(7)]  # with all modalities the student wins in every case
    assert chosen.written["subsets"]["FLAIR+T1+T1ce"] == {"stock": 0.5, "student": 0.6, "predicts": "student"}


@pytest.mark.parametrize("better", [True, False])
def test_complete_input_is_decided_by_complete_input(choosing, better):
    stock, student = np.full(7, 0.5), np.full(7, 0.6)
    stock[COMPLETE], student[COMPLETE] = 0.6, 0.5
    if better:
        stock, student = student, stock
    assert choosing(dice_of(stock, student)).by_stock == [better] * 6 + [not better]


@pytest.mark.parametrize(("n_cases", "stays"), [(1, True), (2, True), (4, True), (5, False)])
def test_complete_input_stays_with_the_stock_network_where_the_gain_may_be_chance(choosing, n_cases, stays):
    """All of n cases have gained: that is chance with a probability of 1 in 2^n."""
    assert choosing(dice_of(0.5, 0.6, n_cases)).by_stock == [False] * 6 + [stays]


def test_a_gain_of_the_mean_that_one_case_makes_is_chance(choosing):
    dice = dice_of(0.5, 0.49)
    dice[1, COMPLETE, 0] += 0.4
    assert dice[1, COMPLETE].mean() > dice[0, COMPLETE].mean()
    assert choosing(dice).by_stock[COMPLETE]


def test_cases_that_lack_a_modality_do_not_hide_a_gain(choosing):
    dice = dice_of(0.5, 0.6)
    dice[:, COMPLETE, 6:] = np.nan
    assert not choosing(dice).by_stock[COMPLETE]


def test_the_same_dice_make_the_same_choice(choosing):
    """With this many cases only some of all orders are tried: the same ones each time."""
    gains = np.random.default_rng(6).normal(size=20)
    dice = dice_of(0.5, 0.5, 20)
    dice[1] += 0.1 * ((gains - gains.mean()) / gains.std() + 0.4)  # at the limit
    trainer, found = choosing(dice).trainer, []
    for _ in range(8):
        trainer.on_train_end()
        found.append(trainer.companion.by_stock[-1].item())
    assert len(set(found)) == 1


def test_subsets_that_no_validation_case_has_go_to_the_student(choosing, recwarn):
    dice = dice_of(0.6, 0.5)
    dice[:, 0] = np.nan
    dice[:, 1, :5] = np.nan
    chosen = choosing(dice)
    assert chosen.by_stock == [False] + [True] * 6
    assert not [warning for warning in recwarn if "empty" in str(warning.message)]
    assert chosen.written["subsets"]["FLAIR"] == {"stock": None, "student": None, "predicts": "student"}


def test_some_of_many_cases_are_looked_at_the_same_ones_each_time(choosing):
    first, second = (choosing(dice_of(0.5, 0.6, 4), n_cases=30, n_choice_cases=4).asked for _ in range(2))
    ((cases, subsets),) = first
    assert cases == second[0][0] == ["case_11", "case_2", "case_21", "case_26"]
    assert torch.equal(subsets, SUBSETS)
    assert len(choosing(dice_of(0.5, 0.6, 24), n_cases=30).asked[0][0]) == 24


def test_subsets_that_will_not_occur_are_not_looked_at(choosing):
    dice = dice_of(0.7, 0.6)[:, :3]
    chosen = choosing(dice, subsets=("FLAIR", "T1ce"))
    ((_, subsets),) = chosen.asked
    assert subsets.int().tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 1]]
    assert chosen.by_stock == [True, False, True, False, False, False, True]


def test_fold_all_chooses_nothing(companion_of, monkeypatch):
    trainer = companion_of()
    trainer.fold = "all"
    for name, instead in (("_dice_of", pytest.fail), ("save_checkpoint", lambda _: None)):
        monkeypatch.setattr(trainer, name, instead)
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_end", lambda _: None)
    trainer.on_train_end()
    assert trainer.companion.by_stock.tolist() == [False] * 7 + [True]
    assert trainer.said[-1] == ("fold all has no validation cases: the stock network predicts complete input only",)
    assert not (Path(trainer.output_folder) / CHOICE).exists()


def test_training_is_kept_before_the_choice_which_the_last_checkpoint_has(companion_of, monkeypatch):
    trainer = companion_of()
    order = []
    trainer.current_epoch = 7  # one ahead, where nnU-Net's loop ends
    monkeypatch.setattr(ResumingTrainer, "save_checkpoint", lambda of, name: order.append((name, of.current_epoch)))
    monkeypatch.setattr(trainer, "_choose", lambda: order.append(("choose", trainer.current_epoch)))
    monkeypatch.setattr(ModalityDroppingTrainer, "on_train_end", lambda of: order.append(("end", of.current_epoch)))
    trainer.on_train_end()
    latest = str(Path(trainer.output_folder) / "checkpoint_latest.pth")
    assert order == [(latest, 6), ("choose", 7), ("end", 7)]


# --- targets ---


class Manager:
    """What is read of nnU-Net's label manager."""

    def __init__(self, regions=None, ignore=None):
        self.has_regions, self.foreground_regions = regions is not None, regions
        self.has_ignore_label, self.ignore_label = ignore is not None, ignore


def test_targets_are_labels_or_regions_and_what_is_ignored():
    labels = torch.tensor([[-1, 0, 1, 2, 3, 4]], dtype=torch.int16)
    of_labels = target_of(labels, Manager())
    assert (of_labels.tolist(), of_labels.dtype) == ([[0, 0, 1, 2, 3, 4]], torch.long)
    regions = target_of(labels, Manager([(1, 2, 3), 3], 4))
    assert regions.dtype == torch.bool
    assert regions.int().tolist() == [[0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert target_of(labels, Manager([(1, 2, 3), 3])).shape == (2, 6)
