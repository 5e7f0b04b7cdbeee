"""``d2net preprocess``."""

import argparse
from collections.abc import Sequence

from nnunetv2_d2net.base.dataset import dataset_number, folder_of
from nnunetv2_d2net.cli._nnunet import call_entry_point
from nnunetv2_d2net.cli._planning import data_sets, writing_preprocessed
from nnunetv2_d2net.cli._words import value_of, values_of
from nnunetv2_d2net.plugin.planning.plans import preprocessed_folder, read_plans

HELP = (
    "Preprocess with plans that are there, also edited ones or those of another data set: nnUNetv2_preprocess for "
    "cases that may lack modalities, with -plans_name D2NetPlans unless you name others. Nothing is planned anew."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments; all of them are nnU-Net's."""
    parser.usage = "d2net preprocess -d ID [ID ...] [-plans_name PLANS] [-c CONFIG ...] [nnU-Net's arguments ...]"


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """See that there are such plans, then let nnU-Net preprocess with our preprocessor.

    Raises:
        UserError: A variable, a data set or its plans are missing, or a training case cannot be used.
    """
    words = ["-plans_name", "D2NetPlans", *extra]
    datasets, plans = data_sets("preprocess", words), value_of(words, "-plans_name")
    for folder in datasets:
        number = dataset_number(folder.name)
        planned = folder_of("nnUNet_preprocessed") / folder.name / f"{plans}.json"
        remedy = f"run d2net plan -d {number}, or name others with -plans_name"
        read_plans(planned, remedy)
        for configuration in values_of(words, "-c") or ():
            preprocessed_folder(planned, configuration, remedy)

    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import preprocess_entry

    from nnunetv2_d2net.plugin.planning.incomplete import incomplete_cases

    with writing_preprocessed(datasets, "preprocessed"), incomplete_cases():
        return call_entry_point(preprocess_entry, "preprocess", words)
