"""Steps, prediction, export and resuming on a CUDA device that is not there: no tensor elsewhere, no hidden wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).with_name("steps_on_cuda.py")


@pytest.mark.slow
def test_what_all_trainers_do_with_a_cuda_device():
    """In a process of its own, whose torch takes something else for its accelerator and sees no real one."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--color=no", str(STEPS)]
    root = STEPS.parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
