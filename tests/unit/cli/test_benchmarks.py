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


def test_two_starts_for_all_companions_are_refused():
    with pytest.raises(
        UsageError, match=f"^--start_from {STOCK}: name one for all companions, others as COMPANION={STOCK}$"
    ):
        _starts(["nnUNetTrainer", STOCK])
