"""The companion of a stock nnU-Net: a student for any subset of the modalities, beside the network it came from."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import infer_available, subset_codes, zero_missing
from nnunetv2_d2net.method.network.availability import ModulatedUNet
from nnunetv2_d2net.method.network.d2net import D2Net

STUDENT, STOCK = "student", "stock"
"""Names of the two networks within a :class:`Companion`."""


class Companion(nn.Module):
    """Train a student, and let a table say for every subset of modalities which of the two networks predicts.

    Until somebody has measured more, the stock network predicts with all modalities and the student with fewer. One
    network runs for each case, so prediction takes no longer than with one of them. In training only the student runs.

    Args:
        student: A :class:`D2Net`, a :class:`ModulatedUNet`, or the network that the plans describe, which sees missing
            modalities as zeros.
        stock: The network that the plans describe, without deep supervision; it is frozen.
        n_modalities: M.

    Attributes:
        student_only: Evaluate the student alone, whatever the table says.
    """

    by_stock: Tensor

    def __init__(self, student: nn.Module, stock: nn.Module, n_modalities: int) -> None:
        super().__init__()
        self.student = student
        self.stock: nn.Module | None = stock.requires_grad_(requires_grad=False)
        self.student_only = False
        by_stock = torch.zeros(2**n_modalities, dtype=torch.bool)
        by_stock[-1] = True
        self.register_buffer("by_stock", by_stock)
        self.register_load_state_dict_pre_hook(_fit_student_alone)

    def forward(
        self, images: Tensor, available: Tensor | None = None, modality_codes: Tensor | None = None
    ) -> object:  # what the student returns
        """Segment; in training, return what the student returns.

        Args:
            images: Normalized images, ``(B, M, *spatial)``; what an unavailable modality holds has no influence.
            available: Bool ``(B, M)``; None for callers that can hand over nothing but images, see
                :func:`nnunetv2_d2net.method.modalities.infer_available`.
            modality_codes: As :meth:`D2Net.forward` takes them; other students have none.
        """
        if self.training or self.student_only or self.stock is None:
            return self._by_student(images, available, modality_codes)
        available = infer_available(images) if available is None else available
        to_stock = self.by_stock[subset_codes(available)]
        if bool(to_stock.all()):
            return self.stock(zero_missing(images, available))
        if not bool(to_stock.any()):
            return self._by_student(images, available, modality_codes)
        to_student = ~to_stock
        codes = None if modality_codes is None else modality_codes[to_student]
        of_student = cast(Tensor, self._by_student(images[to_student], available[to_student], codes))
        logits = of_student.new_empty(len(images), *of_student.shape[1:])
        logits[to_student] = of_student
        logits[to_stock] = self.stock(zero_missing(images[to_stock], available[to_stock]))
        return logits

    def by_name(self, name: str, images: Tensor, available: Tensor) -> Any:  # noqa: ANN401 - what the network returns
        """Segment with one of the two networks, :data:`STOCK` or :data:`STUDENT`; arguments as for the call."""
        if name == STOCK and self.stock is not None:
            return self.stock(zero_missing(images, available))
        return self._by_student(images, available, None)

    def train(self, mode: bool = True) -> "Companion":
        """Set the mode of the student; the stock network always evaluates."""
        super().train(mode)
        if self.stock is not None:
            self.stock.eval()
        return self

    def discard_stock(self) -> None:
        """Keep the student alone, which then predicts with every subset."""
        self.stock = None

    @property
    def encoder(self) -> nn.Module:
        """The student's encoder, under nnU-Net's name."""
        return cast(nn.Module, self.student.encoder)

    @property
    def modality_encoder(self) -> nn.Module | None:
        """The student's, whose codes all subsets of a case share; None where it has none."""
        return getattr(self.student, "modality_encoder", None)

    @property
    def decoder(self) -> nn.Module:
        """The student's decoder: nnU-Net switches its deep supervision on and off."""
        return cast(nn.Module, self.student.decoder)

    def _by_student(self, images: Tensor, available: Tensor | None, modality_codes: Tensor | None) -> object:
        if isinstance(self.student, D2Net):
            return self.student(images, available, modality_codes)
        if isinstance(self.student, ModulatedUNet):
            return self.student(images, available)
        return self.student(images if available is None else zero_missing(images, available))


def chosen_network(weights: Mapping[str, Tensor], available: Sequence[bool]) -> str | None:
    """Tell which network of a companion predicts with a subset: :data:`STOCK` or :data:`STUDENT`.

    Args:
        weights: The companion's, by name; None is returned for those of another network.
        available: M flags.
    """
    if "by_stock" not in weights:
        return None
    has_stock = any(name.startswith(f"{STOCK}.") for name in weights)
    return STOCK if has_stock and bool(weights["by_stock"][subset_codes(torch.tensor([available]))]) else STUDENT


def _fit_student_alone(network: Companion, state_dict: dict, prefix: str, *_: object) -> None:
    """Before loading weights that were exported without the stock network, drop it here, too."""
    if not any(name.startswith(f"{prefix}{STOCK}.") for name in state_dict):
        network.discard_stock()
