"""nnU-Net's predictor, told which modalities there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor, nn

from nnunetv2_d2net.modalities import zero_missing


class D2NetPredictor(nnUNetPredictor):
    """Predicts with any trainer's network as if some modalities did not exist.

    Attributes:
        available: Which of the M modalities of dataset.json there are; None leaves everything to nnU-Net.
    """

    available: tuple[bool, ...] | None = None

    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Predict one preprocessed case without the modalities that are not available.

        They become exactly 0 after normalization, as in training, so what their files hold has no influence beyond
        the nonzero region that nnU-Net crops to.

        Args:
            data: Normalized images, ``(M, *spatial)``; a cascade's one-hot previous stage may follow them.

        Returns:
            Logits, ``(C, *spatial)``, on the CPU.
        """
        if self.available is None:
            return super().predict_logits_from_preprocessed_data(data)
        available = torch.tensor(self.available, device=data.device)
        previous_stage = available.new_ones(len(data) - len(available))
        images = zero_missing(data[None], torch.cat([available, previous_stage])[None])[0]
        with _stated(cast(nn.Module, self.network), available.to(self.device)):
            return super().predict_logits_from_preprocessed_data(images)


@contextmanager
def _stated(network: nn.Module, available: Tensor) -> Iterator[None]:
    """Tell a network that can be told which modalities there are, bool ``(M,)``; others see only the zeros."""
    network = getattr(network, "_orig_mod", network)  # the module that torch.compile has wrapped
    if not hasattr(network, "known_available"):
        yield
        return
    before = network.known_available
    network.known_available = available
    try:
        yield
    finally:
        network.known_available = before
