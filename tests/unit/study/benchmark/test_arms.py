import pytest

from nnunetv2_d2net.study.benchmark.arms import ARMS, default_arms, stock_arm

DROPOUT, OURS = "nnUNetTrainerModalityDropoutImputedCompanion", "D2NetTrainerCompanion"


def test_without_a_start_there_are_three():
    assert default_arms("") == (ARMS, "")


@pytest.mark.parametrize(
    ("start", "length", "controls"),
    [
        ("nnUNetTrainer", "", "_2000epochs"),
        ("nnUNetTrainer_500epochs", "_500epochs", ""),
        ("X_5epochs", "_5epochs", "_10epochs"),
    ],
)
def test_controls_have_the_steps_of_stock_and_companion(start, length, controls):
    names, problem = default_arms(start)
    rivals = (f"nnUNetTrainerModalityDropoutAdamW{controls}", f"nnUNetTrainer{controls}")
    assert names == (start, DROPOUT + length, OURS + length, *rivals)
    assert not problem


def test_a_length_that_nnunet_lacks_is_told():
    names, problem = default_arms("nnUNetTrainer_1epoch")
    assert names == (
        "nnUNetTrainer_1epoch",
        f"{DROPOUT}_1epoch",
        f"{OURS}_1epoch",
        "nnUNetTrainerModalityDropoutAdamW_1epoch",
    )
    assert problem.startswith("nnU-Net has no trainers of 2 epochs")


@pytest.mark.parametrize("part", ["", "fold_0", "fold_0/checkpoint_final.pth"])
def test_a_path_is_no_arm_but_tells_the_length(tmp_path, part):
    path = tmp_path / "nnUNetTrainer_5epochs__nnUNetPlans__2d" / part
    names, _ = default_arms(str(path))
    assert names[0] == f"{DROPOUT}_5epochs"
    assert "nnUNetTrainer_5epochs" not in names


@pytest.mark.parametrize(
    ("arms", "found"),
    [
        (["nnUNetTrainer", "nnUNetTrainer_10epochs", f"{OURS}_10epochs"], "nnUNetTrainer_10epochs"),
        (
            ["nnUNetTrainerModalityDropout_10epochs", "nnUNetTrainer_5epochs", f"{OURS}_10epochs"],
            "nnUNetTrainer_5epochs",
        ),
        (["nnUNetTrainer", "nnUNetTrainer_5epochs"], ""),
        (["D2NetTrainer_10epochs", DROPOUT], ""),
    ],
)
def test_a_companion_starts_from_the_stock_arm_of_its_length(arms, found):
    assert stock_arm(f"{OURS}_10epochs", arms) == found
