"""What was measured with a model is kept with it, for the notes of later predictions."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from nnunetv2_d2net.base.dataset import subset_name
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import content_state, read_json, sha256_of
from nnunetv2_d2net.plugin.prediction.note import (
    AVAILABLE_NAMES,
    CHECKPOINTS,
    EXPECTED_DICE,
    VOLUMES,
    Measured,
    read_measured,
    write_measured,
)
from nnunetv2_d2net.plugin.prediction.writing import FILES, NOTE
from nnunetv2_d2net.study.scores.evaluate import ALL_GIVEN
from nnunetv2_d2net.study.scores.metrics import CaseScore
from nnunetv2_d2net.study.scores.tables import summarize

_PREDICT = "predict anew with this model by d2net predict, or leave out --model"


def keep_scores(
    scores: Sequence[CaseScore],
    model: Path,
    cases: str,
    checkpoints: Mapping[str, str],
    found: Mapping[tuple[str, str, str], float] | None = None,
) -> None:
    """Write what was measured by subset and region, and on how many cases, into a model's folder.

    Args:
        scores: Of what the checkpoints have segmented; the subset of each is named by what was given.
        model: ``TRAINER__PLANS__CONFIGURATION``.
        cases: What was measured on, in words.
        checkpoints: SHA-256 of each, by path below the folder.
        found: Ml of a case, subset and region; what was found in cases without the region is kept, too.
    """
    table: dict[str, dict[str, Measured]] = {score.subset: {} for score in scores}
    regions = {score.region for score in scores}
    for region, by_subset in summarize(scores, "dice").items():
        for subset, part in by_subset.items():
            if region in regions and subset in table:  # else a mean over regions or subsets
                absent = [s[:3] for s in scores if s[1:3] == (subset, region) and not s.reference_voxels]
                false_ml = [found[key] for key in absent if key in found] if found else []
                sd, mean_ml = None if math.isnan(part.sd) else part.sd, fmean(false_ml) if false_ml else None
                table[subset][region] = Measured(part.mean, sd, part.n, mean_ml, len(false_ml) or None)
    write_measured(model, table, cases, checkpoints)


def keep_with_model(scores: Iterable[CaseScore], predictions: Path, model: Path, cases: str) -> Path:
    """Write the Dice by subset into a model's folder, if its checkpoints made every prediction.

    Args:
        scores: Of the predictions.
        predictions: Where they lie, one folder per subset or one plain folder, each with its note beside it. The note
            says which modalities a plain folder's segmentation was made from.
        model: ``TRAINER__PLANS__CONFIGURATION``.
        cases: What was measured on, in words.

    Returns:
        The file.

    Raises:
        UserError: A prediction has no note, was made by other checkpoints, or the file cannot be written, or says more.
    """
    if not model.is_dir():
        raise UserError(f"{model} is no folder: name the folder of the model, TRAINER__PLANS__CONFIGURATION")
    checkpoints: dict[str, str] = {}
    subsets: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str, str], float] = {}
    measured = list(scores)
    for case, subset in dict.fromkeys(score[:2] for score in measured):
        path = predictions / ("" if subset == ALL_GIVEN else subset) / f"{case}{NOTE}"
        note = read_json(path, _PREDICT, {AVAILABLE_NAMES: list, CHECKPOINTS: dict})
        available, made_by = note[AVAILABLE_NAMES], note[CHECKPOINTS]
        _check_checkpoints(path, made_by, model, checkpoints)
        _check_unchanged(path, note.get(FILES, {}))
        subsets[case, subset] = subset_name([True] * len(available), available)
        found |= {(case, subsets[case, subset], region): ml for region, ml in note.get(VOLUMES, {}).items()}
    by_modalities = Counter((case, of) for (case, _), of in subsets.items())
    for case, of in (key for key, n in by_modalities.items() if n > 1):
        folders = ", ".join(subset for (of_case, subset), by in subsets.items() if (of_case, by) == (case, of))
        raise UserError(f"{predictions}: {folders} hold {case} with {of} each: evaluate one of these folders at a time")
    measured = [score._replace(subset=subsets[score[:2]]) for score in measured]
    _check_not_more(model, checkpoints, measured)
    keep_scores(measured, model, cases, checkpoints, found)
    return model / EXPECTED_DICE


def _check_not_more(model: Path, checkpoints: Mapping[str, str], scores: Sequence[CaseScore]) -> None:
    """Refuse to replace what the same checkpoints reached on more cases, or with another subset."""
    of_now = Counter((score.subset, score.region) for score in scores if not math.isnan(score.dice))
    for subset, regions in read_measured(model, checkpoints).items():
        more = [region for region, before in regions.items() if (before.n or 0) > of_now[subset, region]]
        if more or not any(score.subset == subset for score in scores):
            raise UserError(
                f"{model / EXPECTED_DICE} was measured on more cases or subsets (such as {subset}): "
                "leave --model out, or remove this file first to replace it"
            )


def _check_unchanged(path: Path, files: Mapping[str, object]) -> None:
    """Refuse a segmentation that is not the one of its note."""
    target = str(path).removesuffix(NOTE)
    for file, state in ((Path(f"{target}{ending}"), state) for ending, state in files.items()):
        if file.is_file() and content_state(file) != state:
            raise UserError(f"{file} is not what its note {path.name} is of: {_PREDICT}")


def _check_checkpoints(path: Path, made_by: dict[str, str], model: Path, known: dict[str, str]) -> None:
    """Compare what a note names with what the model holds, each file hashed once."""
    for name in made_by:
        if name not in known and (model / name).is_file():
            known[name] = sha256_of(model / name)
    other = next((name for name, digest in made_by.items() if known.get(name) != digest), None)
    if other or not made_by:
        raise UserError(f"{path}: {other or 'no checkpoint'} of {model} did not make this segmentation: {_PREDICT}")
