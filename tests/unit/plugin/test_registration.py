import os
import subprocess
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin import registration
from nnunetv2_d2net.plugin.registration import MARKER, SHIMS, announce_trainers, register, trainers_folder, unregister


@pytest.fixture
def nnunet(tmp_path):
    """An empty nnU-Net: the folders that the shims go to."""
    folder = tmp_path / "nnunetv2"
    for shim in SHIMS:
        (folder / shim).parent.mkdir(parents=True, exist_ok=True)
    return folder


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_shim(path, search_path):
    """Import a shim in a Python that sees only ``search_path`` and its own library; print the public names."""
    script = f"import runpy; print(sorted(n for n in runpy.run_path({str(path)!r}) if not n.startswith('_')))"
    environment = {"PYTHONPATH": str(search_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-c", script]
    return subprocess.run(command, env=environment, cwd=path.parent, capture_output=True, encoding="utf-8", check=False)


def write_plugin(folder, text):
    for module in SHIMS.values():
        path = folder / (module.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_register_twice_then_unregister_leaves_nothing(nnunet):
    before = files(nnunet)
    written = register(nnunet)
    once = files(nnunet)
    assert set(once) == set(written) == {nnunet / shim for shim in SHIMS}
    register(nnunet)
    assert files(nnunet) == once
    assert set(unregister(nnunet)) == set(written)
    assert files(nnunet) == before
    assert unregister(nnunet) == []


def test_register_refreshes_an_older_shim(nnunet):
    path = nnunet / next(iter(SHIMS))
    path.write_text(f"{MARKER}\nraise ImportError\n", encoding="utf-8")
    register(nnunet)
    assert "raise ImportError" not in path.read_text(encoding="utf-8")


def test_a_shim_offers_every_public_class(nnunet, tmp_path):
    plugin = write_plugin(tmp_path / "site", "__all__ = ['A', 'B']\nclass A: pass\nclass B: pass\nclass Hidden: pass\n")
    for path in register(nnunet):
        done = run_shim(path, plugin)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "['A', 'B']"


def test_a_shim_offers_classes_that_are_made_on_lookup(nnunet, tmp_path):
    made = "def __getattr__(name):\n    if name != 'A_5epochs':\n        raise AttributeError(name)\n    return name\n"
    plugin = write_plugin(tmp_path / "site", f"__all__ = []\n{made}")
    for path in register(nnunet):
        script = f"import {path.stem} as shim; print(shim.A_5epochs, hasattr(shim, 'A_6epochs'))"
        environment = {"PYTHONPATH": str(plugin), "PATH": os.environ["PATH"]}
        command = [sys.executable, "-S", "-c", script]
        done = subprocess.run(
            command, env=environment, cwd=path.parent, capture_output=True, encoding="utf-8", check=False
        )
        assert done.stdout == "A_5epochs False\n", done.stderr


def test_a_shim_survives_uninstalling_the_plugin(nnunet, tmp_path):
    for path in register(nnunet):
        done = run_shim(path, tmp_path / "empty")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[]"


def test_a_shim_does_not_hide_a_missing_dependency(nnunet, tmp_path):
    plugin = write_plugin(tmp_path / "site", "import a_package_that_is_not_there\n")
    for path in register(nnunet):
        done = run_shim(path, plugin)
        assert done.returncode != 0
        assert "a_package_that_is_not_there" in done.stderr


@pytest.mark.parametrize("shim", SHIMS)
def test_a_foreign_file_is_refused_and_kept(nnunet, shim):
    (nnunet / shim).write_text("class D2NetTrainer: pass\n", encoding="utf-8")
    before = files(nnunet)
    for change in (register, unregister):
        with pytest.raises(UserError, match="was not written by") as error:
            change(nnunet)
        assert str(nnunet / shim) in str(error.value)
        assert "\n" not in str(error.value)
        assert files(nnunet) == before


@pytest.mark.parametrize("registered_before", [False, True])
@pytest.mark.parametrize("failing", SHIMS)
def test_a_read_only_install_is_one_line_and_nothing_half_written(nnunet, failing, registered_before, monkeypatch):
    if registered_before:
        for path in register(nnunet):
            path.write_text(path.read_text(encoding="utf-8") + "# an older version\n", encoding="utf-8")
    before = files(nnunet)
    temporary_file = tempfile.TemporaryFile

    def file_or_fail(*, dir):
        if dir == (nnunet / failing).parent:
            raise PermissionError(13, "Permission denied", str(dir))
        return temporary_file(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", file_or_fail)
    with pytest.raises(UserError, match="Permission denied") as error:
        register(nnunet)
    assert "\n" not in str(error.value)
    assert files(nnunet) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(nnunet):
    folder = (nnunet / next(iter(SHIMS))).parent
    folder.chmod(0o555)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            register(nnunet)
    finally:
        folder.chmod(0o755)
    assert files(nnunet) == {}


def test_commands_work_on_the_nnunet_that_python_would_import(nnunet, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(nnunet.parent))
    (nnunet / "__init__.py").write_text("raise RuntimeError('must not be imported')\n", encoding="utf-8")
    monkeypatch.setattr(registration, "find_spec", lambda name: _spec_in(nnunet.parent, name))
    assert main(["register"]) == 0
    assert capsys.readouterr().out.count("registered ") == len(SHIMS)
    assert main(["unregister"]) == 0
    assert main(["unregister"]) == 0
    assert "nothing was registered" in capsys.readouterr().out


def _spec_in(folder, name):
    return PathFinder.find_spec(name, [str(folder)])


def test_no_nnunet_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(registration, "find_spec", lambda name: None)
    assert main(["register"]) == 1
    assert "pip install" in capsys.readouterr().err


def test_trainers_prints_the_folder_alone(capsys):
    assert main(["trainers"]) == 0
    folder = Path(capsys.readouterr().out.removesuffix("\n"))
    assert folder == trainers_folder()
    assert (folder / "D2NetTrainer.py").is_file()


@pytest.mark.parametrize("already", [None, "", "/a", "ours", "/a:ours"])
def test_our_trainers_come_before_the_users_folders(already, monkeypatch):
    ours = str(trainers_folder())
    monkeypatch.setenv("nnUNet_extTrainer", "")  # so that it is restored
    monkeypatch.delenv("nnUNet_extTrainer")
    if already is not None:
        monkeypatch.setenv("nnUNet_extTrainer", already.replace("ours", ours).replace(":", os.pathsep))
    announce_trainers()
    announce_trainers()
    users = ["/a"] if already and "/a" in already else []
    assert os.environ["nnUNet_extTrainer"].split(os.pathsep) == [ours, *users]
