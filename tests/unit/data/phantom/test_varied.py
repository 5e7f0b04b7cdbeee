"""Varied cases: what is drawn lies where it should, each effect does what it says, and nothing harmless is labeled."""

from functools import lru_cache

import numpy as np
import pytest

pytest.importorskip("nilearn")

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.data.phantom import anatomy, dataset, findings, levels, scanner, varied
from nnunetv2_d2net.data.phantom.dataset import CaseKey, PhantomSpec, write_phantom
from nnunetv2_d2net.data.phantom.fields import Grid
from nnunetv2_d2net.data.phantom.glioma import draw_varied_glioma, edema_distance, grow_tumor
from nnunetv2_d2net.data.phantom.varied import simulate_varied_case

FLAIR, T1, T1CE, T2 = range(4)
SEED = CaseKey("Tr", 2).seed(0)


@lru_cache(maxsize=1)
def case():
    return simulate_varied_case("small", SEED)


@lru_cache(maxsize=1)
def head():
    return anatomy.deform_anatomy(anatomy.draw_head(np.random.default_rng(0)), Grid(3))


def test_same_seed_gives_the_same_voxels_and_another_seed_others():
    again = simulate_varied_case("small", SEED)
    np.testing.assert_array_equal(again.images, case().images)
    np.testing.assert_array_equal(again.labels, case().labels)
    other = simulate_varied_case("small", CaseKey("Tr", 3).seed(0))
    assert not np.array_equal(other.labels, case().labels)


def test_a_case_has_whole_numbers_where_there_is_brain_and_labels_only_there():
    for image in case().images:
        np.testing.assert_array_equal(image, np.rint(image))
        assert 0.2 < (image > 0).mean() < 0.6
    assert set(np.unique(case().labels)) <= {0, 1, 2, 3}
    assert (case().labels == 2).any()
    assert not case().labels[(case().images == 0).all(axis=0)].any()
    assert case().images.dtype == np.float32
    assert case().labels.dtype == np.uint8


def test_a_case_lies_as_those_of_brats():
    """The cerebellum and brain stem, without which the front's lowest slices are, lie at the back."""
    behind = [(case().images[0] > 0)[:6, half].sum() for half in (slice(31, None), slice(0, 31))]
    assert behind[0] > 2 * behind[1]


# Levels


@pytest.mark.parametrize("name", levels.RANGES)
def test_levels_lie_in_their_ranges_and_fill_them(name):
    rng = np.random.default_rng(0)
    low, high = np.transpose(levels.RANGES[name])
    drawn = np.concatenate([levels.draw_tissue(rng, name, n) for n in (1, 2, 3) for _ in range(100)])
    assert drawn.shape == (600, 4)
    assert np.all(drawn >= low - 1e-9)
    assert np.all(drawn <= high + 1e-9)
    assert np.all(drawn.min(axis=0) < low + 0.1 * (high - low))
    assert np.all(drawn.max(axis=0) > high - 0.1 * (high - low))


def test_normal_levels_keep_the_order_that_is_certain_and_spread_three_times_as_measured():
    rng = np.random.default_rng(0)
    for physical in (True, False):
        drawn = [levels.draw_normal(rng, physical=physical) for _ in range(300)]
        gray, white, csf = (np.array([case[name] for case in drawn]) for name in ("gray", "white", "csf"))
        np.testing.assert_allclose(white, 1)
        assert np.all(gray[:, [T1, T1CE]] < 1)
        assert np.all(csf[:, [FLAIR, T1, T1CE]] < gray[:, [FLAIR, T1, T1CE]] + 0.2)
        assert np.all(csf[:, T2] > 1.5)
        assert np.all(gray[:, T2] > 1)
    mean, spread = np.transpose(levels.NORMAL["gray"])
    np.testing.assert_allclose(gray.mean(axis=0), mean, atol=0.06)
    assert np.all(gray.std(axis=0) > 1.5 * spread)


