"""``d2net extract_fingerprint``."""

import argparse
from collections.abc import Sequence

from nnunetv2_d2net.cli._nnunet import call_entry_point
from nnunetv2_d2net.cli._planning import data_sets, writing_preprocessed

HELP = (
    "Check every training case and describe the cohort: nnUNetv2_extract_fingerprint for cases that may lack "
    "modalities. A fingerprint that is there stays, and has to be of these data, unless you pass --clean."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments; all of them are nnU-Net's."""
    parser.usage = "d2net extract_fingerprint -d ID [ID ...] [--clean] [nnU-Net's arguments ...]"


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Let nnU-Net extract fingerprints with our extractor, which it would not find by itself.

    Raises:
        UserError: A variable or a data set is missing, or a training case cannot be used.
    """
    datasets = data_sets("extract_fingerprint", extra)

    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import extract_fingerprint_entry

    from nnunetv2_d2net.plugin.planning.incomplete import incomplete_cases

    with writing_preprocessed(datasets, "described"), incomplete_cases() as extractor:
        return call_entry_point(extract_fingerprint_entry, "extract_fingerprint", ["-fpe", extractor, *extra])
