import logging
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import trainers
from nnunetv2_d2net.cli._commands import COMMANDS, GROUPS
from nnunetv2_d2net.cli._nnunet_arguments import ARGUMENTS
from nnunetv2_d2net.cli._words import positionals, value_of, values_of
from nnunetv2_d2net.cli.main import main, parser_of

PLANNING = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
NNUNET = {
    "nnUNetv2_train": "nnunetv2.run.run_training:run_training_entry",
    "nnUNetv2_predict": "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
    "nnUNetv2_plan_and_preprocess": f"{PLANNING}:plan_and_preprocess_entry",
    "nnUNetv2_extract_fingerprint": f"{PLANNING}:extract_fingerprint_entry",
    "nnUNetv2_plan_experiment": f"{PLANNING}:plan_experiment_entry",
    "nnUNetv2_preprocess": f"{PLANNING}:preprocess_entry",
}


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_help_imports_nothing_heavy(words):
    script = (
        "import sys\nfrom nnunetv2_d2net.cli.main import main\n"
        f"try: main([*{words}, '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'nnunetv2', 'pandas', 'SimpleITK', 'scipy', 'matplotlib', 'sklearn'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert words or all(f"  {name}" in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"d2net {name}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--fly"], ["--fly", "trainers"]])
def test_a_command_comes_first(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("word", "meant"), [("fly", ""), ("tran", ", did you mean train?")])
def test_no_such_command(word, meant, capsys):
    assert main([word]) == 2
    assert capsys.readouterr().err == f"d2net: error: no command is called {word}{meant}: d2net help lists them\n"


def test_help_lists_commands_by_group_says_what_one_takes_and_prints_pages(capsys):
    for words in ([], ["help"]):
        assert main(words) == 0
        listed = capsys.readouterr().out
        assert all(f"\n{group}:\n" in listed for group in GROUPS)
        assert [line.split()[0] for line in listed.splitlines() if line[:2] == "  " and line[2:3].islower()][:-1] == [
            *COMMANDS
        ]
    with pytest.raises(SystemExit) as stop:
        main(["help", "export"])
    assert stop.value.code == 0
    assert "d2net export MODEL -o model.zip" in capsys.readouterr().out
    assert main(["help", "metrics"]) == 0
    assert capsys.readouterr().out == (Path(__file__).parents[3] / "docs/metrics.md").read_text(encoding="utf-8")
    for name in ("report.md", "docs/report.md"):  # a command's name is the command's
        assert main(["help", name]) == 0
        assert capsys.readouterr().out.startswith("# ")
    assert main(["help", "metric"]) == 2
    assert "did you mean metrics?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_calls_that_the_parser_takes_and_pages_can_be_read(name, capsys):
    command = COMMANDS[name]
    page = (Path(__file__).parents[3] / f"docs/{command.page}.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["help", name])
    said = capsys.readouterr().out
    assert all(example in said for example in command.examples)
    assert main(said.rpartition("read on: d2net ")[2].split()) == 0
    assert capsys.readouterr().out == page
    handed_on = {flag for flag, _, _ in ARGUMENTS.get(command.nnunet, ())}
    channels = {"--FLAIR", "--T1ce"} if name == "segment" else set()
    for example in command.examples:
        for call in re.findall(r"d2net [^&)\n]+", example):
            program, *words = shlex.split(call)
            assert program == "d2net"
            assert words[0] in COMMANDS
            args, extra = parser_of(words[:1]).parse_known_args(words)
            assert not hasattr(args, "run") or args.run.__module__.endswith(words[0])
            assert {word for word in extra if word.startswith("-")} <= handed_on | channels


@pytest.mark.parametrize(("command", "entry"), NNUNET.items())
def test_help_lists_what_nnunets_commands_take(command, entry, monkeypatch):
    def stop(self, *_):
        parsers.append(self)
        raise KeyboardInterrupt

    parsers, (module, _, function) = [], entry.partition(":")
    for way in ("parse_args", "parse_known_args"):
        monkeypatch.setattr(f"argparse.ArgumentParser.{way}", stop)
    with pytest.raises(KeyboardInterrupt):
        getattr(import_module(module), function)()
    taken = [flag for flag in parsers[0]._option_string_actions if flag not in ("-h", "--help")]
    assert sorted(flag for flag, _, _ in ARGUMENTS[command]) == sorted(taken)


def test_usage_errors_show_the_usage_and_guess_the_word(capsys):
    assert main(["demo", "--otu", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: d2net demo ")
    assert error.splitlines()[-1] == "d2net: error: unknown argument --otu: d2net demo --help lists them"
    assert main(["evaluate", "--tolerence", "1"]) == 2
    assert "did you mean --tolerance?" in capsys.readouterr().err
    assert main(["inspect"]) == 2


def test_former_words_work_with_a_note(monkeypatch, capsys):
    seen = []
    for name in ("demo", "inspect", "benchmark", "evaluate"):
        monkeypatch.setattr(
            import_module(f"nnunetv2_d2net.cli.{name}"), "run", lambda args, extra: seen.append(args) or 0
        )
    for words, note in (
        (["demo", "--out", "x"], "--out is -o now"),
        (["evaluate", "-p", "x"], "-p is -i now"),
        (["inspect", "7"], "7, without a word before it, is -d now"),
        (["benchmark", "18", "2d"], "2d, without a word before it, is -c now"),
    ):
        assert main(words) == 0
        assert note in capsys.readouterr().err
    demo, evaluate, inspected, benchmark = seen
    assert (demo.out, evaluate.predictions) == (Path("x"), Path("x"))
    assert (inspected.dataset, benchmark.dataset, benchmark.configuration) == ("7", "18", "2d")
    for words in (["demo", "-o", "x"], ["inspect", "-d", "7"], ["benchmark", "-d", "18", "-c", "2d", "-device", "cpu"]):
        assert main(words) == 0
        assert " now; the former way" not in capsys.readouterr().err
    assert (seen[-1].dataset, seen[-1].configuration, seen[-1].device) == ("18", "2d", "cpu")
    assert (seen[-2].dataset, seen[-3].out) == ("7", Path("x"))


@pytest.mark.parametrize(("name", "quiet"), [("predict", "--disable_progress_bar"), ("preprocess", "--no_pbar")])
def test_quiet_and_verbose_are_nnunets_words_too(name, quiet, monkeypatch, capsys):
    seen = []

    def log(args, extra):
        logging.getLogger("nnunetv2_d2net").info("a note")
        seen.append(extra)
        return 0

    monkeypatch.setattr(import_module(f"nnunetv2_d2net.cli.{name}"), "run", log)
    assert main([name, "-d", "7", "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert main([name, "-d", "7", "-v"]) == 0
    assert capsys.readouterr().err == "d2net: a note\n"
    assert seen == [["-d", "7", quiet], ["-d", "7", "--verbose"]]


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m nnunetv2_d2net.cli help usage | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="bash",
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("#")
    assert done.returncode in (0, 141)  # 0 where the pipe holds all of it


def test_a_terminal_that_knows_ascii_only():
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "nnunetv2_d2net.cli", "evaluate", "--published"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="ascii", check=False)
    assert done.returncode == 0, done.stderr


def test_user_error_is_one_line_and_status_1(monkeypatch, capsys):
    def fail(args, extra):
        raise UserError("disk.img is full: delete something")

    monkeypatch.setattr(trainers, "run", fail)
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    assert main(["trainers"]) == 1
    assert capsys.readouterr().err == "d2net: error: disk.img is full: delete something\n"
    monkeypatch.setenv("D2NET_DEBUG", "1")
    with pytest.raises(UserError):
        main(["trainers"])


@pytest.mark.parametrize(
    ("name", "remedy"), [("trainers", "run the same command"), ("train", "--c"), ("predict", "--continue_prediction")]
)
def test_ctrl_c_is_one_line_and_status_130(name, remedy, monkeypatch, capsys):
    def stop(args, extra):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module(f"nnunetv2_d2net.cli.{name}"), "run", stop)
    monkeypatch.delenv("D2NET_DEBUG", raising=False)
    assert main([name]) == 130
    error = capsys.readouterr().err
    assert error.startswith("d2net: stopped; what is done is kept: ")
    assert remedy in error
    assert error.count("\n") == 1
    monkeypatch.setenv("D2NET_DEBUG", "1")
    with pytest.raises(KeyboardInterrupt):
        main([name])


def test_what_the_package_logs_is_shown_while_a_command_runs(monkeypatch, capsys):
    logger = logging.getLogger("nnunetv2_d2net.data")

    def log(args, extra):
        logger.info("two cases to go")
        logger.error("case %r is missing", "a")
        return 0

    monkeypatch.setattr(trainers, "run", log)
    for _ in range(2):  # no line comes twice
        main(["trainers"])
        assert capsys.readouterr().err == "d2net: two cases to go\nd2net: error: case 'a' is missing\n"


def test_no_line_is_said_again_by_whoever_sets_logging_up_meanwhile(monkeypatch, capsys):
    def log(args, extra):
        logging.basicConfig(level=logging.INFO)  # as a library of a training does
        logging.getLogger("nnunetv2_d2net").info("two cases to go")
        return 0

    monkeypatch.setattr(trainers, "run", log)
    monkeypatch.setattr(logging.root, "handlers", [])
    main(["trainers"])
    assert capsys.readouterr().err == "d2net: two cases to go\n"
    assert logging.getLogger("nnunetv2_d2net").propagate


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail(args, extra):
        raise RuntimeError("a bug")

    monkeypatch.setattr(trainers, "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["trainers"])


@pytest.mark.parametrize("name", ["train", "predict", "plan_and_preprocess"])
def test_arguments_of_nnunet_pass_through_unchanged(name, monkeypatch):
    module = pytest.importorskip(f"nnunetv2_d2net.cli.{name}")
    seen = []
    monkeypatch.setattr(module, "run", lambda args, extra: seen.extend(extra) or 0)
    words = [
        "7",
        "3d_fullres",
        "0",
        "-pretrained_weights",
        "x",
        "--npz",
        "-device",
        "cpu",
        "-nps",
        "0",
        "-d=7",
        "--val",
    ]
    assert main([name, *words]) == 0
    assert seen == words


@pytest.mark.parametrize("name", ["trainers", "register", "unregister"])
def test_commands_that_pass_nothing_on_refuse_unknown_arguments(name, capsys):
    assert main([name, "--force"]) == 2
    assert "--force" in capsys.readouterr().err


def test_words_are_found_by_whole_flag_and_the_last_one_counts():
    words = ["-p", "A", "-pretrained_weights", "w", "-f", "0", "1", "--npz", "-p=B", "-device", "cpu", "-d"]
    assert value_of(words, "-p") == "B"
    assert value_of(words, "-pretrained_weights") == "w"
    assert values_of(words, "-f") == ["0", "1"]
    assert values_of(words, "-d") == []
    assert values_of(words, "-chk") is None
    assert value_of(words, "-chk", "final") == "final"
    assert positionals(["-tr", "T", "7", "-p=B", "2d", "--c", "all"]) == ["7", "2d", "all"]


BARS = """
import logging
from nnunetv2_d2net.cli.main import main
main(["help", "metrics"])
from tqdm import tqdm
from nnunetv2_d2net.base.progress import Bar
logging.basicConfig(level="INFO", format="%(message)s")
list(tqdm(range(3), "nnU-Net's"))
list(Bar(range(3), title="ours", total=3))
"""


def test_in_a_file_nnunets_bars_leave_nothing_and_ours_a_line():
    done = subprocess.run([sys.executable, "-c", BARS], capture_output=True, encoding="utf-8", check=True)
    assert re.fullmatch(r"ours: 3 cases in \S+\n", done.stderr)
