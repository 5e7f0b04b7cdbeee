"""The rows of the paper's Table II, with our loss weights and with the paper's, in 280 steps without augmentation.

For the variable ``nnUNet_extTrainer``; ``benchmarks/table_two.sh`` trains them.
"""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

from nnunetv2_d2net.plugin.training.demo import WatchedTrainer
from nnunetv2_d2net.plugin.training.variants import find_trainer

ROWS = ("NoSFMCNoKD", "OnlySC", "OnlyFC", "NoKD", "OnlyKDFeature", "OnlyKDLogit", "NoSFMC", "")
WEIGHTS = {"Ours": "D2NetTrainer", "Paper": "D2NetTrainerPaperWeights"}

for weights, base in WEIGHTS.items():
    for row in ROWS:
        arm = f"{weights}{row or 'All'}"
        bases = (nnUNetTrainerNoDA, WatchedTrainer, find_trainer(base + row))
        globals()[arm] = type(arm, bases, {"n_epochs": 7, "n_iterations": 40, "__module__": __name__})
