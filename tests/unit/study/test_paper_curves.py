"""The picture of Fig. 8: a curve in a color of its own for each loss that has been measured."""

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from nnunetv2_d2net.base.palette import REGION_COLORS
from nnunetv2_d2net.study.paper_curves import draw_weights

LOSSES = ("sc", "fc", "rec", "kd_feature", "kd_logit")


def columns_of(path, color):
    """The columns of the axes in which a curve is, whose legend stands elsewhere."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    near = (np.abs(pixels - 255 * np.array(to_rgb(color))).max(-1) < 25).sum(0)
    return np.flatnonzero(near)


def test_each_loss_is_a_curve_over_its_weights(tmp_path):
    curves = {loss: {2.0: 60.0 + i, 0.0: 50.0 - i} for i, loss in enumerate(LOSSES)}
    draw_weights(tmp_path / "a.png", curves)
    widths = [np.ptp(columns_of(tmp_path / "a.png", color)) for color in REGION_COLORS[: len(LOSSES)]]
    assert min(widths) > 400  # from the left to the right


def test_what_was_not_measured_has_no_curve(tmp_path):
    draw_weights(tmp_path / "a.png", {"sc": {}, "fc": {}, "rec": {0.0: 40.0, 1.0: 50.0}})
    sc, fc, rec = (np.ptp(columns_of(tmp_path / "a.png", color)) for color in REGION_COLORS[:3])
    assert max(sc, fc) < 60  # a sample in the legend
    assert rec > 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]
