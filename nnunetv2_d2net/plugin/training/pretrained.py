"""Fine-tuning: training that starts from another model's weights, as far as they fit."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_d2net.base.dataset import channels_of
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json_or
from nnunetv2_d2net.base.modality_names import plain_names
from nnunetv2_d2net.base.sides import ORIENTATION
from nnunetv2_d2net.base.text import counted, listed
from nnunetv2_d2net.plugin.checkpoints import check_finite, read_checkpoint
from nnunetv2_d2net.plugin.training.same_plans import differing_settings

_VARIABLE = "D2NET_PRETRAINED_WEIGHTS"
_WRAPPERS = ("module.", "_orig_mod.")
_OF_MODALITIES: Mapping[str, Sequence[int]] = {
    r"encoder\.(stages\.0\.0|stem)\.convs\.0\.(conv|all_modules\.0)\.weight": (1,),
    r"modulation\.linears\.\d+\.weight": (1,),
    r"modulation\.lending\.weight": (0, 2),
    r"imputation\.at_voxel\.weight": (1,),
    r"imputation\.last_layer\.(weight|bias)": (0,),
}
"""Weights of a U-Net, told what is missing or not, that have entries for each modality; and along which axes.

Where there are several rows of entries, such as images and then masks, each is in the order of the modalities.
"""
_OF_SUBSETS = re.compile(r"(^|\.)normalization\.tables\.\d+$")
"""Weights with an axis of two for each modality, whether it is there, and one more."""


@contextmanager
def starting_from(path: Path | None) -> Iterator[None]:
    """Let trainers of this package start from a checkpoint's weights, in processes that are started meanwhile, too.

    nnU-Net's ``-pretrained_weights`` unpickles the file and wants every layer of the network in it.

    Args:
        path: The checkpoint; None for no such.
    """
    if path is None:
        yield
        return
    os.environ[_VARIABLE] = str(path.resolve())
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def pretrained_weights() -> Path | None:
    """Return the checkpoint from which this process's trainer starts, if there is one."""
    path = os.environ.get(_VARIABLE)
    return Path(path) if path else None


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a network without the wrappers of DDP and torch.compile."""
    network = network.module if isinstance(network, DistributedDataParallel) else network
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def load_whole_network(
    network: nn.Module, path: Path, channels: Sequence[str], plans: Mapping[str, Any], configuration: str
) -> None:
    """Take all weights of a checkpoint, which must be those of this network and nothing else.

    The filters of each modality are taken by its name. What the checkpoint's model saw, and what became of its output,
    must be what these plans say, or the network would not segment as it did.

    Args:
        network: Without wrappers.
        path: A checkpoint of nnU-Net's.
        channels: Modalities of the data set, in the order of the network's input.
        plans: Those of the network.
        configuration: Of the plans.

    Raises:
        UserError: It cannot be read without running code in it, holds NaN, or is of another network, of other plans
            or of other modalities.
    """
    checkpoint = read_checkpoint(path)
    theirs, ours = plain_names(_channels_of_model(checkpoint, path)), plain_names(channels)
    if sorted(theirs) not in ([], sorted(ours)):
        raise UserError(
            f"{path} is a model of {', '.join(theirs)}, this data set has {', '.join(ours)}: start from a model of the "
            "same modalities, or let dataset.json call them by the same names"
        )
    if its_plans := _made_for(checkpoint, path, "plans"):
        order = [theirs.index(name) for name in ours] if theirs else range(len(ours))
        if others := differing_settings(plans, its_plans, configuration, order, f"{path}: its plans"):
            raise UserError(
                f"{path} was trained by other plans than the {plans['plans_name']} of now ({listed(others, 5)}): "
                "train that model anew by these, or put its own plans back and preprocess again"
            )
    weights = {_unwrapped(name): weight for name, weight in checkpoint["network_weights"].items()}
    check_finite(path, weights)
    weights, _ = _by_modality(weights, theirs, ours)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path} ({checkpoint['trainer_name']}) is not the network of these plans: "
            "start from a stock nnU-Net that was trained with the same plans and configuration"
        ) from error


def load_fitting_weights(network: nn.Module, path: Path, channels: Sequence[str]) -> list[str]:
    """Take every layer of a checkpoint that fits by name and shape; the others stay as they are.

    A U-Net's filters of each modality are taken by the modality's name, where the checkpoint's model is known to have
    been trained with it: fewer modalities, others in order, or ``T1w`` for ``T1``, are no obstacle.

    Args:
        network: May be wrapped by DDP or torch.compile.
        path: A checkpoint of nnU-Net's, of any trainer.
        channels: Modalities of the data set, in the order of the network's input.

    Returns:
        What was taken and what was not, line by line.

    Raises:
        UserError: It cannot be read without running code in it, holds NaN, or fits nowhere.
    """
    checkpoint, network = read_checkpoint(path), unwrapped(network)
    theirs = {_unwrapped(name): weight for name, weight in checkpoint["network_weights"].items()}
    known = _channels_of_model(checkpoint, path)
    theirs, line = _by_modality(theirs, known, channels)
    layers = _layers(network)
    lacking = {layer: [n for n in own if n not in theirs] for layer, own in layers.items()}
    misfits = {layer for layer, own in layers.items() if any(_differs(own[n], theirs.get(n)) for n in own)}
    fits = {layer: not lacking[layer] and layer not in misfits for layer in layers}
    left = _left_whole(network, fits, others=bool(known and set(plain_names(channels)) - set(plain_names(known))))
    taken = [layer for layer in layers if fits[layer] and _part(layer) not in left]
    if not any(weight.ndim > 1 for layer in taken for weight in layers[layer].values()):
        raise UserError(
            f"-pretrained_weights {path} fits no layer of this network: "
            "pass a checkpoint that was trained on plans with the same network"
        )
    check_finite(path, {n: theirs[n] for layer in taken for n in layers[layer]})
    with torch.no_grad():
        for layer in taken:
            for name, weight in layers[layer].items():
                weight.copy_(theirs[name])
    lines = [f"{path} ({checkpoint['trainer_name']}): {_by_part(taken, layers)} taken"]
    absent = [layer for layer in layers if lacking[layer] and layer not in misfits]
    if misfits:
        lines.append(f"of another shape, left as they are: {listed([n for n in layers if n in misfits], 10)}")
    if left:
        lines.append(f"of other modalities or other plans, left as it is: {listed(left, 10)}")
    if absent:
        lines.append(f"not in the file, left as they are: {_by_part(absent, layers)}")
    unused = dict.fromkeys(_part(name) for name in theirs if name not in network.state_dict())
    if unused:
        lines.append(f"in the file, and not used: {listed(list(unused), 10)}")
    return [*lines, *line]


def _layers(network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the weights of each layer, by their whole names; what a network has under two names comes once."""
    state, layers = network.state_dict(), {}
    for layer, module in network.named_modules():
        names = [name for name in module.state_dict() if "." not in name]
        own = {name: state[name] for name in (f"{layer}.{n}" if layer else n for n in names)}
        if own:
            layers[layer] = own
    return layers


