"""The old name of _checks, until nobody imports it."""

from nnunetv2_d2net.cli._checks import *  # noqa: F403
