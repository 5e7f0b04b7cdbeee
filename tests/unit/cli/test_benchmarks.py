import pytest

from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.cli._benchmarks import _starts

STOCK, COMPANION = "nnUNetTrainer_5epochs", "D2NetTrainerCompanion_5epochs"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("", {})),
        ([STOCK], (STOCK, {})),
        ([f"{COMPANION}={STOCK}"], ("", {COMPANION: STOCK})),
        ([f"{COMPANION}=/data/a=b", STOCK], (STOCK, {COMPANION: "/data/a=b"})),
        (["/data/a=b"], ("/data/a=b", {})),
    ],
)
def test_what_all_companions_start_from_and_what_single_ones_do(words, expected):
    assert _starts(words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/data/OldCompanion=v2/nnUNetTrainer__P__2d"], ("/data/OldCompanion=v2/nnUNetTrainer__P__2d", {})),
        (["stock=5"], ("stock=5", {})),
    ],
)
def test_a_path_with_a_sign_of_equality_is_a_path(words, expected):
    assert _starts(words) == expected


def test_a_companion_starts_from_one():
    with pytest.raises(UsageError, match=f"^--start_from {COMPANION}=b: name one for {COMPANION}$"):
        _starts([f"{COMPANION}=a", f"{COMPANION}=b"])


def test_two_starts_for_all_companions_are_refused():
    with pytest.raises(
        UsageError, match=f"^--start_from {STOCK}: name one for all companions, others as COMPANION={STOCK}$"
    ):
        _starts(["nnUNetTrainer", STOCK])
