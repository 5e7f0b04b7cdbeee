"""Plan and preprocess, train a fold, predict every subset: the one way of the demo and of a benchmark's jobs."""

import contextlib
import io
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

from nnunetv2_d2net.base.dataset import dataset_number
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import locked_folder, make_folder, read_json_or, written_whole
from nnunetv2_d2net.base.progress import Bar
from nnunetv2_d2net.plugin.planning.fingerprint import D2NetFingerprintExtractor
from nnunetv2_d2net.plugin.planning.incomplete import incomplete_cases, is_our_planner
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.prediction.note import describe_model
from nnunetv2_d2net.plugin.registration import announce_trainers
from nnunetv2_d2net.plugin.training.pretrained import starting_from
from nnunetv2_d2net.plugin.training.seeds import seed_training

_FINAL = "checkpoint_final.pth"
_CHECKPOINTS = (_FINAL, "checkpoint_latest.pth", "checkpoint_best.pth")
_LOG = logging.getLogger("nnunetv2_d2net")

Trainer = Any
"""nnU-Net's trainer, whose attributes are declared as None."""


class Model(NamedTuple):
    """What nnU-Net knows a model by.

    Attributes:
        results: The data set's folder below nnUNet_results, ``DatasetXXX_NAME``; may not exist yet.
        trainer: Name of the class.
        plans: Name.
        configuration: Of the plans.
    """

    results: Path
    trainer: str
    plans: str
    configuration: str

    @property
    def folder(self) -> Path:
        """Where its folds are."""
        return self.results / f"{self.trainer}__{self.plans}__{self.configuration}"

    def checkpoint(self, fold: str) -> Path:
        """Return the file that a finished training leaves."""
        return self.folder / f"fold_{fold}" / _FINAL

    def kept(self, fold: str) -> Path | None:
        """Return the checkpoint that a training has left, or would go on from; None where none is whole."""
        folder = self.checkpoint(fold).parent
        return next((path for name in _CHECKPOINTS if is_whole(path := folder / name)), None)

    def digests(self, folds: Sequence[str]) -> dict[str, str]:
        """Return the SHA-256 of what finished trainings have left, by path below the folder."""
        return describe_model(self.folder, folds, _FINAL).checkpoints


class QuickFingerprint(D2NetFingerprintExtractor):
    """Our fingerprint from fewer voxels: it draws 10^8 of them however small the images are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - nnU-Net's arguments
        super().__init__(*args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = 10**6


def work_below(out: Path, kind: str) -> Path:
    """Let one folder hold all three of nnU-Net's, and announce our trainers.

    Args:
        out: The folder; made if it does not exist.
        kind: Of what is worked on, for messages.

    Returns:
        Its absolute path.

    Raises:
        UserError: It cannot be written, or holds something else.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "nnUNet_raw").is_dir())):
        raise UserError(f"{out} is not empty and no {kind}: pass another folder with --out")
    for name in ("raw", "preprocessed", "results"):
        folder = out / f"nnUNet_{name}"
        make_folder(folder, "pass another folder with --out")
        os.environ[folder.name] = str(folder)
    announce_trainers()
    os.environ.setdefault("nnUNet_n_proc_DA", "1")
    return out


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what nnU-Net prints to a file; progress bars go to stderr and stay."""
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def plan_and_preprocess(
    dataset_id: int,
    planner: str,
    configuration: str,
    *,
    processes: int,
    extractor: type[DatasetFingerprintExtractor] | None = None,
    progress: bool = False,
) -> None:
    """Extract the fingerprint unless it is there, plan, and preprocess one configuration.

    Args:
        dataset_id: Number of the data set.
        planner: Name of the class; cases may lack modalities where it is one of this package.
        configuration: Of its plans.
        processes: Cases at a time.
        extractor: Makes the fingerprint; None for the one that goes with the planner.
        progress: Show a bar.

    Raises:
        UserError: There is no such planner, a case cannot be used, or another process does the same.
    """
    ours = is_our_planner(planner)
    extractor = extractor or (D2NetFingerprintExtractor if ours else DatasetFingerprintExtractor)
    folder = Path(os.environ["nnUNet_preprocessed"]) / convert_id_to_dataset_name(dataset_id)
    bar = Bar(title="plan and preprocess", total=3, unit="step", shown=progress)
    with locked_folder(folder), incomplete_cases(planner) if ours else contextlib.nullcontext(), bar:
        _drop_broken_fingerprint(folder / "dataset_fingerprint.json")
        planning.extract_fingerprint_dataset(
            dataset_id, extractor, processes, clean=False, verbose=False, show_progress_bar=False
        )
        bar.update()
        plans = str(planning.plan_experiments([dataset_id], planner))
        bar.update()
        planning.preprocess_dataset(dataset_id, plans, (configuration,), (processes,), show_progress_bar=False)
        bar.update()


def make_trainer(model: Model, fold: str, device: torch.device, *, resume: bool = False) -> Trainer:
    """Construct the trainer of a fold: a number or ``all``."""
    number: Any = fold if fold == "all" else int(fold)
    return get_trainer_from_args(
        model.results.name, model.configuration, number, model.trainer, model.plans, resume, device=device
    )


@contextlib.contextmanager
def passing_trainer(model: Model, fold: str, device: torch.device) -> Iterator[Trainer]:
    """Construct a trainer whose files go to a folder that nobody keeps."""
    before = {name: os.environ.get(name) for name in ("nnUNet_results", "nnUNet_wandb_enabled")}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.environ.update(nnUNet_results=folder, nnUNet_wandb_enabled="0")
        try:
            yield make_trainer(model, fold, device)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def make_ready(trainer: Trainer) -> Trainer:
    """Let a trainer be ready to step."""
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    trainer.network.train()
    return trainer


def load_batch(trainer: Trainer) -> dict[str, Any]:
    """Load one batch, and end what loaded it."""
    loaders = trainer.get_dataloaders()
    batch = next(loaders[0])
    for loader in loaders:
        getattr(loader, "_finish", lambda: None)()
    return batch


def use_device(device: torch.device) -> None:
    """Set torch up as nnU-Net's command does for a training on this device."""
    if device.type == "cuda":
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True


