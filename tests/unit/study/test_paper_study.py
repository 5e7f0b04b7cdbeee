"""A study is a benchmark of the rows' trainers; its tables grow row by row."""

import csv
import json
from pathlib import Path

import pytest

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.training.paper import ROWS
from nnunetv2_d2net.study import paper_study
from nnunetv2_d2net.study.scores.metrics import CaseScore
from tests.conftest import RawDataset, nnunet_environment, write_raw_dataset
from tests.unit.plugin.preprocessing.conftest import build_plans

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
    monkeypatch.setattr(paper_study, "prepare_benchmark", lambda setup, **how: None)
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


@pytest.fixture
def planned(study):
    """Write plans with a network of so many stages."""

    def plan(n_stages):
        plans = build_plans(["ZScoreNormalization"] * 2).plans
        plans["configurations"]["3d_fullres"] = plans["configurations"].pop("tiny")
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(
            n_stages=n_stages,
            features_per_stage=[4] * n_stages,
            kernel_sizes=[[3] * 3] * n_stages,
            strides=[[1] * 3, *[[2] * 3] * (n_stages - 1)],
            n_conv_per_stage=[1] * n_stages,
            n_conv_per_stage_decoder=[1] * (n_stages - 1),
        )
        path = study[2].parent / "preprocessed" / SPEC.folder_name / "D2NetPaperPlans.json"
        path.write_text(json.dumps(plans), encoding="utf-8")

    return plan


@pytest.mark.parametrize(
    ("n_stages", "levels", "why"),
    [
        (7, 6, None),
        (6, 5, "6 levels, cannot be built and is left out: plans TinyPlans: distilled_levels is 6, the teacher"),
        (4, 2, "3 levels, cannot be built and is left out: plans D2NetPaperPlans: the decoder has 2 levels below"),
    ],
)
def test_rows_that_the_plans_allow_no_network_for_are_told_and_left_out(study, planned, capsys, n_stages, levels, why):
    call, seen, out = study
    planned(n_stages)
    assert call("VI", "--epochs", "1") == 0
    told = capsys.readouterr()
    names = {4: "", 1: "Distilled1", 2: "Distilled2", 3: "Distilled3", 5: "Distilled5", 6: "Distilled6"}
    ((setup, _),) = seen
    assert set(setup.arms) == {f"D2NetTrainerPaper{names[n]}_1epoch" for n in range(1, levels + 1)}
    if why:
        assert f"d2net: Table VI, {why}" in told.err
    table = (out / "Table_VI.md").read_text(encoding="utf-8")
    assert table.count("(cannot be built)") == told.err.count("cannot be built") == 6 - levels
    assert table.count(" cannot be built with these plans: plans ") == 6 - levels
    assert [line.split("|")[3].strip() for line in table_lines(out / "Table_VI.md")] == ["50.0"] * levels + ["-"] * (
        6 - levels
    )


def test_nothing_is_trained_or_listed_where_no_row_can_be_built(study, planned, capsys):
    call, seen, out = study
    planned(6)
    for more in ([], ["--print_jobs"]):
        assert call("VI", "--rows", "6 levels", *more) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith("d2net: error: 1 row asked for, none can be built")
    assert not seen
    assert not (out / "Table_VI.md").exists()
    assert call("VI", "--print_jobs") == 0
    told = capsys.readouterr()
    assert "Distilled5/0" in told.out
    assert "Distilled6" not in told.out


def test_all_other_rows_can_be_built_with_plans_of_four_stages(study, planned):
    call, seen, _ = study
    planned(4)
    assert call("all", "--epochs", "1") == 0
    left_out = {"Distilled3", "Distilled5", "Distilled6"}
    expected = {f"{row.trainer}_1epoch" for row in ROWS if row.variant not in left_out}
    assert set(seen[0][0].arms) == expected


def test_figure_8_is_drawn_from_what_has_been_measured(study, monkeypatch, capsys):
    call, _, out = study
    drawn = []
    monkeypatch.setattr(paper_study, "draw_weights", lambda path, curves: drawn.append((path, curves)))
    assert call("fig8", "--epochs", "1", "--rows", "rec 2", "rec 0") == 0
    assert call("fig8", "--epochs", "1", "--rows", "sc 1") == 0
    assert [path for path, _ in drawn] == [out / "Fig_8.png"] * 2
    assert drawn[0][1] == {"sc": {}, "fc": {}, "rec": {0.0: 50.0, 2.0: 50.0}, "kd_feature": {}, "kd_logit": {}}
    own = {1.0: 50.0}  # D2NetTrainerPaper itself is a point of every curve
    assert drawn[1][1] == {
        "sc": own,
        "fc": own,
        "rec": {0.0: 50.0, **own, 2.0: 50.0},
        "kd_feature": own,
        "kd_logit": own,
    }
    assert "The same as curves: Fig_8.png" in capsys.readouterr().out


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
