"""The last line of a command names the one that comes next, with what the user has named, as a shell takes it."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli._commands import COMMANDS
from nnunetv2_d2net.cli._nnunet_arguments import ARGUMENTS
from nnunetv2_d2net.cli.main import main, parser_of
from nnunetv2_d2net.plugin.planning import planner as planners

TOY = "Dataset007_Toy"
PLANNED = ("D2NetPlans", "D2NetSmallPlans", "D2NetPaperPlans", "D2NetWholeHeadPlans", "nnUNetPlans")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data set with test cases, planned and trained, in a folder whose name needs quotes."""
    root = tmp_path / "my data"
    root.mkdir()
    monkeypatch.chdir(root)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    monkeypatch.delenv("RANK", raising=False)
    raw = root / "raw" / TOY
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a", "imagesTs/b_0000", "labelsTs/b"):
        touch(raw / f"{name}.nii.gz")
    content = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    write(raw / "dataset.json", content)
    for plans in PLANNED:
        write(root / f"preprocessed/{TOY}/{plans}.json", {"configurations": {"2d": {}, "3d_fullres": {}}})
    write(root / "preprocessed/Dataset008_Few/D2NetPlans.json", {"configurations": {"3d_fullres": {}}})
    write(root / "preprocessed/Dataset008_Few/dataset.json", {"numTraining": 4})
    touch(root / f"results/{TOY}/D2NetTrainer__D2NetPlans__3d_fullres/plans.json")
    return root


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write(path, content):
    touch(path)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def after(place, monkeypatch, capsys):
    """Call a command that does nothing, and return what it says to do next."""

    def call(line, *, run=lambda args, extra: 0):
        words = shlex.split(line)
        monkeypatch.setattr(import_module(f"nnunetv2_d2net.cli.{words[0]}"), "run", run)
        main(words)
        told = [text for text in capsys.readouterr().err.splitlines() if "next:" in text]
        assert len(told) <= 1
        return told[0].removeprefix("d2net: next: ") if told else ""

    return call


def check_line(line):
    """See that the parsers take it as it stands; those of nnU-Net take what their arguments list."""
    for call in line.split(" && "):
        words = [word for word in shlex.split(call) if not re.match(r"\w+=", word)]
        assert words.pop(0) == "d2net"
        args, extra = parser_of(words[:1]).parse_known_args(words)
        assert hasattr(args, "run")
        handed_on = {flag for flag, _, _ in ARGUMENTS.get(COMMANDS[words[0]].nnunet, ())}
        sequences = {"--FLAIR", "--T1"} if words[0] == "segment" else set()
        assert {word for word in extra if word.startswith("-")} <= handed_on | sequences


RAW = f"'{{root}}/raw/{TOY}"


