"""D2-Net's planners: link this file into ``nnunetv2/experiment_planning`` and ``-pl`` finds them.

``d2net register`` does the same, and ``d2net plan_and_preprocess`` needs neither.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("nnunetv2_d2net") is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_d2net.plugin.planning import planner

globals().update({name: getattr(planner, name) for name in planner.__all__})
