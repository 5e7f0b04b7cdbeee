import logging
import subprocess
import sys
from importlib import import_module

import pytest

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import trainers
from nnunetv2_d2net.cli._words import positionals, value_of, values_of
from nnunetv2_d2net.cli.main import COMMANDS, main


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_help_imports_nothing_heavy(words):
    script = (
        "import sys\nfrom nnunetv2_d2net.cli.main import main\n"
        f"try: main([*{words}, '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'nnunetv2', 'pandas', 'SimpleITK', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert words or all(f"    {name}" in done.stdout for name in COMMANDS)


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


@pytest.mark.parametrize("words", [[], ["fly"], ["--fly"], ["--fly", "trainers"]])
def test_no_such_command(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


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
    assert main([name, "--force"]) == 1
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
