"""The total: additive, exactly switchable, no unused head, and nnU-Net's loss alone in eval mode."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunetv2_d2net.method.losses.adt_kd import adt_kd_losses
from nnunetv2_d2net.method.losses.d2net_loss import LOSS_TERMS, D2NetLoss
from nnunetv2_d2net.method.losses.pooling import any_pool, average_pool
from nnunetv2_d2net.method.losses.sfmc import frequency_contrastive_loss, spatial_contrastive_loss
from nnunetv2_d2net.method.losses.supervision import (
    Target,
    auxiliary_loss,
    consistency_loss,
    reconstruction_loss,
    split_targets,
)
from nnunetv2_d2net.method.network.outputs import D2NetOutputs

LEVEL_WEIGHTS = (0.8, 0.2, 0.0)
SIZES = [8, 4, 2]
IGNORE_LABEL = 3
ZERO = dict.fromkeys(LOSS_TERMS, 0.0)


class SegmentationLoss(nn.Module):
    """Stands in for nnU-Net's: lists exactly with deep supervision, the last level with weight 0."""

    def __init__(self, *, regions):
        super().__init__()
        self.regions = regions

    def forward(self, logits, target):
        if isinstance(logits, list):
            assert isinstance(target, list)
            return sum(w * self.one(*pair) for w, *pair in zip(LEVEL_WEIGHTS, logits, target, strict=False) if w)
        return self.one(logits, target)

    def one(self, logits, target):
        if self.regions:
            return F.binary_cross_entropy_with_logits(logits.float(), target[:, : logits.shape[1]].float())
        return F.cross_entropy(logits.float(), target[:, 0].long(), ignore_index=IGNORE_LABEL)


