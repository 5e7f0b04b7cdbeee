from dataclasses import replace

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.study.benchmark.arms import check_arms, differences
from nnunetv2_d2net.study.benchmark.run import describe
from nnunetv2_d2net.study.benchmark.setup import check_same_benchmark, read_json_or, write_json

ARM = {"plans": "D2NetPlans", "folds": ["all"], "epochs": 10, "steps_per_epoch": 250, "batch_size": 2}


def test_differences_name_each_arm():
    arms = [{"name": "A", **ARM}, {"name": "B", **ARM, "epochs": 20}, {"name": "C", **ARM, "batch_size": None}]
    assert differences(arms) == ["epochs differ: A 10, B 20, C 10"]
    assert differences(arms[:1]) == []


def test_unknown_arm_lists_near_names_and_an_arm_comes_once():
    with pytest.raises(UserError, match=r"called D2NetTraner: did you mean .*D2NetTrainer"):
        check_arms(["nnUNetTrainer", "D2NetTraner"])
    with pytest.raises(UserError, match="twice"):
        check_arms(["D2NetTrainer", "D2NetTrainer"])
    check_arms(["nnUNetTrainer_5epochs", "nnUNetTrainerModalityDropout_10epochs", "D2NetTrainer"])


def test_setup_json_stays_as_it_was_when_nothing_changes(setup):
    path = setup.out / "setup.json"
    content = describe(setup, [{"name": "D2NetTrainer", **ARM}])
    write_json(path, content)
    before = path.stat().st_mtime_ns
    write_json(path, describe(setup, [{"name": "D2NetTrainer", **ARM}]))
    assert path.stat().st_mtime_ns == before
    assert read_json_or(path, None) == content
    assert content["modalities"] == ["T1", "T2"]
    assert content["regions"] == {"lesion": [1]}
    assert content["command"] == (
        "d2net benchmark Dataset007_Paper 2d -p D2NetPlans --arms nnUNetTrainer D2NetTrainer -f all --cases test"
    )


def test_folder_of_another_benchmark_is_refused_but_arms_may_come(setup):
    check_same_benchmark(setup)
    write_json(setup.out / "setup.json", describe(setup, []))
    check_same_benchmark(replace(setup, arms=("D2NetTrainerPaper",), device="cuda", processes=7))
    for change in ({"configuration": "3d_fullres"}, {"mirroring": False}, {"folds": ("0",)}, {"plans": "X"}):
        with pytest.raises(UserError, match="pass another -o"):
            check_same_benchmark(replace(setup, **change))


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json_or(tmp_path / "a.json", None) == {"a": 1}
    (tmp_path / "a.json").write_text('{"a": ')
    assert read_json_or(tmp_path / "a.json", "damaged") == "damaged"
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "a.json" / "b.json", {})
