"""D2-Net's trainers, where ``nnUNet_extTrainer`` lets nnU-Net look for them.

nnU-Net imports this file anew at every lookup, so the classes themselves live in the package: they stay the same
objects and can be pickled.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("nnunetv2_d2net") is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_d2net.plugin.training.variants import find_trainer

__getattr__ = find_trainer
