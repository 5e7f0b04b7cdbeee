"""Code that plans name: nnU-Net imports and calls whatever stands there, so here it is looked at first."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunetv2_d2net.base.errors import UserError

_NETWORKS = "dynamic_network_architectures.architectures"
_LAYERS = ("torch.nn", "dynamic_network_architectures")
_DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_U_NETS = ("PlainConvUNet", "ResidualEncoderUNet")
_MOVED = re.compile(rf"dynamic_network_architectures(\.[A-Za-z_]\w*)*\.({'|'.join(_U_NETS)})", re.ASCII)
"""nnU-Net looks a network by its last name up where its module is no more."""
_TRUST = "use nnU-Net's own commands only if you know what it does"

_RESAMPLING = "preprocessing.resampling"
_SEARCHED: Mapping[str, tuple[str, type | None]] = {
    "image_reader_writer": ("imageio", BaseReaderWriter),
    "label_manager": ("utilities.label_handling", LabelManager),
    "preprocessor_name": ("preprocessing", DefaultPreprocessor),
    "normalization_schemes": ("preprocessing.normalization", ImageNormalization),
    **{f"resampling_fn_{kind}": (_RESAMPLING, None) for kind in ("data", "seg", "probabilities")},
}
"""Names that nnU-Net searches for in a part of its package, taking any attribute of any module; what each must be."""


def check_named_code(plans: Mapping[str, Any], configuration: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that names other code than nnU-Net's and the layers of torch.nn.

    Args:
        plans: Content of the plans, of the right types.
        configuration: One of theirs, with what it inherits.
        where: File and configuration, for messages.

    Raises:
        UserError: It does. Nothing that it names has been imported or called.
    """
    if "architecture" in configuration:
        check_architecture(configuration["architecture"], where)
    elif configuration["UNet_class_name"] not in _U_NETS:
        raise _foreign(where, configuration["UNet_class_name"])
    for key, (folder, base) in _SEARCHED.items():
        names = configuration.get(key, plans.get(key, ()))
        for name in [names] if isinstance(names, str) else names:
            if not _is_own(folder, name, base):
                raise UserError(f'{where}: "{key}" names {name}, which is none of nnU-Net\'s: plan again')


def check_architecture(architecture: Mapping[str, Any], where: str) -> None:
    """Refuse a network or a layer that is not a class of the network package or of torch.nn.

    Args:
        architecture: Of a configuration.
        where: The plans, for messages.

    Raises:
        UserError: There is one. Nothing that is named has been imported or called.
    """
    network, arguments = architecture["network_class_name"], architecture["arch_kwargs"]
    if not _is_module(network, (_NETWORKS,)) and not _MOVED.fullmatch(network):
        raise _foreign(where, network)
    for key in architecture["_kw_requires_import"]:
        if key not in arguments:
            raise UserError(f'{where}: "arch_kwargs" lacks "{key}", which is to be imported: plan again')
        layer = arguments[key]
        if layer is not None and not (isinstance(layer, str) and _is_module(layer, _LAYERS)):
            raise _foreign(where, layer)


def _foreign(where: str, name: object) -> UserError:
    return UserError(
        f"{where} names code from elsewhere, {name}, not a class of torch.nn or of nnU-Net's networks: {_TRUST}"
    )


def _is_module(name: str, packages: tuple[str, ...]) -> bool:
    """Tell whether a dotted name is that of a layer or network which one of these packages defines.

    No attribute is followed but the last one, which must stand in a module of these packages itself: what their
    modules import, such as ``os``, cannot be reached.
    """
    if not _DOTTED_NAME.fullmatch(name):
        return False
    module_name, _, class_name = name.rpartition(".")
    if not _lies_in(module_name, packages):
        return False
    try:
        module = import_module(module_name)
    except ImportError:
        return False
    found = vars(module).get(class_name)
    return isinstance(found, type) and issubclass(found, nn.Module) and _lies_in(found.__module__, packages)


def _lies_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@cache
def _is_own(folder: str, name: str, base: type | None) -> bool:
    """Tell whether nnU-Net finds a class of a kind, or with no base a function, under this name."""
    package = f"{nnunetv2.__name__}.{folder}"
    path = Path(nnunetv2.__path__[0], *folder.split("."))
    found = recursive_find_python_class(str(path), name, package)
    if base is None:
        return isfunction(found) and _lies_in(found.__module__, (package,))
    return isinstance(found, type) and issubclass(found, base)
