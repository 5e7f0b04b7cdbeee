"""The printed scripts, asked by the shells themselves what they would offer when Tab is pressed."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.cli._commands import COMMANDS
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.patient.model import shipped_model

SHELLS = ("bash", "zsh", "tcsh")
ASK = (
    'source script; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _shtab_d2net; '
    '[ ${#COMPREPLY[@]} = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """A folder with a file and a folder to complete, and the script of each shell, made where no variable is set."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "exams").mkdir()
    (folder / "exams.yaml").touch()
    code = (
        "import sys\nfrom nnunetv2_d2net.cli.main import main\nstatus = main(sys.argv[1:])\n"
        "assert not {'torch', 'numpy', 'nnunetv2'} & set(sys.modules)\nsys.exit(status)"
    )
    for shell in SHELLS:
        command = [sys.executable, "-c", code, "completion", shell]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        (folder / shell).write_bytes(subprocess.run(command, env=environment, stdout=-1, check=True).stdout)
    return folder


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pred", "predict"),
        ("completion ", "bash zsh tcsh"),
        ("help metr", "metrics"),
        ("train 4 3d", "3d_fullres 3d_lowres"),
        ("train 4 3d_fullres ", "0 1 2 3 4 all"),
        ("train 4 3d_fullres 0 -pre", "-pretrained_weights"),  # nnU-Net's
        ("predict --all", "--all_subsets"),  # ours
        ("predict -f 0 1 -c 3d_f", "3d_fullres"),
        ("predict -device c", "cpu cuda"),
        ("predict -i ex", "exams"),  # a folder, no file
        ("convert_back --mapping ex", "exams exams.yaml"),
        ("segment ex", "exams"),
        ("segment exams --T1", "--T1 --T1ce"),
        ("segment --T1ce exams.y", "exams.yaml"),
        ("study VI", "VI VIII"),
        ("trainers no_such", ""),
    ],
)
def test_bash_offers(scripts, line, offered):
    script = ASK.replace("script", "./bash")
    words = ["bash", "--norc", "-euc", script, "bash", "d2net", *line.split(" ")]
    environment = {"PATH": "/usr/bin:/bin"}  # with no Python of ours in it
    done = subprocess.run(words, cwd=scripts, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == sorted(offered.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_its_script(scripts, shell):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    done = subprocess.run([shell, "-n", shell], cwd=scripts, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_word_of_a_commands_help_is_in_the_scripts(scripts, name, shell, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    words = re.findall(r"^  (--?\w+)(?:, (--?\w+))?", capsys.readouterr().out, re.MULTILINE)
    assert words
    script = (scripts / shell).read_text(encoding="utf-8")
    if shell == "bash":
        script = re.search(rf"_shtab_d2net_{name}_option_strings=\((.*)\)", script)[1] + " "
    missing = [word for word in filter(None, sum(words, ())) if not re.search(rf"[^-\w]?{word.lstrip('-')}\W", script)]
    assert not missing


def test_the_sequences_are_those_of_the_model_of_the_package(scripts):
    options = re.search(r"_shtab_d2net_segment_option_strings=\((.*)\)", (scripts / "bash").read_text(encoding="utf-8"))
    channels = Dataset.read(shipped_model() / "dataset.json").channels
    assert {f"--{name}" for name in channels} <= set(options[1].split())
