"""``d2net segment``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UsageError
from nnunetv2_d2net.base.files import locked_folder
from nnunetv2_d2net.base.text import listed

HELP = (
    "Segment one patient from the sequences there are, with no variable set. A folder holds one patient: its "
    "names are recognized as in d2net convert, also those of DICOM series. Or name each file: --FLAIR a.nii.gz --T1ce "
    "b.mha. Research only, not for diagnosis."
)
_USAGE = "d2net segment [PATIENT_FOLDER] [--FLAIR FILE] [--T1 FILE] [--T1ce FILE] [--T2 FILE] -o FOLDER [...]"
_EPILOG = (
    "The options for files are called like the model's sequences, in any case.\n"
    "A FILE may be .nii, .nii.gz, .mha or .nrrd, a folder of one DICOM series, or one of its slices."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what does not depend on the model: the options for files are called like its sequences."""
    parser.usage, parser.epilog = _USAGE, _EPILOG
    add = parser.add_argument
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="for segmentation, volumes and preview")
    add(
        "-m",
        dest="model",
        type=Path,
        metavar="MODEL",
        help="folder of another model (default: the one that is shipped)",
    )
    add("--reference", metavar="SEQUENCE", help="segment on this one's grid (default: that of the finest voxels)")
    add("--register", action="store_true", help="register the other sequences rigidly onto it")
    add("--strip", action="store_true", help="take the skull away with HD-BET, which must be installed")
    add("--mirror", action="store_true", help="average over mirrored views: slower, not always better")
    add("--overwrite", action="store_true", help="replace what an earlier call has written")
    add("-device", choices=("cpu", "cuda"), help="default: cuda where there is a device, else cpu")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Find the patient's sequences, segment and write.

    Raises:
        UsageError: Nothing to segment, or a word that has no meaning.
        UserError: There is no model, an image cannot be used, or the output is there.
    """
    from nnunetv2_d2net.patient.model import find_model, shipped_model
    from nnunetv2_d2net.patient.result import FILES, RESEARCH_ONLY, check_output
    from nnunetv2_d2net.patient.sequences import described, find_sequences

    model = find_model(args.model) if args.model else shipped_model()
    channels = Dataset.read(model / "dataset.json").channels
    patient, images = _read_words(extra, channels)
    log = logging.getLogger("nnunetv2_d2net")
    with locked_folder(args.output):
        check_output(args.output, overwrite=args.overwrite)
        if patient is not None:
            found = find_sequences(patient, channels, images)
            images = {**found.images, **images}
            if found.passed_over:
                log.info("passed over: %s", listed(list(map(str, found.passed_over))))
        for line in described(images, channels):
            log.info("%s", line)

        from nnunetv2_d2net.patient.segment import segment

        options = {name: getattr(args, name) for name in ("reference", "register", "strip", "mirror", "device")}
        result = segment(images, model, **options, progress=True)
        result.save(args.output, overwrite=args.overwrite)
    for volume in result.volumes:
        sys.stdout.write(f"{volume.kind} {volume.name}: {volume.ml:.1f} ml\n")
    sys.stdout.write(f"written: {args.output}: {', '.join(FILES)}\n{RESEARCH_ONLY}\n")
    return 0


def _read_words(words: Sequence[str], channels: Sequence[str]) -> tuple[Path | None, dict[str, Path]]:
    """Return the patient's folder, if one is given, and the files that are named, by sequence."""
    options = {f"--{name.lower()}": name for name in channels} | {f"--{name}": name for name in channels}
    folders, images, rest = [], {}, iter(words)
    for word in rest:
        option, _, value = word.partition("=")
        if not word.strip():
            raise UsageError("an empty word (a variable that is not set?): pass the folder of one patient")
        if not word.startswith("-"):
            folders.append(Path(word))
            continue
        channel = options.get(option) or options.get(option.lower())
        if channel is None:
            known = ", ".join(f"--{name}" for name in channels)
            raise UsageError(f"unknown argument {option}: the model's sequences are {known}")
        value = value or next(rest, "")
        if not value or value.startswith("-") or channel in images:
            raise UsageError(f"{option} takes one file, once: {option} FILE")
        images[channel] = Path(value)
    if len(folders) > 1:
        raise UsageError(f"{folders[1]} beside {folders[0]}: pass the folder of one patient")
    if not folders and not images:
        raise UsageError(f"no patient is given: d2net segment FOLDER -o OUT, or name files, --{channels[0]} FILE")
    return next(iter(folders), None), images
