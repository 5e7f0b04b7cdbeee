"""Training that may be interrupted: checkpoints are whole, and one that goes on draws what it would have drawn."""

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint
from nnunetv2_d2net.plugin.training.distributed import DistributedTrainer
from nnunetv2_d2net.plugin.training.same_plans import check_same_plans

RANDOM_STATES = "random_states"
"""Where the optimizer's part of a checkpoint keeps them: what nnU-Net loads from there is handed to the optimizer."""

_OF_ITS_TRAINING = "train anew without --c, or put plans and dataset.json of that training back and preprocess again"

KEPT = "free space on its disk, then go on with --c; the checkpoint before it is kept"
"""What to do when a checkpoint cannot be written."""

_PYTHON_VERSION = 3  # of the states that Python's random has written since 3.2
_NUMPY_NUMBERS = ("pos", "has_gauss", "cached_gaussian")


class ResumingTrainer(DistributedTrainer):
    """nnU-Net's trainer whose checkpoints also hold the states of the random number generators, one set per process.

    nnU-Net restores weights, optimizer, gradient scaler, epoch and logs. The states come with the optimizer's, through
    torch's own hooks, as tensors and numbers; any nnU-Net reads such a checkpoint.
    """

    continues: bool = False
    loaded_random_states: dict[str, Any] | None = None
    _states_of_all: list[dict[str, Any]] | None = None

    def initialize(self) -> None:
        """Initialize as nnU-Net does, and let the optimizer carry the random states."""
        super().initialize()
        self.optimizer.register_state_dict_post_hook(self._add_random_states)
        self.optimizer.register_load_state_dict_pre_hook(self._take_random_states)

    def random_states(self) -> dict[str, Any]:
        """Return the states of all generators that training draws from, as tensors, numbers and text."""
        states: dict[str, Any] = {"python": _python_state(), "numpy": _numpy_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def restore_random_states(self, states: dict[str, Any]) -> None:
        """Set all generators to what :meth:`random_states` returned; a state that is missing is left as it is."""
        if "python" in states:
            random.setstate((_PYTHON_VERSION, tuple(states["python"]["state"].tolist()), states["python"]["gauss"]))
        if "numpy" in states:
            key = states["numpy"]["key"].cpu().numpy()
            np.random.set_state(("MT19937", key, *(states["numpy"][name] for name in _NUMPY_NUMBERS)))
        if "torch" in states:
            torch.set_rng_state(states["torch"].cpu())
        if "cuda" in states and self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"].cpu(), self.device)

    def on_train_start(self) -> None:
        """Start as nnU-Net does, which draws a first batch, and then go on drawing where the checkpoint stopped."""
        super().on_train_start()
        if self.loaded_random_states is not None:
            self.restore_random_states(self.loaded_random_states)
            self.loaded_random_states = None

    def run_training(self) -> None:
        """Train as nnU-Net does; where that fails, end the loaders, which would report that their workers are gone."""
        try:
            super().run_training()
        except Exception:
            for loader in (self.dataloader_train, self.dataloader_val):
                if isinstance(loader, NonDetMultiThreadedAugmenter):
                    loader._finish()
            raise

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint whole or not at all; whatever happens meanwhile, the one before it stays.

        Raises:
            UserError: It cannot be written.
        """
        self._states_of_all = self._gather_random_states()
        try:
            if self.local_rank != 0 or self.disable_checkpointing:
                super().save_checkpoint(filename)
                return
            with written_whole(Path(filename), KEPT) as unfinished:
                super().save_checkpoint(str(unfinished))
        finally:
            self._states_of_all = None

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load a checkpoint, and know the best pseudo-Dice of all its epochs.

        nnU-Net writes ``checkpoint_latest`` before it compares the epoch's pseudo-Dice with the best one.

        Raises:
            UserError: The file cannot be read without running code in it, or is of another network or trainer.
        """
        path = self._newest(Path(cast(str, filename_or_checkpoint)))  # nnU-Net's own cannot load a dict
        try:
            made_for = read_checkpoint(path)["init_args"]  # nnU-Net unpickles it
        except UserError as error:
            raise UserError(f"{error}; or remove it, and --c goes on from another one of its folder") from error
        check_same_plans(path, made_for, self.plans_manager.plans, self.dataset_json, _OF_ITS_TRAINING)
        try:
            super().load_checkpoint(str(path))
        except KeyError as error:
            raise UserError(f"{path} lacks {error}, it was exported for prediction: go on with the original") from error
        except (RuntimeError, ValueError) as error:
            if "state_dict" not in str(error) and "state dict" not in str(error):
                raise
            raise UserError(
                f"{path} does not fit {type(self).__name__} on these plans: "
                "train anew without --c, or use the trainer that wrote it"
            ) from error
        self._best_ema = max(self.logger.get_value("ema_fg_dice", step=None), default=None)

    def _newest(self, path: Path) -> Path:
        """Return the latest checkpoint where a training that is to go on has begun anew beside a finished one.

        nnU-Net would take the finished one, and remove the latest. It does so, too, when a training ends.
        """
        latest = path.with_name("checkpoint_latest.pth")
        if not (self.continues and path.name == "checkpoint_final.pth" and latest.is_file()):
            return path
        self.print_to_log_file(f"{path.name} is of an earlier training: going on with {latest.name}")
        return latest

    def _gather_random_states(self) -> list[dict[str, Any]]:
        states = self.random_states()
        if not self.is_ddp:
            return [states]
        of_all: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(of_all, states)
        return of_all

    def _add_random_states(self, _optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        if self._states_of_all is not None:
            state_dict[RANDOM_STATES] = self._states_of_all

    def _take_random_states(self, _optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        of_all = state_dict.pop(RANDOM_STATES, [])
        if self.local_rank < len(of_all):  # a process that was not there before keeps its own
            self.loaded_random_states = of_all[self.local_rank]


def _python_state() -> dict[str, Any]:
    _, state, gauss = random.getstate()
    return {"state": torch.tensor(state), "gauss": gauss}


def _numpy_state() -> dict[str, Any]:
    _, key, *numbers = cast(tuple, np.random.get_state())
    return {"key": torch.from_numpy(key.astype(np.int64)), **dict(zip(_NUMPY_NUMBERS, numbers, strict=True))}
