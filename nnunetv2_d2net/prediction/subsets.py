"""Predict cases with every subset of their modalities, one process, one preprocessing per case."""

# pyright: reportIncompatibleMethodOverride=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportFunctionMemberAccess=false, reportOptionalSubscript=false
# nnU-Net declares attributes as None until they are initialized, and narrower types than it uses.

from collections.abc import Sequence
from pathlib import Path

import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from tqdm import tqdm

from nnunetv2_d2net.modalities import modality_subsets
from nnunetv2_d2net.prediction.modality_names import modality_names
from nnunetv2_d2net.prediction.predictor import D2NetPredictor


def subset_name(available: Sequence[bool], names: Sequence[str]) -> str:
    """Name a subset by its modalities.

    Args:
        available: M flags.
        names: M modality names.

    Example:
        >>> subset_name([True, False, True], ["FLAIR", "T1", "T1ce"])
        'FLAIR+T1ce'
    """
    return "+".join(name for name, flag in zip(names, available, strict=True) if flag)


def cases_in(folder: Path, file_ending: str) -> dict[str, list[str]]:
    """List the image files of every case in a folder such as ``imagesTs``, by case, in the order of the channels."""
    cases: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"*_????{file_ending}")):
        cases.setdefault(path.name[: -len(f"_0000{file_ending}")], []).append(str(path))
    return cases


def predict_every_subset(
    predictor: D2NetPredictor, cases: dict[str, list[str]], output_folder: Path, *, show_progress: bool = True
) -> None:
    """Segment every case with every non-empty subset of its modalities.

    A case is read and preprocessed once, with all its modalities; what a subset lacks is dropped after normalization.
    Finished segmentations are kept, so an interrupted call can simply be repeated.

    Args:
        predictor: Initialized from a trained model, of any trainer.
        cases: Image files of each case, one per modality, in the order of dataset.json's channels.
        output_folder: Gets one folder per subset, named as :func:`subset_name` does.
        show_progress: Show a progress bar.
    """
    names = modality_names(predictor.dataset_json)
    subsets = {subset_name(flags, names): tuple(flags) for flags in modality_subsets(len(names)).tolist()}
    ending = predictor.dataset_json["file_ending"]
    with tqdm(total=len(cases) * len(subsets), desc="predict", unit="segmentation", disable=not show_progress) as bar:
        for case, files in cases.items():
            missing = [s for s in subsets if not (output_folder / s / f"{case}{ending}").is_file()]
            bar.update(len(subsets) - len(missing))
            data, properties = _preprocess(predictor, files) if missing else (torch.empty(0), {})
            for subset in missing:
                predictor.available = subsets[subset]
                logits = predictor.predict_logits_from_preprocessed_data(data)
                _export(predictor, logits, properties, output_folder / subset / case)
                bar.update()
    predictor.available = None


def _preprocess(predictor: D2NetPredictor, files: list[str]) -> tuple[torch.Tensor, dict]:
    configuration = predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(
        files, None, predictor.plans_manager, configuration, predictor.dataset_json
    )
    return torch.from_numpy(data), properties


def _export(predictor: D2NetPredictor, logits: torch.Tensor, properties: dict, target: Path) -> None:
    ending = predictor.dataset_json["file_ending"]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".unfinished_{target.name}"
    export_prediction_from_logits(
        logits,
        dict(properties),
        predictor.configuration_manager,
        predictor.plans_manager,
        predictor.dataset_json,
        str(unfinished),
        False,  # noqa: FBT003 - nnU-Net's parameter: no probabilities
    )
    Path(f"{unfinished}{ending}").replace(f"{target}{ending}")
