"""The phantom: same seed same voxels, geometry, physics, contrast, and a data set that nnU-Net accepts."""

import json
from functools import lru_cache

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

pytest.importorskip("nilearn")

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import LOCK, locked
from nnunetv2_d2net.cli import phantom as command
from nnunetv2_d2net.data.phantom import anatomy, dataset, mri
from nnunetv2_d2net.data.phantom.case import simulate_case
from nnunetv2_d2net.data.phantom.contrast import REGIONS, format_contrast_table, measure_contrast, write_contrast_table
from nnunetv2_d2net.data.phantom.dataset import CaseKey, PhantomSpec, write_phantom
from nnunetv2_d2net.data.phantom.fields import SPACINGS, Grid, SmoothNoise
from nnunetv2_d2net.data.phantom.glioma import draw_glioma
from nnunetv2_d2net.data.phantom.source_layout import write_source

N_CASES = 10
FLAIR, T1, T1CE, T2 = range(4)
WHOLE, _, ENHANCING, EDEMA = range(4)


@lru_cache(maxsize=1)
def cases():
    return [simulate_case("small", CaseKey("Tr", index).seed(0)) for index in range(N_CASES)]


@lru_cache(maxsize=1)
def heads_and_gliomas():
    """What was drawn of each case before it became images."""
    drawn = []
    for index in range(N_CASES):
        rng = np.random.default_rng(CaseKey("Tr", index).seed(0))
        head = anatomy.draw_head(rng)
        drawn.append((head, draw_glioma(rng, anatomy.deform_anatomy(head, Grid(3)), Grid(3))))
    return drawn


@lru_cache(maxsize=1)
def mean_contrast():
    """AUC and best Dice, ``(2, modality, region)``, averaged over the cases that have the region."""
    return np.nanmean([measure_contrast(case.images, case.labels) for case in cases()], axis=0)


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture
def quick(monkeypatch):
    """Replace the simulation by one that is drawn from the same seed but takes no time."""
    calls = []

    def simulate(size, seed):
        calls.append(seed.spawn_key)
        rng = np.random.default_rng(seed)
        return cases()[0]._replace(images=rng.integers(1, 99, (4, 4, 5, 6)).astype(np.float32), labels=_labels())

    def _labels():
        return np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 4

    monkeypatch.setattr(dataset, "simulate_case", simulate)
    return calls


# Voxels


def test_same_seed_gives_the_same_voxels_and_another_seed_others():
    seed = CaseKey("Tr", 1).seed(0)
    again = [simulate_case("small", seed) for _ in range(2)]
    for case in again:
        np.testing.assert_array_equal(case.images, cases()[1].images)
        np.testing.assert_array_equal(case.labels, cases()[1].labels)
    assert not np.array_equal(cases()[0].labels, cases()[1].labels)
    assert not np.array_equal(simulate_case("small", CaseKey("Tr", 1).seed(5)).labels, cases()[1].labels)


def test_training_and_test_streams_are_disjoint():
    states = {
        tuple(CaseKey(split, index).seed(seed).generate_state(4))
        for split in ("Tr", "Ts")
        for index in range(50)
        for seed in (0, 1)
    }
    assert len(states) == 200


def test_images_are_zero_outside_the_brain_and_positive_inside_in_every_modality():
    for case in cases():
        brain = case.images[0] > 0
        assert 0.25 < brain.mean() < 0.55
        for image in case.images:
            np.testing.assert_array_equal(image > 0, brain)
            assert image.min() == 0
        assert not case.labels[~brain].any()
        assert case.images.dtype == np.float32
        assert case.labels.dtype == np.uint8


def test_brain_has_the_promised_size_after_cropping():
    extents = []
    for case in cases():
        inside = np.argwhere(case.images[0] > 0)
        extents.append(np.ptp(inside, axis=0) + 1)
    assert np.all(np.abs(np.mean(extents, axis=0) - (46, 56, 46)) < 3)


