"""``d2net plan``."""

import argparse
from collections.abc import Sequence

from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.cli._nnunet import call_entry_point
from nnunetv2_d2net.cli._planning import data_sets, refuse_one_modality, writing_preprocessed
from nnunetv2_d2net.cli._words import value_of

HELP = (
    "Plan for D2-Net: nnUNetv2_plan_experiment with -pl D2NetPlanner unless you name another. "
    "The fingerprint is extracted if it is not there, and has to be of these data."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments; all of them are nnU-Net's."""
    parser.usage = "d2net plan -d ID [ID ...] [-pl PLANNER] [-np N] [nnU-Net's arguments ...]"


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """See that the fingerprints are of the data that are there, then let nnU-Net plan.

    Raises:
        UserError: A variable, a data set or the planner is missing, or a training case cannot be used.
    """
    words = ["-pl", "D2NetPlanner", *extra]
    datasets, planner = data_sets("plan", words), value_of(words, "-pl")

    from nnunetv2.configuration import default_num_processes
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_experiment_entry

    from nnunetv2_d2net.plugin.planning.fingerprint import D2NetFingerprintExtractor
    from nnunetv2_d2net.plugin.planning.incomplete import check_complete, incomplete_cases, is_our_planner

    if is_our_planner(planner):
        refuse_one_modality(datasets)
    else:
        for folder, dataset in datasets.items():
            check_complete(folder, dataset)
    processes = value_of(words, "-np", str(default_num_processes))
    if not processes.isdigit() or int(processes) < 1:
        raise UsageError(f"-np {processes}: choose at least 1 process")
    with writing_preprocessed(datasets, "planned for"):
        for folder in datasets:
            D2NetFingerprintExtractor(folder.name, int(processes)).run()
        with incomplete_cases(planner if is_our_planner(planner) else None):
            return call_entry_point(plan_experiment_entry, "plan", words)