@pytest.mark.parametrize(
    ("line", "following"),
    [
        ("phantom -d 7", "d2net plan_and_preprocess -d 7"),
        ("phantom --layout brats2018 -o x", "d2net convert x/training --test x/test --check"),
        ("phantom --layout brats2018 -o 'x y' --test 0", "d2net convert 'x y/training' --check"),
        ("convert 'my exams' --check", ""),
        ("convert 'my exams' --check -d 7 --name Toy --link", "d2net convert 'my exams' -d 7 --name Toy --link"),
        ("convert exams -d 7 --name Toy", "d2net inspect -d 7"),
        ("inspect -d Dataset007_Toy", "d2net plan_and_preprocess -d Dataset007_Toy"),
        ("inspect -d 7 --split Ts", ""),
        ("extract_fingerprint -d 7 --clean", "d2net plan -d 7"),
        ("extract_fingerprint -d 7 8", ""),
        ("plan -d 7", "d2net preprocess -d 7 -plans_name D2NetPlans"),
        ("plan -d 7 -pl D2NetSmallPlanner", "d2net preprocess -d 7 -plans_name D2NetSmallPlans"),
        ("plan -d 7 -pl nnUNetPlannerResEncM", ""),  # nnU-Net knows its name
        ("plan -d 7 -pl ExperimentPlanner -overwrite_plans_name Own", "d2net preprocess -d 7 -plans_name Own"),
        ("preprocess -d 7", "d2net train 7 3d_fullres 0"),
        ("preprocess -d 7 -c 2d", "d2net train 7 2d 0"),
        ("preprocess -d 7 -plans_name nnUNetPlans", "d2net train 7 3d_fullres 0 -p nnUNetPlans"),
        ("preprocess -d 7 -plans_name NoSuchPlans", ""),
        ("plan_and_preprocess -d 7", "d2net train 7 3d_fullres 0"),
        ("preprocess -d 8", "d2net train 8 3d_fullres all"),  # too few for folds
        ("plan_and_preprocess -d 7 -c 2d 3d_fullres", "d2net train 7 3d_fullres 0"),
        ("plan_and_preprocess -d 7 --no_pp", "d2net preprocess -d 7 -plans_name D2NetPlans"),
        (
            "plan_and_preprocess -d 7 -pl D2NetPaperPlanner",
            "d2net train 7 3d_fullres 0 -p D2NetPaperPlans -tr D2NetTrainerPaper",
        ),
        ("plan_and_preprocess -d 7 -pl D2NetWholeHeadPlanner", "d2net train 7 3d_fullres 0 --start_from phantom"),
        ("train 7 3d_fullres 0", f"d2net predict -i {RAW}/imagesTs' -o predictions -d 7 -c 3d_fullres -f 0"),
        (
            "train -d 7 -c 2d -f all -tr nnUNetTrainer -p nnUNetPlans --npz",
            f"d2net predict -i {RAW}/imagesTs' -o predictions -d 7 -c 2d -f all -tr nnUNetTrainer -p nnUNetPlans",
        ),
        ("train 7 3d_fullres 0 --disable_checkpointing", ""),
        ("train 8 3d_fullres 0", ""),
        (
            "predict -i raw/Dataset007_Toy/imagesTs -o out -d 7 -c 3d_fullres",
            f"d2net evaluate -i out -r raw/{TOY}/labelsTs -m "
            f"'{{root}}/results/{TOY}/D2NetTrainer__D2NetPlans__3d_fullres'",
        ),
        (  # a model that is measured on what it was trained on would promise too much
            "predict -i raw/Dataset007_Toy/imagesTr -o 'an out' -d 7 -c 3d_fullres",
            f"d2net evaluate -i 'an out' -r raw/{TOY}/labelsTr",
        ),
        ("predict -i elsewhere -o out -d 7 -c 3d_fullres", ""),
        ("predict -i raw/Dataset007_Toy/imagesTs -o out -d 7 -c 3d_fullres -num_parts 2 -part_id 0", ""),
        (
            "benchmark -d 7 -c 2d --arms nnUNetTrainer -o 'bench 1'",
            "nnUNet_results='{root}/results_2' d2net benchmark -d 7 -c 2d --arms nnUNetTrainer -o 'bench 1_2' "
            "&& d2net repeats 'bench 1' 'bench 1_2'",
        ),
        ("benchmark -d 7 -c 2d --print_jobs", ""),
        ("benchmark -d 7 -c 2d --job D2NetTrainer/0", ""),
        ("study --list", ""),
        ("trainers", ""),
        ("evaluate -i out -r labels", ""),
    ],
)
def test_the_next_step_is_told(place, after, line, following):
    if line.startswith("benchmark"):
        (place / "bench 1").mkdir()
    told = after(line)
    assert told == following.replace("{root}", str(place))
    if told:
        check_line(told)


def test_nothing_is_told_after_an_error_with_q_or_by_another_process_of_a_training(after, monkeypatch):
    def fail(args, extra):
        raise UserError("no")

    line = "inspect -d 7"
    assert after(line)
    assert not after(line, run=fail)
    assert not after(line, run=lambda args, extra: 1)
    assert not after(f"{line} -q")
    monkeypatch.setenv("RANK", "1")
    assert not after(line)


