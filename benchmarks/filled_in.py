"""Give a trained nnU-Net what it has learned from: fill in what is missing, and train nothing else.

Three convolutions guess the missing modalities from those that are there. They learn from the fold's training cases, as
preprocessed, by the mean absolute error, lesions counting more; the nnU-Net stays as it is. Printed: its mean Dice over
the fold's validation cases and all regions, by how many modalities are missing, with zeros in their place and with the
guess. MODEL is the folder of a stock model; nnUNet_preprocessed has to hold the data that it was trained on.

    python benchmarks/filled_in.py MODEL --fold 0
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from torch import Tensor, nn

from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.base.text import markdown_table
from nnunetv2_d2net.method.modalities import modality_subsets, zero_missing
from nnunetv2_d2net.plugin.training.companion import mean_dice, target_of

N_STEPS, N_PATCHES, EXTENT, LESION, RATE = 600, 4, 24, 10.0, 3e-3
Case = tuple[Tensor, Tensor]


class Completion(nn.Module):
    """Guess missing modalities from the others, within a voxel's neighbors.

    Args:
        n_modalities: M.
        n_channels: Between the convolutions.
    """

    def __init__(self, n_modalities: int, n_channels: int = 24) -> None:
        super().__init__()
        self.guess = nn.Sequential(
            nn.Conv3d(2 * n_modalities, n_channels, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv3d(n_channels, n_channels, 1),
            nn.LeakyReLU(),
            nn.Conv3d(n_channels, n_modalities, 1),
        )

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """Fill in ``(B, M, z, y, x)`` where ``(B, M)`` is False; what is there stays bit for bit."""
        there = available[..., None, None, None].expand_as(images)
        seen = zero_missing(images, available)
        return torch.where(there, seen, self.guess(torch.cat([seen, there.to(seen.dtype)], 1)))


def main() -> None:
    """Fit, predict, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a stock model")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    predictor = nnUNetPredictor(
        1, use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(args.model), (args.fold,))
    training, validation = cases_of(predictor, args.model, args.fold)
    torch.manual_seed(args.seed)
    begun = time.perf_counter()
    completion = fitted(training)
    took, subsets = time.perf_counter() - begun, modality_subsets(len(training[0][0]))
    n_missing = (~subsets).sum(1)
    header = ["in their place", *(f"{n} missing" for n in range(len(training[0][0]))), "mean of the incomplete"]
    rows: list[list[Any]] = [header]
    for name, fill in (("zeros", zero_missing), ("a guess", completion)):
        dice = dice_of(predictor, validation, subsets, fill)
        means = [dice[n_missing == n].mean() for n in range(len(training[0][0]))]
        rows.append([name, *(f"{mean:.3f}" for mean in (*means, dice[n_missing > 0].mean()))])
    n_weights = sum(p.numel() for p in completion.parameters())
    sys.stdout.write(markdown_table(rows) + f"\n{n_weights} weights, fitted in {took:.0f} s\n")


def cases_of(predictor: nnUNetPredictor, model: Path, fold: int) -> tuple[list[Case], list[Case]]:
    """Return the fold's training and validation cases, images and labels, as nnU-Net has preprocessed them."""
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    folder = Path(str(nnUNet_preprocessed)) / plans.dataset_name
    if not (folder / "splits_final.json").is_file():
        sys.exit(f"{folder / 'splits_final.json'} is missing: set nnUNet_preprocessed to what {model} was trained on")
    data = str(folder / configuration.data_identifier)
    split = load_json(str(folder / "splits_final.json"))[fold]
    both = []
    for names in (split["train"], split["val"]):
        cases: Any = infer_dataset_class(data)(data, names)
        both.append([tuple(torch.from_numpy(np.array(x[:])) for x in cases.load_case(name)[:2]) for name in names])
    return both[0], both[1]


def fitted(cases: Sequence[Case]) -> Completion:
    """Learn to guess, from random cubes with random modalities hidden."""
    n_modalities = len(cases[0][0])
    completion, subsets = Completion(n_modalities), modality_subsets(n_modalities)[:-1]
    optimizer = torch.optim.Adam(completion.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, N_STEPS)
    for _ in Bar(range(N_STEPS), title="learn to guess", total=N_STEPS, shown=True):
        drawn = [cube(*cases[int(torch.randint(len(cases), ()))]) for _ in range(N_PATCHES)]
        images, labels = (torch.stack(x) for x in zip(*drawn, strict=True))
        guess = completion(images, subsets[torch.randint(len(subsets), (N_PATCHES,))])
        loss = ((1 + LESION * (labels > 0)) * (guess - images).abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return completion.eval()


def cube(images: Tensor, labels: Tensor) -> Case:
    """Cut the same random cube out of a case's images and labels; zeros where the case is smaller."""
    spatial = images.shape[1:]
    corner = [int(torch.randint(max(1, extent - EXTENT + 1), ())) for extent in spatial]
    window = (slice(None), *(slice(begin, begin + EXTENT) for begin in corner))
    short = [x for extent in reversed(spatial) for x in (0, max(0, EXTENT - extent))]
    return F.pad(images[window].float(), short), F.pad(labels[window], short)


@torch.inference_mode()
def dice_of(
    predictor: nnUNetPredictor, cases: Sequence[Case], subsets: Tensor, fill: Callable[[Tensor, Tensor], Tensor]
) -> np.ndarray:
    """Return Dice for each subset, the mean over cases and regions."""
    manager: Any = predictor.label_manager
    dice = np.empty((len(subsets), len(cases)))
    for c, (images, labels) in enumerate(Bar(cases, title="predict", total=len(cases), shown=True)):
        target = target_of(labels, manager)
        for s, subset in enumerate(subsets):
            filled = fill(images[None].float(), subset[None])[0]
            logits = cast(Tensor, predictor.predict_sliding_window_return_logits(filled)).float().cpu()
            dice[s, c] = mean_dice(logits, target, manager)
    return dice.mean(1)


if __name__ == "__main__":
    main()