def test_sizes_show_the_same_patient():
    small, medium = cases()[3], simulate_case("medium", CaseKey("Tr", 3).seed(0))
    assert medium.images.shape == (4, 72, 93, 75)
    sizes = ((small, SPACINGS["small"]), (medium, SPACINGS["medium"]))
    for members in ((1, 2, 3), (1, 3)):
        volumes = [np.isin(case.labels, members).sum() * spacing**3 for case, spacing in sizes]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.25)
    positions = [np.argwhere(case.labels > 0).mean(axis=0) * spacing for case, spacing in sizes]
    assert np.abs(positions[0] - positions[1]).max() < 4


def test_cases_vary_in_rim_number_size_and_place():
    gliomas = [glioma for _, glioma in heads_and_gliomas()]
    assert {bool(glioma.rim) for glioma in gliomas} == {True, False}
    assert {len(glioma.foci) > 1 for glioma in gliomas} == {True, False}
    for case, glioma in zip(cases(), gliomas, strict=True):
        assert bool((case.labels == 3).any()) == bool(glioma.rim)
        assert (case.labels == 1).any()
        assert (case.labels == 2).any()
    volumes = [int((case.labels > 0).sum()) for case in cases()]
    assert max(volumes) > 2 * min(volumes)
    assert len({case.images[0][24, 31, 20] for case in cases()}) > 1
    sides = {np.argwhere(case.labels > 0)[:, 2].mean() > 25 for case in cases()}
    assert sides == {True, False}


def test_edema_prefers_white_matter():
    healthy = anatomy.deform_anatomy(heads_and_gliomas()[5][0], Grid(3))
    white = healthy.tissues[1][healthy.brain].mean()
    shares = []
    for case, (head, glioma) in zip(cases(), heads_and_gliomas(), strict=True):
        tissues = anatomy.deform_anatomy(head, Grid(3), glioma.foci, glioma.push).tissues
        shares.append(tissues[1][case.labels[:, ::-1, ::-1] == 2].mean())
    assert np.mean(shares) > white + 0.15


def test_anatomy_is_fractions_that_sum_to_one_inside_the_brain():
    tissue = anatomy.deform_anatomy(anatomy.draw_head(np.random.default_rng(3)), Grid(3))
    total = tissue.tissues.sum(axis=0)
    np.testing.assert_allclose(total[tissue.brain], 1, atol=1e-5)
    assert not total[~tissue.brain].any()
    gray, white, csf = tissue.tissues[:, tissue.brain].mean(axis=1)
    assert gray > white > csf > 0.05


def test_noise_has_unit_variance_and_does_not_depend_on_the_grid():
    rng = np.random.default_rng(0)
    noise = SmoothNoise.draw(rng, 9)
    fine, coarse = noise.on(Grid(1)), noise.on(Grid(3))
    assert fine.std() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(fine[1::3, 1::3, 1::3], coarse, atol=1e-4)


# Signals


def test_spin_echo_equals_the_value_by_hand():
    sequence = mri.Sequence(repetition_time=500, echo_time=20)
    one = [np.array([value], dtype=np.float64) for value in (1000, 100, 0.8)]
    # 0.8 * (1 - exp(-0.5)) * exp(-0.2) = 0.8 * 0.3934693 * 0.8187308
    assert mri.spin_echo(*one, sequence)[0] == pytest.approx(0.2577165, abs=1e-6)


def test_a_spin_echo_after_inversion_equals_the_value_by_hand_and_is_a_magnitude():
    one = [np.array([value], dtype=np.float64) for value in (1000, 100, 1.0)]
    late, early = mri.Sequence(4000, 100, 2000), mri.Sequence(4000, 100, 100)
    # |1 - 2 exp(-2) + exp(-4)| exp(-1) = 0.7476450 * 0.3678794, and |1 - 2 exp(-0.1) + exp(-4)| exp(-1)
    assert mri.spin_echo(*one, late)[0] == pytest.approx(0.2750433, abs=1e-6)
    assert mri.spin_echo(*one, early)[0] == pytest.approx(0.2911248, abs=1e-6)