def test_physics_gives_gray_matter_less_agent_than_the_plain_phantom_and_csf_without_signal_after_inversion():
    drawn = [levels.draw_normal(np.random.default_rng(seed), physical=True) for seed in range(60)]
    assert np.mean([case["gray"][T1CE] - case["gray"][T1] for case in drawn]) < 0.04
    assert min(case["csf"][T1] for case in drawn) < 0.1
    assert max(case["csf"][T1] for case in drawn) > 0.3


def test_stored_images_have_another_zero_than_signal_where_no_inversion_was_played():
    csf = np.array([levels.draw_normal(np.random.default_rng(seed), physical=True)["csf"][T1] for seed in range(200)])
    spin_echo = csf[csf > 0.15]  # an inversion leaves CSF nearly black
    assert 0.35 < len(spin_echo) / len(csf) < 0.65
    assert np.ptp(spin_echo) > 0.12


def test_lesions_have_one_to_three_sub_tissues_and_enhancing_tumor_is_brightest_in_t1ce():
    drawn = [levels.draw_lesion(np.random.default_rng(seed)) for seed in range(200)]
    assert {len(lesion["edema"]) for lesion in drawn} == {1, 2, 3}
    for lesion in drawn:
        assert lesion["enhancing"][:, T1CE].min() > 1
        for other in ("edema", "core"):
            assert lesion["enhancing"][:, T1CE].min() >= lesion[other][:, T1CE].mean() + 0.25 - 1e-9
        assert lesion["edema"][:, [FLAIR, T2]].min() > 1


def test_sub_tissues_are_where_their_field_is_highest():
    flat = varied._sub_tissues(np.random.default_rng(0), np.array([[1.0, 2, 3, 4]]), Grid(3))
    np.testing.assert_array_equal(flat[:, 0, 0, 0], [1, 2, 3, 4])
    two = varied._sub_tissues(np.random.default_rng(0), np.array([[1.0] * 4, [2.0] * 4]), Grid(3))
    assert two.min() >= 1
    assert two.max() <= 2
    assert two.std() > 0.2


# Tumors


def volumes(n=14):
    drawn = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        glioma = draw_varied_glioma(rng, head(), Grid(3))
        drawn.append(grow_tumor(glioma, head(), Grid(3), edema_distance(glioma, head(), Grid(3))))
    return np.array([[(tumor.labels > 0).sum(), (tumor.labels == 3).sum()] for tumor in drawn]) * 0.027


def test_tumors_are_mostly_large_some_small_and_some_do_not_enhance():
    whole, enhancing = volumes().T
    assert 50 < np.median(whole) < 180
    assert whole.min() < 60
    assert whole.max() > 140
    assert 0 < (enhancing > 1).mean() < 1


def test_a_core_that_no_voxel_holds_still_has_edema_around_it():
    """About one drawn core in 1500 is so small and ragged that it lies between the voxels, or wholly in CSF."""
    glioma = draw_varied_glioma(np.random.default_rng(1), head(), Grid(3))
    first = glioma.foci[0]
    distance = edema_distance(glioma._replace(foci=(first._replace(radius=-3.0),)), head(), Grid(3))
    z, y, x = np.argwhere(distance == 0).T
    assert 1 <= len(z) <= 8
    offset = Grid(3).positions_mm()[:, z, y, x] - first.center[:, None]
    assert np.linalg.norm(offset, axis=0).max() < 8
    assert np.isfinite(distance[head().brain]).all()


def test_fingers_make_the_edema_uneven_and_its_border_can_be_wide():
    glioma = draw_varied_glioma(np.random.default_rng(1), head(), Grid(3))
    noise = glioma.fingers[0]
    smooth, uneven = (
        edema_distance(glioma._replace(fingers=(noise, strength)), head(), Grid(3)) for strength in (0.0, 0.8)
    )
    ring = (smooth > 5) & (smooth < 60)
    assert (uneven[ring] / smooth[ring]).std() > 0.1
    sharp, wide = (grow_tumor(glioma._replace(border=border), head(), Grid(3), smooth).edema for border in (0.5, 4.0))
    assert ((wide > 0.05) & (wide < 0.3)).sum() > 1.5 * ((sharp > 0.05) & (sharp < 0.3)).sum()


