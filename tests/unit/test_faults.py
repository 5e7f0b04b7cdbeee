"""The campaign of ``make faults`` sees what it is there to see."""

import json

import numpy as np
import SimpleITK as sitk

from tests.faults.campaign import table_of
from tests.faults.commands import COMMANDS
from tests.faults.content import UNREADABLE, content_of
from tests.faults.faults import Ended, Undisturbed, _problems_of, _wrong_but_done


def written(folder):
    (folder / "raw").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(60.0).reshape(3, 4, 5)), str(folder / "raw" / "a.nii.gz"))
    (folder / "raw" / "b.json").write_text(json.dumps({"x": 1, "started": "now"}), encoding="utf-8")
    return content_of(folder, ["raw"])


def test_content_is_voxels_and_values_not_bytes_or_times(tmp_path):
    before = written(tmp_path)
    image = tmp_path / "raw" / "a.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(image)), str(image), useCompression=True, compressionLevel=1)
    (tmp_path / "raw" / "b.json").write_text('{"x":1,  "started": "later"}', encoding="utf-8")
    assert content_of(tmp_path, ["raw"]) == before
    for name, content in (("b.json", b'{"x": 2}'), ("a.nii.gz", image.read_bytes()[:100])):
        path = tmp_path / "raw" / name
        whole = path.read_bytes()
        path.write_bytes(content)
        assert content_of(tmp_path, ["raw"])[f"raw/{name}"] != before[f"raw/{name}"]
        path.write_bytes(whole)
    image.write_bytes(b"")
    assert UNREADABLE in content_of(tmp_path, ["raw"])["raw/a.nii.gz"]
    (tmp_path / "raw" / ".unfinished").mkdir()
    assert "raw/.unfinished" in content_of(tmp_path, ["raw"])


def test_a_benchmark_differs_by_what_it_says_not_by_when_or_how_long(tmp_path):
    def said(dice, day, seconds):
        cost, note = {"training_seconds": seconds, "threads": 1}, {"checkpoints (sha256)": {"a": day}, "dice": dice}
        row = f"| started | 2026-11-{day}T19:34:32 |\n| arm | {dice} | {seconds} s      |\n"
        for name, text in (("cost.json", json.dumps(cost)), ("a.json", json.dumps(note)), ("report.md", row)):
            (tmp_path / name).write_text(text, encoding="utf-8")
        return content_of(tmp_path, ["."])

    assert said(0.5, 26, 1.8) == said(0.5, 27, 12)
    before, after = said(0.5, 26, 1.8), said(0.6, 26, 1.8)
    assert [name for name in before if before[name] != after[name]] == ["a.json", "report.md"]


def test_what_counts_as_done_and_is_not_is_seen(tmp_path):
    known = Undisturbed(0, 1, {"out/a.nii.gz": "1", "out/b.nii.gz": "2"}, 0, 0)
    partial, killed = {"out/a.nii.gz": "0"}, Ended(-9, "", [])
    assert _wrong_but_done(tmp_path, COMMANDS["predict"], known, partial, killed) == ["partial: out/a.nii.gz"]
    assert len(_wrong_but_done(tmp_path, COMMANDS["predict"], known, partial, Ended(0, "", []))) == 2
    assert _wrong_but_done(tmp_path, COMMANDS["predict"], known, {"out/a.nii.gz": "1"}, killed) == []


def test_a_training_is_done_before_its_validation(tmp_path):
    train = COMMANDS["train"]
    (tmp_path / train.done).parent.mkdir(parents=True)
    (tmp_path / train.done).touch()
    known = Undisturbed(0, 1, {train.done: "1", "summary.json": "2"}, 0, 0)
    assert _wrong_but_done(tmp_path, train, known, {train.done: "1"}, Ended(-9, "", [])) == []
    assert _wrong_but_done(tmp_path, train, known, {train.done: "0"}, Ended(-9, "", [])) == [f"done: {train.done}"]


def test_problems_are_seen():
    for fault, n in (("kill -9", 0), ("SIGINT", 1)):
        status = {"kill -9": -9, "SIGINT": 130}[fault]
        said = "Traceback ...\nBrokenPipeError: [Errno 32] Broken pipe\nd2net: stopped"
        assert bool(_problems_of(fault, Ended(status, said, []))) == bool(n)
    assert _problems_of("SIGINT", Ended(130, "d2net: stopped; what is done is kept", [])) == []
    assert _problems_of("SIGINT", Ended(130, "Traceback ...", ["a worker"])) != []
    assert _problems_of("full disk", Ended(1, "d2net: error: x cannot be written", [])) == []
    assert _problems_of("full disk", Ended(1, "OSError: no space", [])) == ["status 1 without a line"]


def test_the_table():
    kept = {"right_at_once": False, "told": True, "point": ""}
    right = {"status": 1, "right_again": True, "silently_wrong": [], "problems": [], **kept}
    wrong = {"status": 0, "right_again": False, "silently_wrong": ["a"], "problems": ["b"], **kept}
    lines = [{"command": "convert", "fault": "kill -9", "outcome": outcome} for outcome in (right, wrong)]
    assert table_of(lines) == [["convert", "kill -9", "2", "0", "1", "1", "1", "1"]]