def test_what_is_there_is_not_written_over_and_what_was_measured_stays(place, after):
    (place / "predictions").mkdir()
    (place / "predictions_2").mkdir()
    assert " -o predictions_3 " in after("train 7 3d_fullres 0")
    model = f"results/{TOY}/D2NetTrainer__D2NetPlans__3d_fullres"
    touch(place / model / "dice_by_subset.json")
    assert " -m " not in after("predict -i raw/Dataset007_Toy/imagesTs -o out -d 7 -c 3d_fullres")


def test_a_third_benchmark_is_compared_with_both(place, after, monkeypatch):
    for name in ("bench_1", "bench_2"):
        (place / name).mkdir()
    monkeypatch.setenv("nnUNet_results", str(place / "results_2"))
    told = after("benchmark -d 7 -c 2d -o bench_2 --seed 5")
    assert "d2net benchmark -d 7 -c 2d --seed 7 -o bench_3 && d2net repeats bench_1 bench_2 bench_3" in told
    assert told.startswith(f"nnUNet_results='{place}/results_3' ")
    check_line(told)


def test_a_companion_is_predicted_with_under_its_own_name(place, after):
    stock = place / f"results/{TOY}/nnUNetTrainer__nnUNetPlans__2d"
    touch(stock / "fold_0/checkpoint_final.pth")
    touch(stock / "plans.json")
    told = after("train 7 2d 0 --start_from nnUNetTrainer")
    assert told.endswith(" -d 7 -c 2d -f 0 -tr nnUNetTrainerModalityDropoutImputedCompanion -p nnUNetPlans")


def test_a_pretrained_model_segments_a_simulated_patient(place, after):
    out = place / "own"
    (place / "raw").rename(place / "nnUNet_raw")
    for name in ("nnUNet_raw", "nnUNet_results"):
        (out / name).mkdir(parents=True)
    (place / "nnUNet_raw" / TOY).rename(out / "nnUNet_raw" / TOY)
    model = out / "nnUNet_results" / TOY / "Pretraining_5epochs__D2NetWholeHeadPlans__3d_fullres"
    touch(model / "plans.json")
    told = after(f"pretrain -o '{out}' --epochs 5")
    case = f"'{out}/nnUNet_raw/{TOY}/imagesTr/a"
    expected = f"--FLAIR {case}_0000.nii.gz' --T1 {case}_0001.nii.gz' -m '{model}' -o '{out}/segmented'"
    assert told == f"d2net segment {expected}"
    check_line(told)
    assert not after(f"pretrain -o '{out}' --epochs 50")


def test_a_study_draws_its_last_row(place, after):
    def run(args, extra):
        args.arms = ["A", "B", "C"]
        return 0

    assert not after("study II -d 7", run=run)
    for arm in ("A", "B"):
        (place / f"results/{TOY}/{arm}__D2NetPaperPlans__3d_fullres").mkdir(parents=True)
    told = after("study II -d 7", run=run)
    assert f"results/{TOY}/B__D2NetPaperPlans__3d_fullres" in told
    assert told.endswith(f"raw/{TOY}/imagesTr' -o d2net_study_Dataset007_3d_fullres/figures")
    check_line(told)


def test_a_step_that_cannot_be_told_fails_nothing(after, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    assert not after("train 7 3d_fullres 0")


def test_planners_of_this_package_name_their_plans_after_themselves(after, place):
    ours = [kind for kind in vars(planners).values() if isinstance(kind, type) and kind.__module__ == planners.__name__]
    ours = [kind for kind in ours if hasattr(kind, "default_plans_name")]
    assert len(ours) >= 5
    for kind in ours:
        assert after(f"plan -d 7 -pl {kind.__name__}").endswith(f" {kind.default_plans_name}")


def test_every_successor_is_a_case_of_these_tests():
    from nnunetv2_d2net.cli._next import _AFTER

    text = Path(__file__).read_text(encoding="utf-8")
    assert all(re.search(rf'"{name} ', text) for name in _AFTER)
