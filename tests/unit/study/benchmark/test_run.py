from dataclasses import replace

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder, write_json
from nnunetv2_d2net.study.benchmark import run
from nnunetv2_d2net.study.benchmark.run import run_benchmark
from tests.unit.study.benchmark.conftest import save_weights


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
