from dataclasses import replace

import pytest

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder, read_json_or, write_json
from nnunetv2_d2net.study.benchmark import run
from nnunetv2_d2net.study.benchmark.run import run_benchmark
from nnunetv2_d2net.study.benchmark.setup import Setup
from nnunetv2_d2net.study.report import results
from nnunetv2_d2net.study.report.results import read_benchmark
from tests.unit.study.benchmark.conftest import save_weights
from tests.unit.study.report.synthetic import Synthetic, write_benchmark


def test_one_process_at_a_time(setup):
    with locked_folder(setup.out), pytest.raises(UserError, match="another process holds"):
        run_benchmark(setup)


def test_files_of_others_are_not_written_over(setup):
    setup.out.mkdir()
    (setup.out / "report.md").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"report\.md is no benchmark's, .*: pass another -o"):
        run_benchmark(setup)
    assert [path.name for path in setup.out.iterdir()] == ["report.md"]


def test_a_folder_says_from_the_beginning_what_it_is(setup, monkeypatch):
    """A run that is killed at once leaves nothing that the next one would take for somebody else's."""
    (setup.preprocessed / "data" / "case_Tr0.pkl").unlink()
    monkeypatch.setattr(run, "run_children", lambda *_, **__: pytest.fail(str(setup.note.is_file())))
    with pytest.raises(pytest.fail.Exception, match="True"):
        run_benchmark(setup)


def test_a_companion_does_not_stay_when_what_it_started_from_is_trained_anew(setup, monkeypatch):
    stock, companion = arms = ("nnUNetTrainer", "D2NetTrainerCompanion")
    setup, trained = replace(setup, arms=arms), []
    for arm in arms:
        write_json(setup.training_note(arm, "all"), {"epochs": 1, "start": {"from": stock} if arm == companion else {}})
    save_weights(setup.model(companion).checkpoint("all"), 1, stock__decoder__seg=1)

    def train(_, names, *__, **___):
        trained.extend(names)
        save_weights(setup.model(stock).checkpoint("all"), 1, decoder__seg=2)
        return []

    monkeypatch.setattr(run, "run_children", train)
    for _ in range(2):
        with pytest.raises(UserError, match=r"Companion.*did not start from .*nnUNetTrainer__.*: move .*fold_all away"):
            run_benchmark(setup)
    assert trained == [f"{arm}/all" for arm in arms]  # once


def test_arms_that_were_there_and_are_not_named_any_more_are_told(setup, monkeypatch, caplog):
    write_json(setup.note, {**setup.identity, "arms": [{"name": arm} for arm in setup.arms]})
    monkeypatch.setattr(run, "_prepare", lambda *_, **__: pytest.fail("prepared"))
    for arms, words in ((setup.arms, ""), (setup.arms[::-1], ""), (setup.arms[:1], "leaves out D2NetTrainer from now")):
        caplog.clear()
        with pytest.raises(pytest.fail.Exception, match="prepared"):
            run_benchmark(replace(setup, arms=arms))
        assert words in caplog.text
        assert bool(words) == bool(caplog.text)


@pytest.fixture
def gathered(tmp_path, monkeypatch, write_checkpoint):
    """A finished benchmark of two arms."""
    arms, modalities = ("nnUNetTrainer", "D2NetTrainer"), ("T1", "T2")
    spec = Synthetic(arms, modalities, {"lesion": (1,)}, ("a", "b"))
    out, raw = write_benchmark(tmp_path, spec), tmp_path / "raw"
    raw.mkdir()
    for ours, theirs in (("images", "imagesTs"), ("references", "labelsTs")):
        (tmp_path / ours).rename(raw / theirs)
    dataset, folders = Dataset.read(tmp_path / "dataset.json"), (raw, tmp_path / "preprocessed", tmp_path / "results")
    setup = Setup(dataset, *folders, out, "2d", "D2NetPlans", arms, ("all",), "test")
    for arm in arms:
        write_checkpoint(setup.model(arm).checkpoint("all"))

    def write_pages(_, page, **__):
        for ending in (".html", ".md"):
            page.with_suffix(ending).touch()

    monkeypatch.setattr(run, "write_report", write_pages)
    (out / results.GATHERED).unlink()
    assert run._gather(setup, progress=False)
    return setup


def test_files_that_are_not_what_was_gathered_are_refused_and_made_anew(gathered):
    files = [gathered.out / name for name in ("D2NetTrainer/metrics.csv", "comparison.csv", "D2NetTrainer/tables.json")]
    contents = [path.read_text(encoding="utf-8") for path in files]
    assert not run._gather(gathered, progress=False)
    for path, content in zip(files, contents, strict=True):
        for damaged in (content[: len(content) // 2], content.replace("0.", "0.1", 1), None):
            path.unlink() if damaged is None else path.write_text(damaged, encoding="utf-8")
            if damaged and path.suffix == ".csv":
                with pytest.raises(UserError, match=rf"{path} was changed or cut short since: run d2net bench"):
                    read_benchmark(gathered.out)
            assert run._gather(gathered, progress=False)
            assert [path.read_text(encoding="utf-8") for path in files] == contents
            assert read_benchmark(gathered.out).arms
    note = gathered.out / results.GATHERED
    write_json(note, {"inputs": read_json_or(note, {})["inputs"]})  # of an earlier version
    assert not run._gather(gathered, progress=False)
    assert read_benchmark(gathered.out).arms
