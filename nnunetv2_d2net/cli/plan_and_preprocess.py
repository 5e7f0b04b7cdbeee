"""``d2net plan_and_preprocess``."""

import argparse
from collections.abc import Sequence

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli import checks
from nnunetv2_d2net.cli.nnunet import call_entry_point, replaced
from nnunetv2_d2net.cli.words import describe_passing, value_of, values_of

HELP = (
    "Plan and preprocess for D2-Net: nnUNetv2_plan_and_preprocess with -pl D2NetPlanner unless you name another. "
    "With our planners any image of any case may be absent. "
    "Plans and data have names of their own, so what nnU-Net has planned and preprocessed stays."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments; all of them are nnU-Net's."""
    usage = "d2net plan_and_preprocess -d ID [ID ...] [-pl PLANNER] [nnU-Net's arguments ...]"
    describe_passing(parser, usage, "nnUNetv2_plan_and_preprocess")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Check the data set, then let nnU-Net plan with a planner that it would not find by itself.

    Raises:
        UserError: A variable, a data set or the planner is missing, or D2-Net cannot use the data set.
    """
    words = ["-pl", "D2NetPlanner", *extra]
    datasets = values_of(words, "-d")
    if not datasets:
        raise UserError("no data set given: d2net plan_and_preprocess -d ID")
    checks.folder_of("nnUNet_preprocessed")
    folders = [checks.dataset_folder(dataset, "nnUNet_raw", "it needs the raw data") for dataset in datasets]

    from nnunetv2.experiment_planning import plan_and_preprocess_api, verify_dataset_integrity
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry

    from nnunetv2_d2net.plugin.planning import fingerprint, integrity
    from nnunetv2_d2net.plugin.planning import planner as ours
    from nnunetv2_d2net.plugin.preprocessing.preprocessor import MissingModalityPlansManager

    name = value_of(words, "-pl")
    if name not in ours.__all__:
        _refuse_unknown(name, ours.__all__)
        return call_entry_point(plan_and_preprocess_entry, "plan_and_preprocess", words)
    for folder in folders:
        checks.enough_modalities(folder / "dataset.json", "plan with -pl ExperimentPlanner and train nnUNetTrainer")
    extractor = fingerprint.D2NetFingerprintExtractor
    with (
        replaced(default_experiment_planner, name, getattr(ours, name)),
        replaced(fingerprint_extractor, extractor.__name__, extractor),
        replaced(verify_dataset_integrity, "check_cases", integrity.check_case),
        replaced(plan_and_preprocess_api, "PlansManager", MissingModalityPlansManager),
    ):
        words = ["-fpe", extractor.__name__, *words]
        return call_entry_point(plan_and_preprocess_entry, "plan_and_preprocess", words)


def _refuse_unknown(name: str, ours: Sequence[str]) -> None:
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = f"{nnunetv2.__path__[0]}/experiment_planning"
    if recursive_find_python_class(folder, name, "nnunetv2.experiment_planning") is None:
        raise UserError(f"no planner is called {name}: pass -pl with nnU-Net's, or one of {', '.join(ours)}")