class Case:
    """Random training outputs, target, images and the loss; everything the network would emit asks for a gradient."""

    def __init__(self, *, regions=False, n_spatial=3, dtype=torch.float32, seed=0, weights=None, teacher_level=0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

        def grid(n):
            return (n,) * n_spatial

        self.outputs = D2NetOutputs(
            student_logits=[normal(2, 3, *grid(n)) for n in SIZES],
            teacher_logits=[normal(2, 3, *grid(n)) for n in SIZES[teacher_level:]],
            student_features=[normal(2, 5, *grid(n)) for n in SIZES[1:]],
            teacher_features=[normal(2, 5, *grid(n)) for n in SIZES[1:]],
            first_bank_level=1,
            first_teacher_level=teacher_level,
            modality_codes=normal(2, 4, 8 if n_spatial == 3 else 1, 6),
            informative_slices=torch.ones(2, 4, 8 if n_spatial == 3 else 1, dtype=torch.bool),
            reconstructions=normal(2, 4, *grid(4)),
        )
        self.outputs.informative_slices[0, 1] = False
        self.images = torch.randn(2, 4, *grid(8), generator=generator)
        self.present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]]).bool()
        labels = torch.randint(0, 4, (2, 1, *grid(8)), generator=generator)
        labels[:, :, :4] = labels[:, :, :4] % 3  # ignored voxels in one half only
        if regions:
            labels = torch.cat([labels.ge(1) & labels.ne(3), labels.eq(2), labels.eq(1), labels.eq(3)], 1)
        self.target = [labels[(..., *(slice(None, None, 8 // n),) * n_spatial)] for n in SIZES]
        self.ignore = labels[:, 3:].bool() if regions else labels.eq(IGNORE_LABEL)
        self.loss = D2NetLoss(
            SegmentationLoss(regions=regions),
            weights or {},
            regions=regions,
            ignore_label=IGNORE_LABEL,
            level_weights=LEVEL_WEIGHTS,
        )

    def arguments(self):
        return self.outputs, self.target, self.images, self.present

    def leaves(self):
        lists = self.outputs[:4]
        return [t for maps in lists for t in maps] + [self.outputs.modality_codes, self.outputs.reconstructions]

    def gradients(self, value):
        return torch.autograd.grad(value, self.leaves(), allow_unused=True, materialize_grads=True, retain_graph=True)


@pytest.fixture(params=[(False, 0), (True, 0), (False, 1), (True, 1)], ids=lambda p: f"regions{p[0]:d}-teacher{p[1]}")
def case(request):
    regions, teacher_level = request.param
    return Case(regions=regions, teacher_level=teacher_level)


def test_terms_are_the_functions_of_the_right_outputs(case):
    outputs, regions, ignore = case.outputs, case.loss.regions, case.ignore
    masks = [t[:, :3] if regions else torch.cat([t == c for c in range(3)], 1) for t in case.target]
    ignored = [t[:, 3:].bool() if regions else t == IGNORE_LABEL for t in case.target]
    targets = [Target(m.float(), i) for m, i in zip(masks, ignored, strict=True)]
    student, teacher = outputs.student_logits, outputs.teacher_logits
    features = outputs.student_features, outputs.teacher_features
    first = outputs.first_teacher_level
    kd_feature, kd_logit = adt_kd_losses(student[1:], teacher[1 - first :], *features, regions=regions, ignore=ignore)
    weights = torch.tensor(LEVEL_WEIGHTS[first:])
    weights = (weights * sum(LEVEL_WEIGHTS) / weights.sum()).tolist()
    expected = {
        "seg": case.loss.segmentation_loss(student, case.target),
        "sc": spatial_contrastive_loss(outputs.modality_codes, outputs.informative_slices),
        "fc": frequency_contrastive_loss(outputs.modality_codes, outputs.informative_slices),
        "rec": reconstruction_loss(outputs.reconstructions, case.images, case.present),
        "kd_feature": kd_feature,
        "kd_logit": kd_logit,
        "aux": auxiliary_loss(teacher, targets[first:], weights),
        "consis": consistency_loss(teacher[0], student[0], regions=regions, ignore=ignore),
    }
    terms = case.loss.terms(*case.arguments())
    assert tuple(terms) == tuple(expected) == LOSS_TERMS
    assert {name: t.item() for name, t in terms.items()} == pytest.approx({k: t.item() for k, t in expected.items()})
    assert all(t.item() > 0 and t.requires_grad for t in terms.values())


def test_total_is_additive_and_the_terms_are_kept_unweighted(case):
    weights = {name: 0.5 + i for i, name in enumerate(LOSS_TERMS)}
    case.loss.set_weights(weights)
    terms = case.loss.terms(*case.arguments())
    total = case.loss(*case.arguments())
    torch.testing.assert_close(total, sum(weights[name] * terms[name] for name in LOSS_TERMS))
    torch.testing.assert_close(case.loss.last_terms, torch.stack(list(terms.values())).detach())
    assert not case.loss.last_terms.requires_grad


def test_default_weights_are_1(case):
    terms = case.loss.terms(*case.arguments())
    torch.testing.assert_close(case.loss(*case.arguments()), torch.stack(list(terms.values())).sum())


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_a_zero_weight_removes_exactly_this_term_and_its_gradient(case, name):
    terms = case.loss.terms(*case.arguments())
    others = [terms[other] for other in LOSS_TERMS if other != name]
    case.loss.set_weights({name: 0.0})
    total = case.loss(*case.arguments())
    torch.testing.assert_close(total, torch.stack(others).sum())
    torch.testing.assert_close(case.gradients(total), case.gradients(sum(others)))
    case.loss.set_weights(ZERO)
    assert all(gradient.eq(0).all() for gradient in case.gradients(case.loss(*case.arguments())))
    case.loss.set_weights({name: 1.0})
    alone = case.gradients(case.loss(*case.arguments()))
    torch.testing.assert_close(alone, case.gradients(terms[name]), rtol=0, atol=0)
    assert any(gradient.ne(0).any() for gradient in alone)


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_no_output_is_unused_whatever_the_weights(case, deep_supervision):
    case.loss.set_weights(ZERO)
    banks = {name: getattr(case.outputs, name)[:1] for name in ("student_features", "teacher_features")}
    case.outputs = case.outputs._replace(**banks)  # the coarsest level is in no bank
    if not deep_supervision:
        case.target, case.loss.level_weights = case.target[0], (1.0,)
    case.loss(*case.arguments()).backward()
    assert all(leaf.grad is not None for leaf in case.leaves())


def test_levels_on_both_sides_of_the_banks_are_used(case):
    case.loss.set_weights(ZERO)
    banks = {name: getattr(case.outputs, name)[:1] for name in ("student_features", "teacher_features")}
    sizes = [8, 8, 4, 2, 2]  # banks hold the third of five levels
    normal = {n: torch.randn(2, 3, n, n, n) for n in sizes}
    first_teacher = case.outputs.first_teacher_level
    student, teacher = (
        [normal[n].clone().requires_grad_() for n in levels] for levels in (sizes, sizes[first_teacher:])
    )
    case.outputs = case.outputs._replace(student_logits=student, teacher_logits=teacher, first_bank_level=2, **banks)
    case.target, case.loss.level_weights = case.target[0], (1.0,)
    total = case.loss(*case.arguments())
    total.backward()
    assert total.item() == 0
    assert all(level.grad is not None for level in (*student, *teacher))


def test_before_the_first_step_the_terms_are_zero(case):
    assert case.loss.last_terms.tolist() == [0.0] * len(LOSS_TERMS)


def test_without_deep_supervision_only_the_finest_level_is_supervised(case):
    case.target, case.loss.level_weights = case.target[0], (1.0,)
    terms = case.loss.terms(*case.arguments())
    expected = case.loss.segmentation_loss(case.outputs.student_logits[0], case.target)
    assert terms["seg"].item() == expected.item()
    gradients = torch.autograd.grad(terms["aux"], case.outputs.teacher_logits, allow_unused=True)
    assert gradients[0] is not None
    assert set(gradients[1:]) == {None}


def test_eval_outputs_get_the_segmentation_loss_alone(case):
    logits = case.outputs.student_logits
    before = case.loss.last_terms
    assert case.loss(logits, case.target).item() == case.loss.segmentation_loss(logits, case.target).item()
    alone = case.loss.segmentation_loss(logits[0], case.target[0])
    assert case.loss(logits[0], case.target[0]).item() == alone.item()
    assert case.loss.last_terms is before


def test_ignored_voxels_change_neither_consistency_nor_logit_distillation(case):
    before = case.loss.terms(*case.arguments())
    for levels in (case.outputs.student_logits, case.outputs.teacher_logits):
        for i, maps in enumerate(levels[:2]):
            levels[i] = torch.where(any_pool(case.ignore, maps.shape[2:]), maps + 9 - 4 * i, maps)
    expected = before["kd_logit"].item()
    after = case.loss.terms(*case.arguments())
    assert after["consis"].item() == pytest.approx(before["consis"].item(), abs=1e-6)
    assert after["kd_logit"].item() == pytest.approx(expected, rel=1e-6)


def test_two_dimensions_with_one_slice():
    case = Case(n_spatial=2)
    total = case.loss(*case.arguments())
    assert total.isfinite()
    assert case.loss.last_terms.gt(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_stay_finite(dtype):
    case = Case(dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        total = case.loss(*case.arguments())
    total.backward()
    assert total.dtype == torch.float32
    assert case.loss.last_terms.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in case.leaves())


def test_one_modality_and_an_empty_region_stay_finite(case):
    case.outputs.informative_slices[:] = False
    case.outputs.informative_slices[:, 2, :] = True
    case.present[:] = False
    case.present[:, 2] = True
    case.target = [torch.zeros_like(level) for level in case.target]
    case.loss(*case.arguments()).backward()
    terms = dict(zip(LOSS_TERMS, case.loss.last_terms.tolist(), strict=True))
    assert (terms["sc"], terms["fc"]) == (0, 0)
    assert case.loss.last_terms.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in case.leaves())


def test_gradient_map(case):
    """Which outputs, hence which parts of the network, each term trains."""
    names = ["student_logits"] * 3 + ["teacher_logits"] * len(case.outputs.teacher_logits)
    names += ["student_features"] * 2 + ["teacher_features"] * 2
    names += ["modality_codes", "reconstructions"]
    expected = {
        "seg": {"student_logits"},
        "sc": {"modality_codes"},
        "fc": {"modality_codes"},
        "rec": {"reconstructions"},
        "kd_feature": {"student_features", "teacher_features"},
        "kd_logit": {"student_logits", "teacher_logits"},
        "aux": {"teacher_logits"},
        "consis": {"student_logits", "teacher_logits"},
    }
    for term, value in case.loss.terms(*case.arguments()).items():
        reached = {name for name, g in zip(names, case.gradients(value), strict=True) if g.ne(0).any()}
        assert reached == expected[term], term


def test_set_weights_keeps_the_others():
    loss = Case(weights={"sc": 0.25}).loss
    loss.set_weights({"rec": 0.5})
    assert loss.weights == dict.fromkeys(LOSS_TERMS, 1.0) | {"sc": 0.25, "rec": 0.5}


def test_unknown_weight_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"contrast.*kd_feature"):
        Case(weights={"contrast": 1.0})


def test_training_outputs_without_images_are_refused(case):
    with pytest.raises(ValueError, match="pass both"):
        case.loss(case.outputs, case.target)
    with pytest.raises(ValueError, match="pass both"):
        case.loss(case.outputs, case.target, images=case.images)
    with pytest.raises(ValueError, match="pass both"):
        case.loss(case.outputs, case.target, present=case.present)


def test_segmentation_loss_sees_float32():
    seen = []

    def segmentation_loss(logits, target):
        seen.extend(x.dtype for x in logits)
        return sum(x.mean() for x in logits)

    loss = D2NetLoss(segmentation_loss, {}, regions=True, ignore_label=None, level_weights=(1.0, 0.0))
    logits = [torch.randn(1, 3, 8, 8, dtype=torch.float16), torch.randn(1, 3, 4, 4, dtype=torch.bfloat16)]
    assert torch.isfinite(loss(logits, [None, None]))
    assert seen == [torch.float32, torch.float32]


@pytest.mark.parametrize("regions", [False, True])
def test_a_coarse_teacher_without_deep_supervision_learns_pooled_masks(regions):
    case = Case(regions=regions, teacher_level=1)
    outputs, target, images, present = case.arguments()
    case.loss.level_weights = (1.0,)
    full = split_targets(target[0], 3, regions=regions, ignore_label=IGNORE_LABEL)[0]
    pooled = Target(average_pool(full.masks, outputs.teacher_logits[0].shape[2:]), None)
    pooled = pooled._replace(ignore=any_pool(full.ignore, outputs.teacher_logits[0].shape[2:]))
    expected = auxiliary_loss(outputs.teacher_logits, [pooled], [1.0])
    assert case.loss.terms(outputs, target[0], images, present)["aux"].item() == pytest.approx(expected.item())
