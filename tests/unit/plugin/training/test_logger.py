import math

import matplotlib.pyplot as plt
import pytest
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from PIL import Image

from nnunetv2_d2net.plugin.training.logger import D2NetLogger


def fill(logger, n_epochs):
    for epoch in range(n_epochs):
        for key in list(logger.my_fantastic_logging):
            logger.log(key, 100.0 * epoch + 7.0, epoch)


def test_own_curves_are_logged_beside_nnunets():
    logger = D2NetLogger(("seg", "rec"))
    fill(logger, 2)
    assert logger.get_value("loss/rec", None) == [7.0, 107.0]
    own = [f"{group}/{term}" for group in ("loss", "gradient_share") for term in ("seg", "rec")]
    own += ["logit_change/bottleneck_zeroed", "logit_change/codes_swapped"]
    own += ["codes/within_modality", "codes/between_modalities"]
    assert list(logger.get_checkpoint()) == [*LocalLogger().get_checkpoint(), *own]
    gated = D2NetLogger(("seg", "rec"), gated=True)
    assert gated.own_keys == [*own, "logit_change/gate_shut", "gate/opening"]


def test_a_checkpoint_without_own_curves_is_filled_up():
    stock = LocalLogger()
    fill(stock, 3)
    logger = D2NetLogger(("seg",))
    logger.load_checkpoint(stock.get_checkpoint())
    assert all(math.isnan(value) for value in logger.get_value("loss/seg", None))
    logger.log("loss/seg", 1.0, 3)
    assert len(logger.get_value("loss/seg", None)) == 4


def test_own_checkpoint_goes_on():
    first = D2NetLogger(("seg",))
    fill(first, 2)
    second = D2NetLogger(("seg",))
    second.load_checkpoint(first.get_checkpoint())
    assert second.get_value("loss/seg", None) == [7.0, 107.0]


def test_a_new_curve_counts_the_epochs_that_did_not_log_it():
    logger = D2NetLogger(("seg",))
    fill(logger, 1)
    assert {len(logger.get_value(key, None)) for key in logger.own_keys} == {1}
    assert D2NetLogger(("seg",)).get_value("loss/seg", None) == []


@pytest.mark.parametrize("gated", [False, True])
def test_progress_png_is_nnunets_with_panels_below(tmp_path, monkeypatch, gated):
    def plot_progress_png(_, folder):
        Image.new("RGBA", (640, 40), "red").save(f"{folder}/progress.png")

    figures = []
    monkeypatch.setattr(LocalLogger, "plot_progress_png", plot_progress_png)
    monkeypatch.setattr(plt, "close", figures.append)
    logger = D2NetLogger(("seg", "rec"), gated=gated)
    fill(logger, 2)
    logger.plot_progress_png(str(tmp_path))
    picture = Image.open(tmp_path / "progress.png")
    assert (picture.mode, picture.size) == ("RGB", (640, 40 + 1000))
    assert picture.crop((0, 0, 640, 40)).getcolors() == [(640 * 40, (255, 0, 0))]
    assert len(picture.crop((0, 40, 640, 1040)).getcolors(100000)) > 20  # not an empty canvas
    assert picture.crop((0, 40, 640, 41)).getcolors() == [(640, (255, 255, 255))]  # from edge to edge
    (figure,) = figures
    assert figure.get_size_inches().tolist() == [6.4, 10]
    assert figure.axes[0].get_gridspec().ncols == len(figure.axes)  # side by side
    shown = {}
    for axis in figure.axes:
        assert all(list(line.get_ydata()) == [7, 107] for line in axis.lines)
        shown[axis.get_ylabel()] = [text.get_text() for text in axis.get_legend().get_texts()]
        assert axis.get_yscale() == ("symlog" if axis is figure.axes[0] else "linear")
        assert axis.get_xlabel() == "epoch"
    gate = {"opening of the bottleneck's gate": ["opening"]} if gated else {}
    assert shown == {
        "loss term (unweighted)": ["seg", "rec"],
        "share of the gradient on the encoder": ["seg", "rec"],
        "relative change of the logits": ["bottleneck_zeroed", "codes_swapped", *(["gate_shut"] if gated else [])],
        "variance of the code directions": ["within_modality", "between_modalities"],
        **gate,
    }
