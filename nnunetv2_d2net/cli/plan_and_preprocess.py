"""``d2net plan_and_preprocess``."""

import argparse
from collections.abc import Sequence

from nnunetv2_d2net.cli._nnunet import call_entry_point
from nnunetv2_d2net.cli._planning import check_preprocessed_for, data_sets, refuse_one_modality, writing_preprocessed
from nnunetv2_d2net.cli._words import value_of

HELP = (
    "Plan and preprocess for D2-Net: nnUNetv2_plan_and_preprocess with -pl D2NetPlanner unless you name another. "
    "With our planners any image of any case may be absent. "
    "Plans and data have names of their own, so what nnU-Net has planned and preprocessed stays."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments; all of them are nnU-Net's."""
    parser.usage = "d2net plan_and_preprocess -d ID [ID ...] [-pl PLANNER] [nnU-Net's arguments ...]"


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Check the data set, then let nnU-Net plan with a planner that it would not find by itself.

    Raises:
        UserError: A variable, a data set or the planner is missing, or D2-Net cannot use the data set.
            Or the new plans have none of the configurations that ``-c`` names.
    """
    words = ["-pl", "D2NetPlanner", *extra]
    datasets, planner = data_sets("plan_and_preprocess", words), value_of(words, "-pl")
    done = "planned for" if "--no_pp" in words else "preprocessed"

    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry

    from nnunetv2_d2net.plugin.planning.incomplete import check_complete, incomplete_cases, is_our_planner

    if not is_our_planner(planner):
        for folder, dataset in datasets.items():
            check_complete(folder, dataset)
        with writing_preprocessed(datasets, done):
            code = call_entry_point(plan_and_preprocess_entry, "plan_and_preprocess", words)
            check_preprocessed_for(datasets, words)
            return code
    refuse_one_modality(datasets)
    with writing_preprocessed(datasets, done), incomplete_cases(planner) as extractor:
        code = call_entry_point(plan_and_preprocess_entry, "plan_and_preprocess", ["-fpe", extractor, *words])
        check_preprocessed_for(datasets, words)
        return code