def train_fold(
    model: Model,
    fold: str,
    device: torch.device,
    before_saving: Callable[[Trainer], None] = lambda _: None,
    start: Path | None = None,
    seed: int | None = None,
) -> None:
    """Train one fold without nnU-Net's validation on whole cases, from the latest checkpoint if there is one.

    Args:
        model: What to train.
        fold: A number or ``all``.
        device: Where.
        before_saving: Is called with the trainer before it saves a checkpoint.
        start: Checkpoint whose weights a trainer of this package takes unless it goes on with a training.
        seed: Of everything random; None to begin anywhere.

    Raises:
        UserError: A checkpoint cannot be written, or another process trains this fold.
    """
    folder, remedy = model.folder / f"fold_{fold}", "free space; the same command goes on from the checkpoint before"
    with locked_folder(folder):
        resume = _drop_broken_checkpoints(folder)
        seed_training(seed)
        use_device(device)
        trainer = make_trainer(model, fold, device, resume=resume)
        maybe_load_checkpoint(trainer, resume, validation_only=False)
        trainer.save_every = min(trainer.save_every, max(1, trainer.num_epochs // 20))
        save = trainer.save_checkpoint

        def save_whole(filename: str) -> None:  # nnU-Net's own trainers write over the checkpoint before
            before_saving(trainer)
            with written_whole(Path(filename), remedy) as file:
                save(str(file))

        trainer.save_checkpoint = save_whole
        with starting_from(None if resume else start):
            trainer.run_training()


def train_once(
    model: Model, fold: str, device: torch.device, *, processes: int, seed: int | None = None, progress: bool = False
) -> None:
    """Plan, preprocess and train below ``work_below``'s folder, as far as no earlier call has; as ``train_fold``."""
    done = Path(os.environ["nnUNet_preprocessed"]) / model.results.name / "preprocessed"
    if not done.exists():
        number, planner = dataset_number(model.results.name), model.plans.removesuffix("Plans") + "Planner"
        how: dict[str, Any] = {"extractor": QuickFingerprint, "processes": processes, "progress": progress}
        plan_and_preprocess(number, planner, model.configuration, **how)
        done.touch()
    if not is_whole(model.checkpoint(fold)):
        train_fold(model, fold, device, seed=seed)


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written to its end and has not been damaged since, by its archive's checksums."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile):
        return False


def predict_subsets(  # noqa: PLR0913 - settings have defaults
    model: Model,
    folds: Sequence[str],
    images: str | list[list[str]],
    folder: Path,
    device: torch.device,
    *,
    mirroring: bool = True,
    nan_outside_as_zero: bool = False,
    subsets: Collection[tuple[bool, ...]] = (),
    progress: bool = False,
) -> None:
    """Predict every case with every subset of its modalities, except what is there already.

    Args:
        model: What predicts.
        folds: Those that predict together.
        images: A folder, or the files of each case.
        folder: For one folder per subset.
        device: Where.
        mirroring: Average over mirrored images.
        nan_outside_as_zero: Take NaN outside the field of view as 0.
        subsets: M flags of each subset to predict with; empty for every one.
        progress: Show a bar.

    Raises:
        UserError: A case could not be predicted; after all others are.
    """
    use_device(device)
    predictor = AllSubsetsPredictor(use_mirroring=mirroring, device=device, allow_tqdm=progress)
    predictor.nan_outside_as_zero, predictor.only = nan_outside_as_zero, subsets
    predictor.initialize_from_trained_model_folder(str(model.folder), tuple(folds))
    predictor.predict_from_files(images, str(folder), overwrite=False)


def _drop_broken_fingerprint(path: Path) -> None:
    """Remove a fingerprint that was cut short, which nnU-Net would take as it is."""
    if path.is_file() and not read_json_or(path, {}):
        path.unlink()


def _drop_broken_checkpoints(folder: Path) -> bool:
    """Remove checkpoints that were cut short, which nnU-Net would try to go on from; tell whether any is left."""
    there = [path for name in _CHECKPOINTS if (path := folder / name).is_file()]
    whole = [path for path in there if is_whole(path)]
    for path in there:
        if path not in whole:
            _LOG.warning("%s was cut short and is removed", path)
            path.unlink()
    return bool(whole)
