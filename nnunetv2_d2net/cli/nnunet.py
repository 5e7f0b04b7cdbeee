"""The old name of _nnunet, until nobody imports it."""

from nnunetv2_d2net.cli._nnunet import *  # noqa: F403
