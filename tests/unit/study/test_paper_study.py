"""A study is a benchmark of the rows' trainers; its tables grow row by row."""

import csv
import json
from pathlib import Path

import pytest

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.study import paper_study
from nnunetv2_d2net.study.scores.metrics import CaseScore
from tests.conftest import RawDataset, nnunet_environment, write_raw_dataset

SPEC = RawDataset(
    812, "Rows", (6, 6, 6), (1.0, 1.0, 1.0), ("T1", "T2"), {"background": 0, "lesion": 1}, n_train=5, n_test=0
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Call the command; a benchmark that finds 0.5 everywhere stands in for trainings, and is remembered."""
    seen = []

    def benchmark(setup, **how):
        seen.append((setup, how))
        for arm in setup.arms:
            (setup.out / arm).mkdir(parents=True, exist_ok=True)
            rows = [["a", subset, "lesion", 0.5, 1, 1, 1, 5, 5] for subset in ("T1", "T2", "T1+T2")]
            with (setup.out / arm / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([CaseScore._fields, *rows])

    monkeypatch.setattr(paper_study, "run_benchmark", benchmark)
    with nnunet_environment(tmp_path):
        raw = write_raw_dataset(tmp_path / "raw", SPEC)
        preprocessed = tmp_path / "preprocessed" / raw.name
        preprocessed.mkdir(parents=True, exist_ok=True)
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
        splits = [{"train": [c for c in cases if c != case], "val": [case]} for case in cases[:3]]
        (preprocessed / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
        words = ["-d", str(SPEC.dataset_id), "-o", str(tmp_path / "out"), "-device", "cpu"]
        yield lambda *more: main(["study", *more, *words]), seen, tmp_path / "out"


def test_rows_become_arms_with_all_that_was_asked_for(study, capsys):
    call, seen, out = study
    how = ["--epochs", "5", "-c", "2d", "-p", "D2NetSmallPlans", "-np", "3", "--jobs", "2", "--disable_tta"]
    assert call("III", "--rows", "2 positives", "48 negatives", "1 positive", *how) == 0
    ((setup, passed),) = seen
    assert setup.arms == ("D2NetTrainerPaper_5epochs", "D2NetTrainerPaperPositives2_5epochs")  # each once
    assert (setup.folds, setup.cases, setup.plans) == (("0", "1", "2"), "folds", "D2NetSmallPlans")
    assert (setup.configuration, setup.processes, setup.mirroring, setup.device) == ("2d", 3, False, "cpu")
    assert passed == {"n_jobs": 2, "cost": False, "progress": True}
    printed = capsys.readouterr().out
    assert "| 2 positives   | D2NetTrainerPaperPositives2   | 50.0   | 77.4" in printed
    assert "Dataset812_Rows, validation cases of the folds (0, 1, 2, of 3); D2NetSmallPlans, 2d; 5 passes" in printed
    assert (out / "Table_III.md").read_text(encoding="utf-8") in printed


def test_a_table_keeps_the_rows_that_another_call_has_measured(study):
    call, seen, out = study
    for row in ("sc", "fc"):
        assert call("II", "--epochs", "1", "--rows", row) == 0
    assert [setup.arms for setup, _ in seen] == [
        ("D2NetTrainerPaperOnlySC_1epoch",),
        ("D2NetTrainerPaperOnlyFC_1epoch",),
    ]
    assert seen[0][0].out == seen[1][0].out
    measured = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in table_lines(out / "Table_II.md")}
    assert [row for row, dice in measured.items() if dice == "50.0"] == ["sc", "fc"]
    assert list(measured.values()).count("-") == 6
    assert call("II", "--rows", "sc") == 0  # of another length
    assert all(
        line.split("|")[3].strip() == ("50.0" if "| sc  " in line else "-") for line in table_lines(out / "Table_II.md")
    )


def table_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]


def test_jobs_for_a_cluster_are_those_of_a_benchmark(study, capsys):
    call, seen, _ = study
    assert call("fig8", "--rows", "rec 2", "-f", "0", "--print_jobs") == 0
    assert not seen
    line = next(line for line in capsys.readouterr().out.splitlines() if line.endswith("--job D2NetTrainerPaperRec2/0"))
    assert "--arms D2NetTrainerPaperRec2 " in line


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--rows", "sc"], 2, "name a table and, by -d, a data set; or pass --list"),
        (["II", "--rows", "sd"], 1, "no row is called so"),
        (["II", "--epochs", "7"], 1, "no training of 7 passes"),
        (["II", "--cases", "test"], 1, "lacks images in imagesTs"),
        (["II", "-np", "0"], 2, "-np"),
    ],
)
def test_bad_words_are_refused_in_one_line(study, words, status, said, capsys):
    call, seen, _ = study
    assert call(*words) == status
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not seen
