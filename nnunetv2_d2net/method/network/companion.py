"""The companion of a stock nnU-Net: a student for any subset of the modalities, beside the network it came from."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import infer_available, subset_codes, zero_missing
from nnunetv2_d2net.method.network.availability import ToldUNet
from nnunetv2_d2net.method.network.d2net import D2Net

STUDENT, STOCK = "student", "stock"
"""Names of the two networks within a :class:`Companion`."""

GATE = "gate"
"""Beside what is said of the two: how far the gate of a D2-Net is open."""


class Companion(nn.Module):
    """Train a student, and let a table say for every subset of modalities which of the two networks predicts.

    Until somebody has measured more, the stock network predicts with all modalities and the student with fewer. One
    network runs for each case, so prediction takes no longer than with one of them. In training only the student runs.

    Args:
        student: A :class:`D2Net`, a :class:`ToldUNet`, or the network that the plans describe, which sees missing
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
        to_stock: list[bool] = self.by_stock[subset_codes(available)].cpu().tolist()  # all that the host waits for
        if all(to_stock):
            return self.stock(zero_missing(images, available))
        if not any(to_stock):
            return self._by_student(images, available, modality_codes)
        codes = None if modality_codes is None else _chosen(modality_codes, to_stock, wanted=False)
        of_student = self._by_student(
            _chosen(images, to_stock, wanted=False), _chosen(available, to_stock, wanted=False), codes
        )
        images, available = (_chosen(x, to_stock, wanted=True) for x in (images, available))
        both = iter(self.stock(zero_missing(images, available))), iter(cast(Tensor, of_student))
        return torch.stack([next(both[0] if of_stock else both[1]) for of_stock in to_stock])

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
        if isinstance(self.student, ToldUNet):
            return self.student(images, available)
        return self.student(images if available is None else zero_missing(images, available))


def _chosen(cases: Tensor, flags: Sequence[bool], *, wanted: bool) -> Tensor:
    """Return the cases ``(B, ...)`` whose flag is the wanted one; a mask, or a list, would make the host wait."""
    return torch.stack([case for case, flag in zip(cases, flags, strict=True) if flag == wanted])


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