def test_nulling_time_nulls():
    time = mri.nulling_time(4300, 9000)
    sequence = mri.Sequence(9000, 100, time)
    assert time == pytest.approx(2480.6, abs=1)
    assert mri.spin_echo(np.array([4300.0]), np.array([2000.0]), np.array([1.0]), sequence) < 1e-9


def test_contrast_agent_shortens_t1():
    # 1 / (1/1000 + 5 * 0.5/1000) = 1000 / 3.5
    assert mri.shorten(np.array([1000.0]), 5.0, np.array([0.5]))[0] == pytest.approx(285.714, abs=1e-3)
    assert mri.shorten(np.array([1000.0]), 5.0, np.array([0.0]))[0] == pytest.approx(1000)


def pure_signals(rng):
    """Signal of each pure tissue in each modality, without texture: name -> (FLAIR, T1, T1ce, T2)."""
    n = len(mri.TISSUES)
    tissues, flat = mri.draw_tissues(rng), (np.zeros(n, np.float32),) * 2
    signals = [mri.acquire(np.eye(n, dtype=np.float32), tissues, s, flat) for s in mri.draw_sequences(rng)]
    return dict(zip(mri.TISSUES, np.transpose(signals), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_tissue_order_is_right_in_every_sequence(seed):
    s = pure_signals(np.random.default_rng(seed))
    assert s["white"][T1] > s["gray"][T1] > s["csf"][T1]
    assert s["csf"][T2] > s["gray"][T2] > s["white"][T2]
    assert s["gray"][FLAIR] > s["white"][FLAIR] > 3 * s["csf"][FLAIR]
    assert s["white"][T1CE] > s["gray"][T1CE] > s["csf"][T1CE]
    assert s["edema"][FLAIR] > s["gray"][FLAIR]
    assert s["edema"][T2] > s["gray"][T2]
    assert s["edema"][T1] < s["white"][T1]
    assert s["enhancing"][T1CE] > 1.15 * s["white"][T1CE]
    assert s["enhancing"][T1] < s["white"][T1]


def test_partial_volume_is_the_mean_of_the_signals():
    tissues, sequence = tuple(mri.TISSUES.values()), mri.Sequence(500, 10)
    fractions = np.eye(len(tissues), dtype=np.float32)[:, :2]
    flat = (np.zeros(2, np.float32),) * 2
    pure = mri.acquire(fractions, tissues, sequence, flat)
    mixed = mri.acquire(fractions @ np.float32([[0.25], [0.75]]), tissues, sequence, (flat[0][:1],) * 2)
    assert mixed[0] == pytest.approx(0.25 * pure[0] + 0.75 * pure[1], rel=1e-5)


def test_rician_noise_has_the_mean_of_rayleigh_without_signal_and_is_gaussian_with_much():
    noise = np.random.default_rng(0).standard_normal((2, 200_000))
    silent = mri.add_rician_noise(np.zeros(200_000), 2.0, noise)
    assert silent.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)
    loud = mri.add_rician_noise(np.full(200_000, 100.0), 2.0, noise)
    assert loud.mean() == pytest.approx(100 + 2**2 / (2 * 100), abs=0.02)
    assert loud.std() == pytest.approx(2, rel=0.02)


# Contrast


def contrast_by_trying(values, positive):
    """AUC by counting pairs, and the best Dice by trying every threshold."""
    pairs = [(p > n) + 0.5 * (p == n) for p in values[positive] for n in values[~positive]]
    scores = []
    for threshold in np.unique(values):
        for chosen in (values >= threshold, values <= threshold):
            scores.append(2 * (chosen & positive).sum() / (chosen.sum() + positive.sum()))
    return np.mean(pairs), max(scores)


def test_contrast_of_each_region_with_the_rest_of_the_brain_by_trying():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 9, (2, 5, 5, 5)).astype(np.float32)
    labels = rng.integers(0, 4, (5, 5, 5)).astype(np.uint8)
    brain = (images > 0).any(axis=0)
    measured = measure_contrast(images, labels)
    for index, members in enumerate(REGIONS.values()):
        positive = np.isin(labels[brain], members)
        for modality in range(2):
            expected = contrast_by_trying(images[modality][brain], positive)
            assert measured[:, modality, index] == pytest.approx(expected)