def test_a_case_without_tumor_has_findings_and_no_label(monkeypatch):
    monkeypatch.setattr(varied, "WITHOUT_TUMOR", 1.0)
    healthy = simulate_varied_case("small", SEED)
    assert not healthy.labels.any()
    assert (healthy.images[0] > 0).any()


def test_a_tenth_of_the_cases_is_without_tumor():
    assert varied.WITHOUT_TUMOR == 0.1


# Findings


def test_moving_csf_is_bright_in_flair_alone(monkeypatch):
    depth, normal = scanner.surface_depth(head().brain, 3), levels.draw_normal(np.random.default_rng(0), physical=True)
    signals = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(varied, "FLOW", share)
        signals.append(varied._healthy_signal(np.random.default_rng(0), normal, head(), depth, Grid(3)))
    change = (signals[1] - signals[0])[:, head().brain]
    assert not change[1:].any()
    assert change[0].min() >= 0
    assert change[0][head().tissues[2][head().brain] > 0.9].max() > 0.05


def test_findings_change_images_and_no_label(monkeypatch):
    made = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(findings, "SHARES", dict.fromkeys(findings.SHARES, share))
        made[share] = simulate_varied_case("small", SEED)
    np.testing.assert_array_equal(made[0.0].labels, made[1.0].labels)
    changed = (np.abs(made[0.0].images / np.maximum(made[1.0].images, 1) - 1) > 0.2).any(axis=0)
    assert (changed & (made[0.0].labels == 0)).mean() > 0.005


MAKERS = ("_hyperintensities", "_caps", "_plaques", "_infarct", "_metastases")


@pytest.mark.parametrize("maker", MAKERS)
def test_a_finding_is_a_small_share_of_the_brain_and_has_the_levels_of_its_tissue(maker):
    layers = list(getattr(findings, maker)(np.random.default_rng(4), head(), Grid(3)))
    for layer in layers:
        assert layer.fraction.min() >= 0
        assert 0.2 < layer.fraction.max() <= 1
        assert (layer.fraction > 0.3).sum() * 0.027 < 120
        assert not layer.fraction[~head().brain].any()
        assert layer.levels.shape == (4,)
    assert layers[0].levels[FLAIR] > 0.9


def test_vessels_take_agent_up_and_the_sinus_is_at_the_top_of_the_midline():
    depth = scanner.surface_depth(head().brain, 3)
    blood, sinuses, membranes = findings._vessels(np.random.default_rng(0), head(), depth, Grid(3))
    assert min(layer.levels[T1CE] for layer in (blood, sinuses, membranes)) > 0.75
    x = head().mni_mm[2]
    top = (head().mni_mm[0] > 50) & (sinuses.fraction > 0.4)
    assert top.any()
    assert np.abs(x[top]).max() < 10
    assert membranes.fraction[np.abs(depth) > 8].max() < 0.01


def test_places_follow_the_weight():
    weight = np.zeros(Grid(3).shape)
    weight[5, 6, 7] = 1
    places = findings._places(np.random.default_rng(0), weight, 3, Grid(3))
    np.testing.assert_allclose(places, [(16.5, 19.5, 22.5)] * 3)


# The scanner


def examination(**change):
    plain = scanner.Examination(np.full(3, 0.1), np.full(3, 0.1), 0.05, 0.0, 500.0)
    return plain._replace(**change)


def image_of(signal, exam, spacing=2):
    rng = np.random.default_rng(0)
    domain = np.ones(signal.shape, dtype=bool)
    flat = np.zeros((2, *signal.shape), np.float32)
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return scanner.acquire_image(signal, domain, exam, flat, noise, spacing)


def step(volume, axis):
    return np.diff(volume, axis=axis).std()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_blur_along_their_axis_alone(axis):
    signal = 1 + np.random.default_rng(1).standard_normal((20, 20, 20)).astype(np.float32) / 3
    blur = np.full(3, 0.1)
    blur[axis] = 5 / 2.355
    image = image_of(signal, examination(blur=blur, noise=1e-4))
    others = [step(image, other) for other in {0, 1, 2} - {axis}]
    assert step(image, axis) < 0.5 * min(others)
    assert image.mean() == pytest.approx(500, rel=0.05)


