"""One forward pass of a tile for several subsets of its modalities."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.availability import ToldUNet
from nnunetv2_d2net.method.network.companion import Companion
from nnunetv2_d2net.method.network.d2net import D2Net


class StackedHeads(NamedTuple):
    """What nnU-Net's sliding window reads of a label manager: how many maps the network returns."""

    num_segmentation_heads: int


class SubsetNetwork(nn.Module):
    """Segment one tile with every one of some subsets, their logits side by side on the channel axis.

    nnU-Net's sliding window then accumulates all subsets at once. Our networks are told the masks; D2-Net and a
    companion encode each modality's codes once for all subsets. Others see the missing modalities as zeros.

    Args:
        network: Any network of nnU-Net's, compiled or not.
        subsets: Bool ``(S, M)``, on the network's device.
        unmirrored: Positions of P subsets whose logits of the tile as it is are kept, beside nnU-Net's average over
            mirrored tiles.
    """

    def __init__(self, network: nn.Module, subsets: Tensor, unmirrored: Sequence[int] = ()) -> None:
        super().__init__()
        self.network = network
        self.subsets = subsets
        self.unmirrored = list(unmirrored)
        self.kept: Tensor | None = None

    @property
    def n_maps(self) -> int:
        """S + P."""
        return len(self.subsets) + len(self.unmirrored)

    def forward(self, tile: Tensor) -> Tensor:
        """Map one tile ``(1, M, *patch)`` to logits ``(1, S * C, *patch)``."""
        n_subsets = len(self.subsets)
        tiles = tile.expand(n_subsets, *tile.shape[1:])
        bare = self.bare_network
        if isinstance(bare, ToldUNet):
            logits = self.network(tiles, self.subsets)
        elif isinstance(bare, (D2Net, Companion)):
            codes = bare.modality_encoder(tile) if n_subsets > 1 and bare.modality_encoder is not None else None
            codes = None if codes is None else codes.expand(n_subsets, *codes.shape[1:])
            logits = self.network(tiles, self.subsets, codes)
        else:
            logits = self.network(zero_missing(tiles, self.subsets))
        if self.unmirrored and self.kept is None:
            # copied, as nnU-Net adds the others in place; one by one, as a GPU would wait for a list of positions
            self.kept = torch.cat([logits[position] for position in self.unmirrored])[None]
        return logits.flatten(0, 1)[None]

    def with_unmirrored(self, average: Tensor) -> Tensor:
        """Put the P kept logits behind nnU-Net's average of a tile: ``(1, (S + P) * C, *patch)``."""
        kept, self.kept = self.kept, None
        return average if kept is None else torch.cat([average, kept], 1)

    @property
    def bare_network(self) -> nn.Module:
        """The network without torch.compile's wrapper."""
        return cast(nn.Module, getattr(self.network, "_orig_mod", self.network))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - torch's signature
        """Load weights into the wrapped network: nnU-Net does so for every fold."""
        return self.bare_network.load_state_dict(*args, **kwargs)