def test_a_region_that_is_not_there_has_no_contrast():
    images = np.arange(1, 28, dtype=np.float32).reshape(1, 3, 3, 3)
    assert np.isnan(measure_contrast(images, np.zeros((3, 3, 3), np.uint8))).all()
    everywhere = measure_contrast(images, np.full((3, 3, 3), 3, np.uint8))
    assert np.isnan(everywhere[0]).all()
    assert everywhere[1, 0, ENHANCING] == 1


def test_contrast_table_leaves_out_cases_without_the_region(tmp_path):
    measured = np.full((2, 2, 1, 4), 0.25)
    measured[0, :, 0, ENHANCING] = np.nan
    measured[1, 0, 0, ENHANCING] = 0.75
    write_contrast_table(tmp_path / "contrast.csv", measured, ["T1ce"])
    table = format_contrast_table(tmp_path / "contrast.csv")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert ["enhancing tumor", "T1ce", "1", "0.750", "0.750", "0.750", "0.250"] in rows
    assert ["edema", "T1ce", "2", "0.250", "0.250", "0.250", "0.250"] in rows


def test_edema_is_clear_in_flair_and_t2_and_nearly_absent_in_t1():
    auc = mean_contrast()[0][:, EDEMA]
    assert 0.85 < auc[FLAIR] < 0.97
    assert 0.65 < auc[T2] < 0.9
    assert 0.35 < auc[T1] < 0.7


def test_rim_is_clear_only_in_t1ce():
    auc = mean_contrast()[0][:, ENHANCING]
    assert 0.88 < auc[T1CE] < 0.98
    assert max(auc[FLAIR], auc[T1], auc[T2], 1 - auc[T1]) < auc[T1CE] - 0.1


def test_no_single_voxel_threshold_comes_near():
    assert np.nanmax(mean_contrast()[1]) < 0.7


# The data set


def test_dataset_is_one_that_nnunet_accepts(tmp_path):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 1, seed=0))
    assert folder.name == "Dataset007_GliomaPhantom"
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert list(description["channel_names"].values()) == ["FLAIR", "T1", "T1ce", "T2"]
    manager = LabelManager(description["labels"], description["regions_class_order"])
    assert manager.foreground_regions == [(1, 2, 3), (1, 3), 3]
    files = get_filenames_of_train_images_and_targets(str(folder), description)
    assert list(files) == ["glioma_0000"]
    assert len(files["glioma_0000"]["images"]) == 4
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == [
        f"glioma_test_0000_000{channel}.nii.gz" for channel in range(4)
    ]
    assert (folder / "labelsTs" / "glioma_test_0000.nii.gz").is_file()
    assert (folder / "contrast.csv").is_file()

    label = voxels(folder / "labelsTr" / "glioma_0000.nii.gz")
    np.testing.assert_array_equal(label.T, cases()[0].labels)
    for channel in range(4):
        path = folder / "imagesTr" / f"glioma_0000_{channel:04d}.nii.gz"
        np.testing.assert_array_equal(voxels(path).T, cases()[0].images[channel])


def test_regions_survive_nnunets_way_back_from_regions_to_labels():
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    description = dataset.describe_dataset(PhantomSpec(7, 1, 0))
    manager = LabelManager(description["labels"], description["regions_class_order"])
    labels = cases()[1].labels
    regions = np.stack([np.isin(labels, region) for region in manager.foreground_regions]).astype(np.float32)
    np.testing.assert_array_equal(manager.convert_probabilities_to_segmentation(regions), labels)
    assert np.all(regions[0] >= regions[1])
    assert np.all(regions[1] >= regions[2])


