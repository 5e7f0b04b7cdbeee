"""Moved to note.py."""

from nnunetv2_d2net.plugin.prediction.note import *  # noqa: F403
from nnunetv2_d2net.plugin.prediction.note import EXPECTED_DICE, describe_model, read_expected_dice, write_expected_dice  # noqa: F401
