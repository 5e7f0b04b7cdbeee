"""The page of real patients, typed as it stands, on patients that a variable names; only the training is shorter."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.plugin.registration import trainers_folder
from nnunetv2_d2net.study.scores.tables import subset_order
from tests.pages import DOCS, blocks_of

REAL = os.environ.get("D2NET_REAL_PATIENTS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="D2NET_REAL_PATIENTS names no folder of real patients"),
]

TRAINER = """
from nnunetv2_d2net.plugin.training.demo import D2NetTrainerDemo


class BriefTrainer(D2NetTrainerDemo):
    n_epochs, n_iterations = 1, 6

    def on_train_start(self):
        super().on_train_start()
        self.num_val_iterations_per_epoch = 1
"""


class Kind(NamedTuple):
    """One kind of patients, as the page names them: the last one is for testing."""

    folder: str
    dataset: str
    images: Sequence[str]
    label: str
    modalities: Sequence[str]
    regions: Sequence[str]
    values: set[int]


KINDS = (
    Kind(
        "glioma",
        "Dataset021_Glioma",
        ("flair", "t1ce"),
        "seg",
        ("FLAIR", "T1ce"),
        ("whole tumor", "tumor core", "enhancing tumor"),
        {0, 1, 2, 3},
    ),
    Kind(
        "lesions",
        "Dataset022_Lesions",
        ("flair", "t1", "t1_post", "t2"),
        "lesions",
        ("FLAIR", "T1", "T1ce", "T2"),
        ("lesion",),
        {0, 1},
    ),
)


class Done(NamedTuple):
    """What the commands have left."""

    kind: Kind
    root: Path
    patients: list[Path]

    @property
    def tested(self) -> Path:
        return self.patients[-1]

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / self.kind.dataset


def patients_of(kind: Kind) -> list[Path]:
    """Folders that hold just the files of such a patient."""
    wanted = {f"{name}.nii.gz" for name in (*kind.images, kind.label)}
    folders = {path.parent for path in Path(REAL or "").rglob(f"{kind.label}.nii.gz")}
    return sorted(folder for folder in folders if {path.name for path in folder.iterdir()} == wanted)


def typed(kind: Kind, root: Path) -> None:
    """Write the page's files and type its commands, in a shell where nothing is set but where our trainer is."""
    blocks = blocks_of(DOCS / "real_patients.md")
    for block in blocks:
        if block.language == "yaml":
            (root / block.text.split()[1]).write_text(block.text, encoding="utf-8")
    commands = [block.text for block in blocks if block.language == "sh"]
    exports = commands[0].splitlines()[0]
    (mine,) = (text for text in commands if f"convert {kind.folder}/" in text)
    (root / "trainers").mkdir()
    (root / "trainers" / "brief.py").write_text(TRAINER, encoding="utf-8")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(root),
        "OMP_NUM_THREADS": "1",
        "nnUNet_extTrainer": f"{trainers_folder()}{os.pathsep}{root / 'trainers'}",
    }
    text = f"{exports}\n{mine}".replace("D2NetTrainerDemo", "BriefTrainer")
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.folder)
def done(request, tmp_path_factory):
    kind, root = request.param, tmp_path_factory.mktemp(request.param.folder)
    patients = patients_of(kind)
    if len(patients) < 2:
        pytest.skip(f"{REAL} holds no two patients with {', '.join(kind.images)} and {kind.label}")
    for patient in patients:
        place = root / kind.folder / ("test" if patient == patients[-1] else "training")
        place.mkdir(parents=True, exist_ok=True)
        (place / patient.name).symlink_to(patient)
    typed(kind, root)
    return Done(kind, root, patients)


def test_the_data_set_holds_what_the_patients_have_and_nothing_else(done):
    content = json.loads((done.raw / "dataset.json").read_text(encoding="utf-8"))
    assert tuple(content["channel_names"].values()) == done.kind.modalities
    assert tuple(content["labels"]) == ("background", *done.kind.regions)
    for split, patients in (("Tr", done.patients[:-1]), ("Ts", done.patients[-1:])):
        names = {f"{p.name}_{m:04d}.nii.gz" for p in patients for m in range(len(done.kind.modalities))}
        assert {path.name for path in (done.raw / f"images{split}").iterdir()} == names
        assert {path.name for path in (done.raw / f"labels{split}").iterdir()} == {f"{p.name}.nii.gz" for p in patients}
    summary = (done.root / done.kind.folder / "inspect" / "summary.md").read_text(encoding="utf-8")
    assert all(modality in summary for modality in done.kind.modalities)


def test_every_subset_has_a_segmentation_on_the_patients_own_grid(done):
    predictions, subsets = done.root / done.kind.folder / "predictions", subset_order(done.kind.modalities)
    folders = {path.name for path in predictions.iterdir() if path.is_dir()} - {"evaluation"}
    assert folders == set(subsets)
    own = sitk.ReadImage(str(done.tested / f"{done.kind.images[0]}.nii.gz"))
    for subset in subsets:
        found = sitk.ReadImage(str(predictions / subset / f"{done.tested.name}.nii.gz"))
        assert found.GetSize() == own.GetSize()
        assert found.GetSpacing() == pytest.approx(own.GetSpacing())
        assert found.GetOrigin() == pytest.approx(own.GetOrigin(), abs=1e-3)
        assert found.GetDirection() == pytest.approx(own.GetDirection(), abs=1e-5)
        assert set(np.unique(sitk.GetArrayViewFromImage(found))) <= done.kind.values
        note = predictions / subset / f"{done.tested.name}.modalities.json"
        absent = json.loads(note.read_text(encoding="utf-8"))["absent modalities"]
        assert set(absent) == set(done.kind.modalities) - set(subset.split("+"))


@pytest.mark.parametrize("table", ["predictions/evaluation/metrics.csv", "benchmark/BriefTrainer/metrics.csv"])
def test_every_subset_and_region_is_scored(done, table):
    with (done.root / done.kind.folder / table).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {(done.tested.name, s, r) for s in subset_order(done.kind.modalities) for r in done.kind.regions}
    assert {(row["case"], row["subset"], row["region"]) for row in rows} == expected
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


def test_the_report_says_how_few_they_are_and_names_no_other_modality(done):
    for name in ("report.md", "report.html"):
        text = (done.root / done.kind.folder / "benchmark" / name).read_text(encoding="utf-8")
        assert "1 case: enough to see that it runs, too few to say how good it is." in text
        assert "One training does not say what the next one would give" in text
    markdown = (done.root / done.kind.folder / "benchmark" / "report.md").read_text(encoding="utf-8")
    header = [line.split("|")[1].strip() for line in markdown.splitlines() if "○" in line or "●" in line]
    assert header
    assert set(header) == set(done.kind.modalities)