def test_geometry_is_the_same_for_all_files_and_in_mni_space(tmp_path, quick):
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    affines = [nibabel.load(path).affine for path in folder.rglob("*.nii.gz")]
    assert len(affines) == 5
    for affine in affines:
        np.testing.assert_array_equal(affine, affines[0])
    # The voxel that holds the anterior commissure: template position 0 mm in every axis.
    index = np.linalg.solve(affines[0], (0, 0, 0, 1))[:3]
    z, y, x = ((72, 134, 98) - anatomy._CORNER - 1) / 3
    np.testing.assert_allclose(index, (49 - x, 61 - y, z))


def test_cases_lie_as_those_of_brats(tmp_path):
    """Headers and voxels: nnU-Net's reader gives the axes to the top, the back and the patient's left."""
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    path = folder / "imagesTr" / "glioma_0000_0000.nii.gz"
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == ("L", "P", "S")
    voxels, properties = SimpleITKIO().read_images([str(path)])
    assert properties["sitk_stuff"]["direction"] == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    head, glioma = heads_and_gliomas()[0]
    brain = anatomy.deform_anatomy(head, Grid(3), glioma.foci, glioma.push).brain  # RAS, as the template
    np.testing.assert_array_equal(voxels[0] > 0, brain[:, ::-1, ::-1])
    template = anatomy.nilearn_folder() / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    placed = sitk.GetArrayFromImage(sitk.Resample(sitk.ReadImage(template), sitk.ReadImage(path))) > 0
    overlap = {
        axis: 2 * (np.flip(placed, axis) & brain[:, ::-1, ::-1]).sum() / (placed.sum() + brain.sum())
        for axis in ((), 0, 1)
    }
    assert overlap[()] > 0.85
    assert max(overlap[0], overlap[1]) < overlap[()] - 0.03


def test_a_case_does_not_depend_on_the_number_of_cases(tmp_path, quick):
    few = write_phantom(tmp_path / "few", PhantomSpec(7, 2, 1))
    many = write_phantom(tmp_path / "many", PhantomSpec(7, 4, 2))
    common = {name: data for name, data in snapshot(few).items() if name.suffix == ".gz"}
    assert len(common) == 3 * 5
    assert {name: snapshot(many)[name] for name in common} == common
    assert len(set(quick[3:])) == 6


@pytest.mark.slow
def test_processes_do_not_change_a_voxel(tmp_path):
    one = write_phantom(tmp_path / "one", PhantomSpec(7, 1, 1, seed=2))
    two = write_phantom(tmp_path / "two", PhantomSpec(7, 1, 1, seed=2), processes=2)
    assert snapshot(one) == snapshot(two)


def test_an_existing_folder_is_refused_and_stays_as_it_is(tmp_path, quick):
    folder = tmp_path / "Dataset007_GliomaPhantom"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep", encoding="utf-8")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"exists.*--resume"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    with pytest.raises(UserError, match=r"phantom\.json cannot be read .*nothing to resume"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0), resume=True)
    assert snapshot(tmp_path) == before
    assert not quick


def test_a_number_taken_by_another_data_set_is_refused(tmp_path, quick):
    (tmp_path / "Dataset007_Other").mkdir()
    with pytest.raises(UserError, match="Dataset007_Other has the number 7"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0), resume=True)
    assert not (tmp_path / "Dataset007_GliomaPhantom").exists()


