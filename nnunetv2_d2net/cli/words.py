"""The old name of _words, until nobody imports it."""

from nnunetv2_d2net.cli._words import *  # noqa: F403
