"""d2net figures of a trained model, before and after its training and beside another one."""

import json

import pytest
from PIL import Image

from tests.integration.conftest import d2net

pytestmark = pytest.mark.slow


def test_pictures_and_numbers_of_a_model(regions_model, tmp_path, capsys):
    images, out = regions_model.raw / "imagesTs", tmp_path / "figures"
    words = ["figures", regions_model.folder, "-i", images, "-o", out, "-device", "cpu"]
    assert d2net(*words, "-r", regions_model.raw / "labelsTs") == 0
    assert {path.name for path in out.glob("*.png")} == {
        "fig5_case_Ts0.png",
        "fig5_case_Ts1.png",
        "fig6.png",
        "fig7.png",
    }
    with Image.open(out / "fig5_case_Ts0.png") as picture:
        assert picture.width == 240 * (4 + 1 + 4)  # modalities, reference, four patterns
    found = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert found["compared with"] == "the same network before its training"
    printed = capsys.readouterr().out
    for what in ("modality codes", "tumor-specific features"):
        before, after = found[what]["before"], found[what]["after"]
        assert before != after  # the network was built anew
        assert before["points"] == after["points"] > 8
        assert str(after["of the vectors"]) in printed

    assert d2net(*words, "--before", regions_model.folder, "--cases", "1") == 0
    again = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert (again["compared with"], again["cases"]) == (str(regions_model.folder), 1)
    codes = again["modality codes"]
    assert codes["before"] == codes["after"]
    assert codes["after"]["points"] == found["modality codes"]["after"]["points"] // 2
