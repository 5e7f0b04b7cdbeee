"""Every number of a small cohort, as it stands in the tables."""

from pathlib import Path

import pytest

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.data.inspect.record import ABSENT, AVAILABLE, CaseRecord, Finding, Inspection
from nnunetv2_d2net.data.inspect.tables import write_tables


@pytest.fixture
def folder(tmp_path):
    """Tables of two cases: one whole, and one of which nothing is known but its name."""
    labels = {"background": 0, "head": 1, "edema, old": 2}
    dataset = Dataset.of({"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".nii.gz"})
    whole = CaseRecord("b", ["f", None], "l", [AVAILABLE, ABSENT], percentiles=[[1.0, 2, 3, 4, 1234567], None])
    whole.shape, whole.spacing, whole.head_ml = [8, 40, 40], [5.0, 1, 1], 1500.0625
    whole.orientation = "RAS"
    whole.volumes_ml = {"head": 12.0, "edema, old": 0.0}
    empty = CaseRecord("a", [None] * 2, None, [ABSENT] * 2, percentiles=[None] * 2)
    findings = [Finding("a", "no label", "a", "none", "add it"), Finding("a", "no modality", "", "none", "add one")]
    findings += [Finding("b", "zeros", "/raw/Dataset001_A/x/f", f"T{m} of /raw/Dataset001_A/x/f", "r") for m in (1, 2)]
    write_tables(Inspection(Path("/raw/Dataset001_A"), "Ts", dataset, [whole, empty], findings), tmp_path)
    return tmp_path


def test_cases(folder):
    percentiles = [f"{name} p{p}" for name in ("T1", "T2") for p in (1, 25, 50, 75, 99)]
    header = 'case,T1,T2,shape (z y x),spacing (z y x) mm,orientation,head ml,head ml,"edema, old ml",'
    assert (folder / "cases.csv").read_bytes().decode().split("\r\n") == [
        header + ",".join(percentiles) + ",suspicions",
        "a,absent,absent,,,,,,," + "," * 10 + "no label; no modality",
        "b,available,absent,8 40 40,5 1 1,RAS,1500.06,12,0,1,2,3,4,1.23457e+06,,,,,,zeros",
        "",
    ]


def test_suspicions(folder):
    assert (folder / "suspicions.csv").read_text(encoding="utf-8").splitlines()[:3] == [
        "case,kind,file,reason,remedy",
        "a,no label,a,none,add it",
        "a,no modality,,none,add one",
    ]


def test_summary(folder):
    text = (folder / "summary.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    for row in (
        ["T1", "1", "1", "0", "0", "0"],
        ["none", "1", "50%"],
        ["shape z", "1", "8", "8", "8"],
        ["head, ml", "1", "1500", "1500", "1500"],
        ["head, ml", "1", "12", "12", "12"],
        ["edema, old, ml (none in 1 case)", "1", "0", "0", "0"],
        ["T1", "1", "1", "2", "3", "4", "1.235e+06"],
        ["T2", "0", "nan", "nan", "nan", "nan", "nan"],
    ):
        assert row in rows
    assert "\norientation: RAS.\n" in text
    assert text.startswith("# Dataset001_A, test cases\n\n2 cases, 2 of them suspicious.")
    assert "**zeros** (2)\n\n- b: x/f: T1 of x/f: r\n- b: x/f: T2 of x/f: r\n" in text
    assert "**no label** (1)\n\n- a: a: none: add it\n" in text
    assert "- a: none: add one\n" in text
