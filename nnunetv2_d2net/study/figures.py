"""The paper's Fig. 5, 6 and 7 of a trained model: segmentations, modality codes and tumor-specific features."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import Tensor, nn

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import make_folder, write_json
from nnunetv2_d2net.method.modalities import zero_missing
from nnunetv2_d2net.method.network.companion import Companion
from nnunetv2_d2net.method.network.d2net import D2Net
from nnunetv2_d2net.method.network.md_stage import informative_slices
from nnunetv2_d2net.plugin.planning.plans import MISSING_IN_MODEL
from nnunetv2_d2net.plugin.prediction.all_subsets import AllSubsetsPredictor
from nnunetv2_d2net.plugin.preprocessing.cohort import AVAILABLE
from nnunetv2_d2net.plugin.training.pretrained import unwrapped
from nnunetv2_d2net.study.scores.case_picture import draw_case
from nnunetv2_d2net.study.separation import Points, draw_planes, in_plane, silhouette, thinned

CODES, FEATURES = "modality codes", "tumor-specific features"
BEFORE, AFTER = "before", "after"

_FINAL = "checkpoint_final.pth"
_FIGURES = {CODES: "fig6.png", FEATURES: "fig7.png"}
_MOST_POINTS = 200  # of a group; t-SNE of thousands takes minutes
_MOST_SLICES = 16  # of a case in 2D, which are a batch
_N_PATIENTS = 2
_LEFT_OUT = ("t1", "t2", "flair")  # in Fig. 5, one after the other


class Settings(NamedTuple):
    """How the figures are made.

    Attributes:
        fold: Of the model; empty for the first that is trained.
        before: Folder of the model to compare with; None for the same network before its training.
        references: Folder of reference segmentations for Fig. 5; None for none.
        n_cases: How many cases codes and features are taken from.
        seed: Of what is drawn at random: the untrained network, the points, t-SNE.
    """

    fold: str = ""
    before: Path | None = None
    references: Path | None = None
    n_cases: int = 20
    seed: int = 0


def draw_figures(
    model: Path, images: Path, out: Path, settings: Settings, device: torch.device, *, progress: bool = False
) -> dict[str, Any]:
    """Draw ``fig5_CASE.png`` of two cases, ``fig6.png`` and ``fig7.png``, and write ``figures.json``.

    Args:
        model: Folder of a D2-Net: ``TRAINER__PLANS__CONFIGURATION``.
        images: Folder of images as ``imagesTs``.
        out: Folder for all of it; made if it does not exist.
        settings: How.
        device: Where.
        progress: Show a bar.

    Returns:
        Content of figures.json: what it was made of, and by figure, before and after, how many points there are and
        their silhouettes ``of the vectors`` and ``of the plane``; None where there are no two groups.

    Raises:
        UserError: The model is no D2-Net, or of other modalities than the one before; a case cannot be used; or a file
            cannot be written.
    """
    dataset = Dataset.read(model / "dataset.json", MISSING_IN_MODEL)
    files = list(dataset.find_cases(images).files.items())
    if not files:
        raise UserError(f"{images} holds no case that can be used: pass a folder such as imagesTs")
    predictor, network = _load(model, settings.fold, device)
    titles = {BEFORE: "before training", AFTER: "after training"}
    rival, other = predictor, None
    if settings.before:
        titles = {BEFORE: settings.before.name, AFTER: model.name}
        rival, other = _load(settings.before, settings.fold, device)
        if rival.dataset.channels != dataset.channels or _targets(rival) != _targets(predictor):
            raise UserError(f"{settings.before} is of other modalities or labels than {model}: pass one of the same")
    make_folder(out, "free space, or pass another -o")
    chosen = [case_files for _, case_files in files[: settings.n_cases]]
    other = other or _untrained(predictor, settings.seed).to(device)
    vectors = {BEFORE: _vectors(rival, other, chosen), AFTER: _vectors(predictor, network, chosen)}
    found: dict[str, Any] = {
        "model": str(model),
        "compared with": str(settings.before or "the same network before its training"),
    }
    found |= {"cases": len(chosen), "seed": settings.seed}
    for what, file in _FIGURES.items():
        groups = dataset.channels if what == CODES else _targets(predictor)
        found[what] = _draw_pair(
            out / file, {when: vectors[when][what] for when in vectors}, titles, groups, settings.seed
        )
    write_json(out / "figures.json", found)
    _draw_absences(predictor, dict(files), out, settings.references, progress=progress)
    return found


def patterns_of_absence(channels: Sequence[str]) -> list[tuple[bool, ...]]:
    """Return M flags of each pattern of Fig. 5: everything, and without one modality after the other.

    Without T1, T2 and FLAIR, as in the paper; modalities of other names go in the order of the channels.

    Example:
        >>> patterns_of_absence(["FLAIR", "T1", "T1ce", "T2"])[1:3]
        [(True, False, True, True), (True, False, True, False)]
    """
    lower = [name.lower() for name in channels]
    order = _LEFT_OUT if {*_LEFT_OUT} < {*lower} and len(lower) == len(_LEFT_OUT) + 1 else lower[:-1]
    return [tuple(name not in order[:n] for name in lower) for n in range(len(order) + 1)]


def _load(model: Path, fold: str, device: torch.device) -> tuple[AllSubsetsPredictor, D2Net]:
    trained = sorted(path.parent.name.removeprefix("fold_") for path in model.glob(f"fold_*/{_FINAL}"))
    predictor = AllSubsetsPredictor(use_mirroring=False, device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), [fold] if fold else trained[:1], _FINAL)
    return predictor, _d2net_of(predictor.network, model).to(device)


def _d2net_of(network: Any, model: Path) -> D2Net:  # noqa: ANN401 - nnU-Net declares it as None
    network = unwrapped(network)
    network = network.student if isinstance(network, Companion) else network
    if not isinstance(network, D2Net):
        raise UserError(f"{model} is no D2-Net, and has no codes: pass the model of D2NetTrainer or one like it")
    return network.eval()


def _untrained(predictor: AllSubsetsPredictor, seed: int) -> D2Net:
    """Build the predictor's network anew, as its training began."""
    name = cast(Any, predictor).trainer_name
    build: Callable[..., nn.Module] = recursive_find_trainer_class_by_name(name).build_network_architecture
    plans, n_heads = predictor.plans_manager, predictor.label_manager.num_segmentation_heads
    n_channels = len(predictor.dataset.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(plans, predictor.configuration_manager, n_channels, n_heads, enable_deep_supervision=False)
    return _d2net_of(network, Path(name))


def _targets(predictor: AllSubsetsPredictor) -> list[str]:
    """Name the segmentation heads, in their order."""
    regions = predictor.dataset.regions
    if predictor.label_manager.has_regions:
        return list(regions)
    return ["background", *sorted(regions, key=lambda name: regions[name])]


@torch.no_grad()
def _vectors(predictor: AllSubsetsPredictor, network: D2Net, cases: Iterable[Sequence[str]]) -> dict[str, Points]:
    """Gather one code per modality and slice, and one feature per target and voxel of the bottleneck."""
    names, targets = predictor.dataset.channels, _targets(predictor)
    codes, features, of_modality, of_target = [], [], [], []
    for files in cases:
        case = predictor.read(files)
        data, properties = predictor.preprocess(case, case.available)
        images = _patch(data, predictor.configuration_manager.patch_size).to(predictor.device)
        available = torch.tensor([properties[AVAILABLE]], device=images.device).expand(len(images), -1)
        images = zero_missing(images, available)
        content = network.encode(images, available)
        says = informative_slices(images, available)
        codes.append(nn.functional.normalize(content.modality_codes[says].float(), dim=-1))  # the losses see directions
        of_modality += [names[m] for m in says.nonzero()[:, 1].tolist()]
        by_target = network.content_reconstruction(content.skips[-1], content.tumor_codes)
        voxels = by_target.unflatten(0, (-1, len(targets))).flatten(3).permute(1, 0, 3, 2).flatten(1, 2)  # (C, n, k)
        features.append(voxels.flatten(0, 1).float())
        of_target += [target for target in targets for _ in range(voxels.shape[1])]
    return {
        CODES: Points(torch.cat(codes).cpu().numpy(), np.array(of_modality)),
        FEATURES: Points(torch.cat(features).cpu().numpy(), np.array(of_target)),
    }


def _patch(data: Tensor, size: Sequence[int]) -> Tensor:
    """Cut a patch from the middle of a case ``(M, *spatial)``, padded with zeros as prediction does: ``(B, M, *size)``.

    In 2D some of the slices are the batch.
    """
    images = data[None]
    if len(size) < data.ndim - 1:
        images = data.transpose(0, 1)[:: max(1, data.shape[1] // _MOST_SLICES)]
    for axis, length in enumerate(size, images.ndim - len(size)):
        images = images.narrow(axis, max(0, (images.shape[axis] - length) // 2), min(length, images.shape[axis]))
    padded: Any = pad_nd_image(images, tuple(size), "constant", {"value": 0})
    return padded


def _draw_pair(
    path: Path, pair: Mapping[str, Points], titles: Mapping[str, str], groups: Sequence[str], seed: int
) -> dict[str, Any]:
    found, planes = {}, []
    for when, points in pair.items():
        few = thinned(points, _MOST_POINTS, seed)
        plane = in_plane(few, seed)
        numbers = {"of the vectors": silhouette(few), "of the plane": silhouette(plane)}
        said = "silhouette {:.2f}, in the plane {:.2f}".format(*numbers.values())
        planes.append((f"{titles[when]}\n{said}", plane))
        found[when] = {"points": len(few.groups)}
        found[when] |= {name: None if math.isnan(number) else round(number, 4) for name, number in numbers.items()}
    draw_planes(path, planes, groups)
    return found


def _draw_absences(
    predictor: AllSubsetsPredictor,
    cases: Mapping[str, list[str]],
    out: Path,
    references: Path | None,
    *,
    progress: bool,
) -> None:
    """Draw Fig. 5 of the first cases that have all modalities, and a reference where there are any."""
    dataset = predictor.dataset
    known = dataset.segmentations(references) if references else dict.fromkeys(cases)
    complete = [case for case, files in cases.items() if len(files) == len(dataset.channels) and case in known]
    if not complete:
        raise UserError("Fig. 5 needs a case with all modalities, and a reference where -r is given: there is none")
    predictor.only, predictor.allow_tqdm = patterns_of_absence(dataset.channels), progress
    predictor.predict_from_files([cases[case] for case in complete[:_N_PATIENTS]], str(out / "predictions"))
    for case in complete[:_N_PATIENTS]:
        files, reference = dict(zip(dataset.assign_channels(cases[case]), cases[case], strict=True)), known[case]
        names = map(dataset.subset_name, predictor.only)
        predicted = {name: out / "predictions" / name / f"{case}{dataset.file_ending}" for name in names}
        draw_case(
            out / f"fig5_{case}.png",
            images={name: Path(files[channel]) for channel, name in enumerate(dataset.channels)},
            segmentations={**({"reference": reference} if reference else {}), **predicted},
            regions=dataset.regions,
        )
