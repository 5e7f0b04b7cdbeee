"""The notebook of the documentation runs as it stands, where no variable is set."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "one_patient.ipynb"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each cell of code shows."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    client.execute(env=environment)
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell) -> str:
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell)


@pytest.mark.slow
def test_from_files_to_picture_and_volumes(outputs):
    files, segmented, volumes, picture, trust = outputs
    assert "T1ce" not in text_of(files)
    assert "['FLAIR', 'T1', 'T2'], ['T1ce']" in text_of(segmented)
    assert "region whole tumor" in text_of(volumes)
    assert "image/png" in picture[-1]["data"]
    assert "enhancing tumor is unreliable without T1ce" in text_of(trust)
    whole = next(line for line in text_of(trust).splitlines() if line.startswith("whole tumor "))
    assert float(whole.split("Dice ")[1].split(";")[0]) > 0.6


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
