"""Phantom cases in the folders of BraTS, and the share of their images that is left out."""

import json

import numpy as np
import pytest

pytest.importorskip("nilearn")

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.layouts import find_cases, layout_of
from nnunetv2_d2net.data.phantom import dataset
from nnunetv2_d2net.data.phantom.case import PhantomCase
from nnunetv2_d2net.data.phantom.dataset import CaseKey, PhantomSpec, write_phantom
from nnunetv2_d2net.data.phantom.source_layout import write_source
from tests.unit.data.convert.source_folders import voxels


@pytest.fixture
def simulated(monkeypatch):
    """Replace the simulation: even cases have enhancing tumor, odd ones have none."""
    calls = []

    def simulate(size, seed):
        calls.append(seed.spawn_key)
        images = np.random.default_rng(seed).integers(1, 99, (4, 4, 5, 6)).astype(np.float32)
        labels = (np.arange(120, dtype=np.uint8) % (4 - seed.spawn_key[1] % 2)).reshape(4, 5, 6)
        return PhantomCase(images, labels)

    monkeypatch.setattr(dataset, "simulate_case", simulate)
    return calls


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("layout", "enhancing"), [("brats2018", 4), ("brats2023", 3)])
def test_converters_recognize_the_layout(tmp_path, simulated, layout, enhancing):
    write_source(tmp_path / "out", layout, PhantomSpec(1, 2, 1))
    source = tmp_path / "out" / "training"
    assert layout_of(source).name == layout
    found = find_cases(layout_of(source), source, tmp_path / "out" / "test")
    assert [(case.split, len(case.images), case.label is not None) for case in found.cases] == [
        ("Tr", 4, True),
        ("Tr", 4, True),
        ("Ts", 4, True),
    ]
    assert not found.problems
    assert not found.stray
    assert np.unique(voxels(found.cases[0].label)).tolist() == [0, 1, 2, enhancing]
    assert np.unique(voxels(found.cases[1].label)).tolist() == [0, 1, 2]
    flair, t2 = (voxels(found.cases[0].images[name].path) for name in ("FLAIR", "T2"))
    expected = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, 0))).integers(1, 99, (4, 4, 5, 6))
    np.testing.assert_array_equal(flair, expected[0])
    np.testing.assert_array_equal(t2, expected[3])
    if layout == "brats2018":
        assert [case.label.parts[-3] for case in found.cases[:2]] == ["HGG", "LGG"]


def kept(n_cases, share, seed=0):
    spec = PhantomSpec(1, n_cases, 1, seed=seed, missing=share)
    assert spec.kept(CaseKey("Ts", 0)) == (True,) * 4
    return np.array([spec.kept(CaseKey("Tr", number)) for number in range(n_cases)])


def test_the_share_is_exact_every_case_keeps_one_and_the_seed_decides():
    drawn = kept(60, 0.2)
    assert (~drawn).sum() == 48
    np.testing.assert_array_equal(drawn, kept(60, 0.2))
    assert not np.array_equal(drawn, kept(60, 0.2, seed=1))
    assert 5 <= (~drawn).sum(0).min() <= (~drawn).sum(0).max() <= 20  # no modality is spared
    assert kept(20, 0.75, seed=3).sum(1).tolist() == [1] * 20
    assert kept(5, 0.0).all()


def test_missing_images_of_a_data_set(tmp_path, simulated):
    spec = PhantomSpec(7, 10, 2, missing=0.3)
    folder = write_phantom(tmp_path / "a", spec)
    assert len(list((folder / "imagesTr").iterdir())) == 40 - 12
    assert len(list((folder / "imagesTs").iterdir())) == 8
    assert len(list((folder / "labelsTr").iterdir())) == 10
    assert json.loads((folder / "phantom.json").read_text(encoding="utf-8"))["missing"] == 0.3
    whole = contents(write_phantom(tmp_path / "b", PhantomSpec(7, 10, 2)))
    assert "missing" not in json.loads(whole["phantom.json"])
    left = contents(folder)
    assert {name for name, data in left.items() if whole[name] != data} == {"phantom.json"}
    again = write_phantom(tmp_path / "c", spec)
    assert contents(again) == left


def test_resuming_never_fills_in_what_is_missing(tmp_path, simulated):
    incomplete = write_phantom(tmp_path / "a", PhantomSpec(7, 4, 0, missing=0.5))
    before = contents(incomplete)
    with pytest.raises(UserError, match=r"says missing 0\.5, not 0\.0"):
        write_phantom(tmp_path / "a", PhantomSpec(7, 4, 0), resume=True)
    write_phantom(tmp_path / "a", PhantomSpec(7, 4, 0, missing=0.5), resume=True)
    assert contents(incomplete) == before
    write_phantom(tmp_path / "b", PhantomSpec(7, 4, 0))
    with pytest.raises(UserError, match=r"says missing 0\.0, not 0\.5"):
        write_phantom(tmp_path / "b", PhantomSpec(7, 4, 0, missing=0.5), resume=True)


def test_source_folders_are_resumed_and_nothing_is_repeated(tmp_path, simulated, monkeypatch):
    spec, out = PhantomSpec(1, 3, 1, missing=0.2), tmp_path / "out"
    write_source(tmp_path / "whole", "brats2018", spec)
    simulate = dataset.simulate_case

    def interrupted(size, seed):
        if len(simulated) == 2:
            raise KeyboardInterrupt
        return simulate(size, seed)

    simulated.clear()
    monkeypatch.setattr(dataset, "simulate_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_source(out, "brats2018", spec)
    monkeypatch.setattr(dataset, "simulate_case", simulate)
    simulated.clear()
    with pytest.raises(UserError, match=r"exists: choose another -o.*--resume"):
        write_source(out, "brats2018", spec)
    write_source(out, "brats2018", spec, resume=True)
    assert simulated == [(0, 2), (1, 0)]
    assert contents(out) == contents(tmp_path / "whole")
    with pytest.raises(UserError, match="says layout 'brats2018', not 'brats2023'"):
        write_source(out, "brats2023", spec, resume=True)


@pytest.mark.parametrize("share", [-0.1, 0.8, float("nan")])
def test_a_share_that_cannot_be(share):
    with pytest.raises(UserError, match=r"--missing from 0 to 0\.75"):
        PhantomSpec(7, 1, 0, missing=share)