def test_resume_completes_an_interrupted_data_set_and_repeats_nothing(tmp_path, quick, monkeypatch):
    spec = PhantomSpec(7, 3, 1)
    whole = snapshot(write_phantom(tmp_path / "whole", spec))
    quick.clear()
    stop, simulate = tmp_path / "stopped", dataset.simulate_case

    def interrupted(size, seed):
        if len(quick) == 2:
            raise KeyboardInterrupt
        return simulate(size, seed)

    monkeypatch.setattr(dataset, "simulate_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(stop, spec)
    folder = stop / spec.folder_name
    assert not (folder / "dataset.json").exists()
    (folder / "labelsTr" / "glioma_0001.nii.gz").unlink()  # killed between its images and its label
    quick.clear()
    monkeypatch.setattr(dataset, "simulate_case", simulate)
    assert snapshot(write_phantom(stop, spec, resume=True)) == whole
    assert quick == [(0, 1), (0, 2), (1, 0)]


def test_resume_with_other_parameters_is_refused(tmp_path, quick):
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0, seed=1))
    before = snapshot(folder)
    with pytest.raises(UserError, match="says seed 1, not 2"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0, seed=2), resume=True)
    assert snapshot(folder) == before


def test_a_full_disk_is_one_clear_line(tmp_path, quick, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset.nibabel, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*--resume") as caught:
        write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    assert "\n" not in str(caught.value)
    assert [path.name for path in snapshot(tmp_path)] == ["phantom.json"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [write_phantom, lambda folder, spec, **how: write_source(folder, "brats2018", spec, **how)]
)
def test_a_killed_process_is_one_line_and_leaves_nothing(tmp_path, quick, kill_a_worker, write):
    spec = PhantomSpec(7, 2, 1)
    kill_a_worker()
    with pytest.raises(UserError, match="a process was killed") as caught:
        write(tmp_path, spec, processes=2)
    assert "\n" not in str(caught.value)
    write(tmp_path, spec, resume=True)
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 3 * 5
    assert not list(tmp_path.rglob(".*"))


def test_two_at_a_time_are_refused(tmp_path, quick):
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    with locked(folder / LOCK), pytest.raises(UserError, match="another process holds"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0), resume=True)
    with locked(tmp_path / "source" / LOCK), pytest.raises(UserError, match="another process holds"):
        write_source(tmp_path / "source", "brats2018", PhantomSpec(7, 1, 0))
    assert write_phantom(tmp_path, PhantomSpec(7, 1, 0), resume=True) == folder


def test_a_damaged_case_is_named(tmp_path, quick):
    folder = write_phantom(tmp_path, PhantomSpec(7, 1, 0))
    damaged = folder / "imagesTr" / "glioma_0000_0002.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match=r"glioma_0000_0002\.nii\.gz cannot be read .*remove it.*--resume"):
        write_phantom(tmp_path, PhantomSpec(7, 1, 0), resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_id": 0}, "-d between 1 and 999"),
        ({"dataset_id": 1000}, "-d between 1 and 999"),
        ({"n_train": 0}, "--train"),
        ({"n_test": -1}, "--test"),
        ({"size": "huge"}, "--size from small, medium, large"),
        ({"seed": -1}, "--seed"),
        ({"name": "../x"}, "--name"),
    ],
)
def test_bad_parameters_are_refused_with_the_remedy(change, message):
    with pytest.raises(UserError, match=message):
        PhantomSpec(**({"dataset_id": 7, "n_train": 1, "n_test": 0} | change))


def test_nilearn_missing_is_one_line_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(anatomy, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install nilearn"):
        anatomy._read_map("gm")


# The command


def parse(*words):
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_command_writes_and_prints_the_table(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    arguments = parse("-d", "7", "--train", "2", "--test", "1", "-np", "1")
    assert command.run(arguments, []) == 0
    printed = capsys.readouterr().out
    assert "2 training cases and 1 test case" in printed
    assert printed.count("\n|") == 2 + 4 * 4
    with pytest.raises(UserError, match="exists"):
        command.run(arguments, [])


def test_command_refuses_what_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(UserError, match="-np 0"):
        command.run(parse("-d", "7", "-np", "0"), [])
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    (tmp_path / "results" / "Dataset007_Other").mkdir(parents=True)
    with pytest.raises(UserError, match="Dataset007_Other"):
        command.run(parse("-d", "7"), [])
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(UserError, match="nnUNet_raw is not set"):
        command.run(parse("-d", "7"), [])
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
