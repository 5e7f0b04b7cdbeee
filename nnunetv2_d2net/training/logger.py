"""nnU-Net's logger with D2-Net's own curves, also in progress.png."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import LocalLogger

LOGIT_CHANGES = ("bottleneck_zeroed", "codes_swapped")
PANELS = {
    "loss": "loss term (unweighted)",
    "gradient_share": "share of the gradient on the encoder",
    "logit_change": "relative change of the logits",
}


class D2NetLogger(LocalLogger):
    """Keeps one value per epoch for every loss term, gradient share and logit change.

    Args:
        terms: Names of the loss terms.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__()
        self.own_keys = [f"{group}/{term}" for group in ("loss", "gradient_share") for term in terms]
        self.own_keys += [f"logit_change/{name}" for name in LOGIT_CHANGES]
        self._add_own_keys()

    def load_checkpoint(self, checkpoint: dict) -> None:
        """Take over the curves of a checkpoint; epochs that did not log ours count as NaN."""
        super().load_checkpoint(checkpoint)
        self._add_own_keys()

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw nnU-Net's progress.png and put D2-Net's panels below it."""
        super().plot_progress_png(output_folder)
        path = Path(output_folder) / "progress.png"
        picture = plt.imread(path)[..., :3]
        own = self._draw_panels(width=picture.shape[1])
        plt.imsave(path, np.concatenate((picture, own)))

    def _add_own_keys(self) -> None:
        n_epochs = len(self.my_fantastic_logging["epoch_end_timestamps"])
        for key in self.own_keys:
            self.my_fantastic_logging.setdefault(key, [math.nan] * n_epochs)

    def _draw_panels(self, width: int) -> np.ndarray:
        figure, axes = plt.subplots(len(PANELS), 1, figsize=(width / 100, 18 * len(PANELS)), dpi=100)
        for axis, (group, title) in zip(axes, PANELS.items(), strict=True):
            for key in (k for k in self.own_keys if k.startswith(group + "/")):
                axis.plot(self.my_fantastic_logging[key], label=key.split("/")[1], linewidth=4, marker="o")
            axis.set(xlabel="epoch", ylabel=title)
            axis.set_yscale("log" if group == "loss" else "linear")
            axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
        figure.tight_layout()
        pixels = _pixels(figure)
        plt.close(figure)
        return pixels


def _pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(np.float32) / 255  # pyright: ignore[reportAttributeAccessIssue]
