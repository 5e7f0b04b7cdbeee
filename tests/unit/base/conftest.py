"""Disks as they are on bad days."""

import os
import shutil
import subprocess

import pytest


def succeeds(*command):
    """Tell whether a program of the system exists, and ends well."""
    return shutil.which(command[0]) and not subprocess.run(command, check=False, capture_output=True).returncode


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB; only root may have it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not succeeds("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
        pytest.skip("mounting a small disk is not allowed")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # libraries that fail leave files open


@pytest.fixture
def closed_folder(tmp_path):
    """A folder in which nobody may write, not even root."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK) and not succeeds("chattr", "+i", folder):  # root passes over permissions
        pytest.skip("no folder is closed to this user")
    yield folder
    succeeds("chattr", "-i", folder)
