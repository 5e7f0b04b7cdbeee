"""What carries the project beside its code: workflows, issue forms, the image, versions, the changelog, the wheel."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import pytest
import yaml

import nnunetv2_d2net

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")

pytestmark = pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="an installed package has none of it")


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps_of(job):
    return [step["run"] for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_limits_and_no_more_rights_than_they_need(path):
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert job.get("permissions", {}).keys() <= {"id-token"}
        for command in steps_of(job):
            assert (ROOT / shlex.split(command)[0]).stat().st_mode & 0o100, f"{command} is no program"
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", step["uses"])


def test_every_python_is_tested():
    (job,) = read_yaml(ROOT / ".github/workflows/tests.yml")["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert steps_of(job) == [".ci/run"]


def test_a_tag_is_published_without_a_token():
    workflow = read_yaml(ROOT / ".github/workflows/release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads "on" as true
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert "secrets" not in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_forms(path):
    form = read_yaml(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["type"] in ("textarea", "input") and field["attributes"]["label"] for field in fields)


def test_the_changelog_has_releases_and_the_newest_is_the_package():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert len(releases) == text.count("\n## [") - text.count("\n## [Unreleased]")
    dates = [date.fromisoformat(day) for _, day in releases]
    assert dates == sorted(dates, reverse=True)
    version, day = releases[0]
    assert version == nnunetv2_d2net.__version__
    assert f"\ndate-released: {day}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def instructions_of(text):
    """Instructions of a Dockerfile, with their words as they stand."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def test_the_image_copies_what_is_there():
    instructions = instructions_of((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    names = [name for name, _ in instructions]
    assert set(names) <= {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "ENTRYPOINT", "CMD"}
    assert names.index("FROM") == 1
    arguments = {words.partition("=")[0] for name, words in instructions if name == "ARG"}
    assert arguments == {"BASE", "TORCH_INDEX"}
    assert instructions[1] == ("FROM", "${BASE}")
    copied = {source for name, words in instructions if name == "COPY" for source in words.split()[:-1]}
    assert not [source for source in copied if not (ROOT / source).exists()]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line[0] == "!"}
    assert copied == sent
    settings = configparser.ConfigParser(delimiters=("=",))
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    folders = settings["options"]["package_dir"].split("\n")
    assert {folder.partition("= ")[2] for folder in folders if folder} <= copied
    torch = next(line for line in settings["options"]["install_requires"].split() if line.startswith("torch>"))
    assert f'"{torch}"' in next(words for name, words in instructions if name == "RUN" and "TORCH_INDEX" in words)


def test_shell_scripts_are_bash():
    bash = shutil.which("bash")
    for path in (".ci/run", ".ci/release", "tests/wheel_in_use.sh"):
        done = subprocess.run([bash or "bash", "-n", ROOT / path], capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
    for name, words in instructions_of((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        if name == "RUN":
            assert subprocess.run([bash or "bash", "-n", "-c", words], check=False).returncode == 0, words


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build it from a copy of what git keeps, as setuptools leaves folders behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("nnunetv2_d2net", "trainers", "planners", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_works_where_the_sources_are_not(wheel, tmp_path):
    assert wheel.name == f"nnunetv2_d2net-{nnunetv2_d2net.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    package = ROOT / "nnunetv2_d2net"
    kept = {path.relative_to(ROOT) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.as_posix() for path in kept} <= names
    assert {"nnunetv2_d2net/trainers/D2NetTrainer.py", "nnunetv2_d2net/planners/D2NetPlanner.py"} <= names
    assert {f"nnunetv2_d2net/docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= names
    script = "import nnunetv2_d2net.cli.main as m; print(m.__file__); raise SystemExit(m.main(['segment', '--help']))"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert "usage: d2net segment" in done.stdout