def test_noise_has_its_strength_and_neighbors_are_alike_when_grained():
    signal = np.ones((30, 30, 30), dtype=np.float32)
    white, grained = (image_of(signal, examination(grain=np.full(3, grain))) for grain in (0.1, 1.5))
    for image in (white, grained):
        assert image.std() == pytest.approx(25, rel=0.05)
    assert step(white, 0) == pytest.approx(25 * np.sqrt(2), rel=0.05)
    assert step(grained, 0) < 0.8 * step(white, 0)


def test_shading_changes_levels_smoothly():
    domain = np.ones((8, 8, 8), dtype=bool)
    signal, noise = np.ones((8, 8, 8), np.float32), np.ones((2, 8, 8, 8), np.float32)
    noise[:, ::2] = 0
    half = np.zeros((2, 8, 8, 8), np.float32)
    half[0, :, :4] = 1
    image = scanner.acquire_image(signal, domain, examination(noise=0.0, shading=0.1), half, noise, 2)
    assert image[0, 0, 0] / image[0, 7, 0] == pytest.approx(np.exp(0.1), rel=1e-3)


def test_examinations_are_drawn_in_their_ranges():
    drawn = [scanner.draw_examination(np.random.default_rng(seed), 0.6) for seed in range(300)]
    thick = [exam for exam in drawn if exam.blur.max() > 3 / 2.356]
    assert len(thick) / len(drawn) == pytest.approx(0.6, abs=0.08)
    assert {int(exam.blur.argmax()) for exam in thick} == {0, 1, 2}
    assert max(exam.blur.max() for exam in drawn) < 6 / 2.354
    assert all(0.015 <= exam.noise <= 0.07 and 200 <= exam.gain <= 1200 for exam in drawn)


def test_masks_err_by_millimeters_here_and_there():
    depth = scanner.surface_depth(head().brain, 3)
    assert (depth[head().brain] > 0).all()
    assert (depth[~head().brain] < 0).all()
    wrong = []
    for seed in range(12):
        mask = scanner.strip_skull(np.random.default_rng(seed), depth, Grid(3))
        wrong.append(mask != head().brain)
        assert np.abs(depth[wrong[-1]]).max(initial=0) < 6
    assert 0.002 < np.mean(wrong) < 0.08


def test_a_cut_field_takes_a_side_of_all_images_and_the_labels_or_of_one_image(monkeypatch):
    monkeypatch.setattr(scanner, "CUT", 1.0)
    brain = np.zeros((20, 20, 20), dtype=bool)
    brain[2:18, 2:18, 2:18] = True
    labels = np.zeros(brain.shape, dtype=np.uint8)
    labels[8:12, 8:12, 8:12] = 2
    kinds = set()
    for seed in range(40):
        seen, labeled = scanner.cut_field(np.random.default_rng(seed), brain, labels)
        cut = [bool((brain & ~part).any()) for part in seen]
        kinds.add(sum(cut))
        assert bool((brain & ~labeled).any()) == (sum(cut) == 4)
        assert 2 * np.count_nonzero(labels * labeled) >= np.count_nonzero(labels)
    assert kinds == {1, 4}


def test_few_fields_are_cut():
    cut = [
        not scanner.cut_field(np.random.default_rng(s), np.ones((4,) * 3, bool), np.zeros((4,) * 3))[0].all()
        for s in range(300)
    ]
    assert 0.05 < np.mean(cut) < 0.2


# The data set


def test_the_kind_is_recorded_and_cannot_be_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "simulate_varied_case", lambda size, seed: case())
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0, kind="varied"))
    assert read_json(folder / "phantom.json", "")["kind"] == "varied"
    with pytest.raises(UserError, match="kind 'varied', not 'plain'"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0), resume=True)
    with pytest.raises(UserError, match="--kind from plain, varied"):
        PhantomSpec(7, 1, 0, kind="wild")


def test_plain_is_the_default_and_its_record_says_no_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "simulate_case", lambda size, seed: case())
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    assert "kind" not in read_json(folder / "phantom.json", "")
