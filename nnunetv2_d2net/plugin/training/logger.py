"""nnU-Net's logger with D2-Net's own curves, also in progress.png."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from PIL import Image

DPI = 100  # of nnU-Net's progress.png
LOGIT_CHANGES = ("bottleneck_zeroed", "codes_swapped")
GATE = ("logit_change/gate_shut", "gate/opening")
CODE_VARIANCES = ("within_modality", "between_modalities")
PANELS = {
    "loss": "loss term (unweighted)",
    "gradient_share": "share of the gradient on the encoder",
    "logit_change": "relative change of the logits",
    "codes": "variance of the code directions",
    "gate": "opening of the bottleneck's gate",
}


class D2NetLogger(LocalLogger):
    """Keeps one value per epoch for every loss term, gradient share and logit change.

    Args:
        terms: Names of the loss terms.
        gated: The network has a gate before its bottleneck.
    """

    def __init__(self, terms: Sequence[str], *, gated: bool = False) -> None:
        super().__init__()
        self.own_keys = [f"{group}/{term}" for group in ("loss", "gradient_share") for term in terms]
        self.own_keys += [f"logit_change/{name}" for name in LOGIT_CHANGES]
        self.own_keys += [f"codes/{name}" for name in CODE_VARIANCES]
        self.own_keys += GATE if gated else ()
        self._add_own_keys()

    def load_checkpoint(self, checkpoint: dict) -> None:
        """Take over the curves of a checkpoint; epochs that did not log ours count as NaN."""
        super().load_checkpoint(checkpoint)
        self._add_own_keys()

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw nnU-Net's progress.png and put D2-Net's panels below it."""
        super().plot_progress_png(output_folder)
        path = Path(output_folder) / "progress.png"
        with Image.open(path) as stock:
            picture = stock.copy()
        panels = self._draw_panels(picture.width)
        whole = Image.new("RGB", (picture.width, picture.height + panels.height))
        whole.paste(picture)
        whole.paste(panels, (0, picture.height))
        whole.save(path, compress_level=1)

    def _add_own_keys(self) -> None:
        n_epochs = len(self.my_fantastic_logging["epoch_end_timestamps"])
        for key in self.own_keys:
            self.my_fantastic_logging.setdefault(key, [math.nan] * n_epochs)

    def _draw_panels(self, width: int) -> Image.Image:
        groups = {key.split("/")[0] for key in self.own_keys}
        panels = {group: title for group, title in PANELS.items() if group in groups}
        figure, axes = plt.subplots(1, len(panels), figsize=(width / DPI, 10), dpi=DPI)
        for axis, (group, title) in zip(axes, panels.items(), strict=True):
            for key in (k for k in self.own_keys if k.startswith(group + "/")):
                axis.plot(self.my_fantastic_logging[key], label=key.split("/")[1], linewidth=3)
            axis.set(xlabel="epoch", ylabel=title)
            if group == "loss":
                axis.set_yscale("symlog", linthresh=0.01)
            axis.legend(fontsize="xx-small", loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
        figure.tight_layout()
        drawn = io.BytesIO()
        figure.savefig(drawn, format="rgba")
        plt.close(figure)
        return Image.frombytes("RGBA", (width, 10 * DPI), drawn.getvalue())
