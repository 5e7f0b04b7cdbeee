"""Every place where something of nnU-Net's is exchanged while it runs, with the reason why there is no other way.

Each is a context manager that puts back what was there. Nothing of nnU-Net is imported until one is entered.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Give an attribute another value for a while; one that did not exist goes away again.

    Args:
        owner: A module, class or object; a text names a module, which is imported.
        name: Of the attribute.
        value: What it is meanwhile.
    """
    holder = import_module(owner) if isinstance(owner, str) else owner
    missing = object()
    before = getattr(holder, name, missing)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(holder, name)
        else:
            setattr(holder, name, before)


def planner_seam(planner: type) -> AbstractContextManager[None]:
    """Let ``-pl`` find a planner of ours: nnU-Net searches the modules of its own package and nowhere else."""
    module = "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner"
    return replaced(module, planner.__name__, planner)


def fingerprint_seam(extractor: type) -> AbstractContextManager[None]:
    """Let ``-fpe`` find an extractor of fingerprints of ours, which nnU-Net searches likewise."""
    module = "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor"
    return replaced(module, extractor.__name__, extractor)


def integrity_seam(check: Callable[..., None]) -> AbstractContextManager[None]:
    """Check a data set our way: nnU-Net's check wants as many images as there are channels, and ends in tracebacks."""
    return replaced("nnunetv2.experiment_planning.plan_and_preprocess_api", "verify_dataset_integrity", check)


def plans_seam(manager: type) -> AbstractContextManager[None]:
    """Preprocess with configurations of ours: nnU-Net looks the plans' preprocessor up in its own package only."""
    return replaced("nnunetv2.experiment_planning.plan_and_preprocess_api", "PlansManager", manager)


def predictor_seam(predictor: type) -> AbstractContextManager[None]:
    """Let ``nnUNetv2_predict`` predict with a class of ours: it constructs its own by name, from its own arguments."""
    return replaced("nnunetv2.inference.predict_from_raw_data", "nnUNetPredictor", predictor)


# Training, preprocessing and prediction


def preprocessor_seam(configuration_manager: object, configuration_class: type) -> None:
    """Give one configuration of the plans a class of ours, for good, which names our preprocessor.

    nnU-Net looks preprocessors up by name inside its own package, so no plans can name ours. It asks the configuration
    for the class, in worker processes too.
    """
    if type(configuration_manager) is configuration_class.__base__:
        configuration_manager.__class__ = configuration_class


def writer_seam(plans_manager: object, plans_class: type) -> None:
    """Give plans a class of ours, for good, whose writer puts the segmentation of a turned case onto its own grid.

    nnU-Net writes in worker processes, with the writer that the plans name inside its own package.
    """
    if type(plans_manager) is plans_class.__base__:
        plans_manager.__class__ = plans_class


def dataset_seam(trainer: object, dataset_class: type) -> AbstractContextManager[None]:
    """Let the final validation read cases with a class of ours: nnU-Net predicts what it reads, without a mask."""
    return replaced(trainer, "dataset_class", dataset_class)


@contextmanager
def loader_seam(loader: type) -> Iterator[None]:
    """Draw training cases with a loader of ours: nnU-Net constructs its own by name, that of validation second."""
    module = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
    kinds = iter((loader, import_module(module).nnUNetDataLoader))

    def construct(*args: object, **settings: object) -> object:
        return next(kinds)(*args, **settings)

    with replaced(module, "nnUNetDataLoader", construct):
        yield


def process_group_seam(trainer: object) -> AbstractContextManager[None]:
    """Let nnU-Net initialize as if there were one process: it would wrap the network for the device of its number."""
    return replaced(trainer, "is_ddp", value=False)


@contextmanager
def sliding_window_seam(predictor: object, network: object, label_manager: object) -> Iterator[None]:
    """Let the sliding window run another network, whose logits of several subsets lie side by side.

    nnU-Net's window calls ``predictor.network`` with a tile alone, and makes room for as many maps as
    ``predictor.label_manager`` has heads.
    """
    with replaced(predictor, "network", network), replaced(predictor, "label_manager", label_manager):
        yield
