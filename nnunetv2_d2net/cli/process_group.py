"""The old name of _process_group, until nobody imports it."""

from nnunetv2_d2net.cli._process_group import *  # noqa: F403
