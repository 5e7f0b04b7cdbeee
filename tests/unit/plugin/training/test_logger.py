import math

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
    assert {"gradient_share/seg", "logit_change/codes_swapped", "train_losses"} <= set(logger.get_checkpoint())


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


@pytest.mark.slow
def test_progress_png_is_nnunets_with_panels_below(tmp_path):
    stock, own = LocalLogger(), D2NetLogger(("seg", "rec"))
    pictures = []
    for name, logger in (("stock", stock), ("own", own)):
        fill(logger, 3)
        (tmp_path / name).mkdir()
        logger.plot_progress_png(str(tmp_path / name))
        pictures.append(Image.open(tmp_path / name / "progress.png").convert("RGB"))
    assert pictures[1].width == pictures[0].width
    assert pictures[1].height > pictures[0].height
    panels = pictures[1].crop((0, pictures[0].height, *pictures[1].size))
    assert len(panels.resize((300, 100)).getcolors(100000)) > 20  # not an empty canvas