def _left_whole(network: nn.Module, fits: Mapping[str, bool], *, others: bool) -> list[str]:
    """Return the parts that are taken whole or not at all, and cannot: a layer does not fit, or modalities differ."""
    whole: Sequence[str] = getattr(network, "taken_whole", ())
    of_parts = {part: [fits[layer] for layer in fits if _part(layer) == part] for part in whole}
    return [part for part, its in of_parts.items() if any(its) and (others or not all(its))]


def _differs(own: Tensor, other: Tensor | None) -> bool:
    return other is not None and own.shape != other.shape


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _part(name: str) -> str:
    return name.partition(".")[0]


def _by_part(some: Sequence[str], layers: dict[str, dict[str, Tensor]]) -> str:
    parts = dict.fromkeys(_part(layer) for layer in some)
    return ", ".join(
        f"{part} ({sum(_part(s) == part for s in some)} of {counted(sum(_part(n) == part for n in layers), 'layer')})"
        for part in parts
    )


def lies_otherwise(path: Path, counts: Mapping[str, int]) -> list[str]:
    """Warn, in a line, where a checkpoint's model was trained on images that lie as none of those counted does."""
    theirs = read_json_or(path.resolve().parent.parent / "plans.json", {}).get(ORIENTATION)
    if not theirs or theirs in counts:
        return []
    return [
        f"WARNING: that model's training data lie {theirs}, these {' and '.join(counts)}: what it knows of the sides "
        "of a head is wrong here, and has to be learned anew"
    ]


def _made_for(checkpoint: Mapping[str, Any], path: Path, what: str) -> dict[str, Any]:
    """Return the plans or the data set that a checkpoint's model was made for: its own, or else those of its folder.

    Every fold that is trained later writes those of its folder anew.
    """
    own = checkpoint["init_args"].get({"dataset": "dataset_json"}.get(what, what))
    return own if isinstance(own, dict) else read_json_or(path.resolve().parent.parent / f"{what}.json", {})


def _channels_of_model(checkpoint: Mapping[str, Any], path: Path) -> list[str]:
    """Return the modalities of a checkpoint's own model; empty where nobody says."""
    try:
        return list(channels_of(_made_for(checkpoint, path, "dataset")))
    except UserError:
        return []


def _by_modality(
    weights: Mapping[str, Tensor], theirs: Sequence[str], ours: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Bring weights that have an entry for each modality into the order of ours; return them, and a line about it."""
    weights = dict(weights)
    theirs, ours = plain_names(theirs), plain_names(ours)
    if list(theirs) in ([], list(ours)):
        return weights, []
    knows = f"that model knows {', '.join(theirs)}, in this order; this data set has {', '.join(ours)}"
    if set(ours) - set(theirs):
        return weights, [f"WARNING: {knows}"]
    order = torch.tensor([theirs.index(name) for name in ours])
    for name in weights:
        for axis in next((axes for of, axes in _OF_MODALITIES.items() if re.search(rf"(^|\.){of}$", name)), ()):
            if weights[name].shape[axis] % len(theirs) == 0:
                rows = weights[name].unflatten(axis, (-1, len(theirs)))
                weights[name] = rows.index_select(axis + 1, order).flatten(axis, axis + 1)
        if _OF_SUBSETS.search(name) and weights[name].ndim == len(theirs) + 1:
            kept = [modality for modality in theirs if modality in ours]
            of_kept = weights[name][tuple(slice(None) if modality in ours else 0 for modality in theirs)]
            weights[name] = of_kept.permute(*(kept.index(modality) for modality in ours), -1)
    if any("absent_codes" in name for name in weights):  # the rest of a D2-Net goes by the order of the modalities
        return weights, [f"WARNING: {knows}"]
    return weights, [f"{knows}: filters are taken by name"]
