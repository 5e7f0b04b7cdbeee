import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_d2net

PACKAGE = Path(nnunetv2_d2net.__file__).resolve().parent
ROOT = PACKAGE.parent


@pytest.fixture
def settings():
    path = ROOT / "setup.cfg"
    if not path.is_file():
        pytest.skip("an installed package has no setup.cfg")
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read(path, encoding="utf-8")
    return parser


HEAVY = {"torch", "nnunetv2", "numpy", "pandas", "SimpleITK"}


def run_python(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)


def test_importing_the_package_imports_nothing_else():
    done = run_python(f"import sys, nnunetv2_d2net\nprint({HEAVY} & set(sys.modules), 'D2Net' in dir(nnunetv2_d2net))")
    assert done.stdout == "set() True\n", done.stderr


@pytest.mark.parametrize("name", ["convert_folder", "inspect_dataset", "evaluate_folder", "UserError"])
def test_working_with_files_needs_no_torch(name):
    done = run_python(f"import sys\nfrom nnunetv2_d2net import {name}\nprint('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_every_name_of_the_package_is_there():
    for name in nnunetv2_d2net.__all__:
        value = getattr(nnunetv2_d2net, name)
        assert name == "__version__" or value.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'D3Net'"):
        _ = nnunetv2_d2net.D3Net


def test_every_folder_with_code_is_shipped(settings):
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders} | {"nnunetv2_d2net.trainers", "nnunetv2_d2net.planners"}
    assert packages <= set(settings["options"]["packages"].split())


def test_every_shipped_package_is_there(settings):
    for package in settings["options"]["packages"].split():
        top_level = ROOT / package.removeprefix("nnunetv2_d2net.")
        folder = ROOT / package.replace(".", "/")
        data = settings["options.package_data"].get(package, "*.py")
        assert list(folder.glob("*.py")) or list(top_level.glob(data)), f"{package} is empty"


def test_every_dependency_has_a_lower_and_an_upper_bound(settings):
    extras = settings["options.extras_require"]
    requirements = [
        line for text in (settings["options"]["install_requires"], *extras.values()) for line in text.split()
    ]
    assert len(requirements) > 10
    for requirement in requirements:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+(,!=[\d.*]+)*,<[\d.]+", requirement), requirement


def test_citation_and_package_have_the_same_version(settings):
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {nnunetv2_d2net.__version__}\n" in citation
    assert settings["metadata"]["license"] == "Apache-2.0"
    assert "\nlicense: Apache-2.0\n" in citation


def test_nothing_at_the_root_is_run_by_a_lookup():
    assert not (ROOT / "setup.py").exists()
