"""What comes next: after a command that has a natural successor, that one, filled in and ready to be pasted."""

import logging
import os
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import join, quote

from nnunetv2_d2net.base.dataset import Dataset, folder_of
from nnunetv2_d2net.base.files import read_json_or
from nnunetv2_d2net.cli._checks import dataset_folder
from nnunetv2_d2net.cli._planning import plans_of
from nnunetv2_d2net.cli._words import positionals, value_of, values_of, without

_NOT_THERE = "there is nothing to go on with"
_LOG = logging.getLogger("nnunetv2_d2net")


def tell_next_step(words: Sequence[str], args: Namespace, extra: Sequence[str]) -> None:
    """Log the command that comes after one that has done its work, if it is known.

    Args:
        words: Those after ``d2net``.
        args: What the command's parser made of them.
        extra: What it has handed on.
    """
    after = _AFTER.get(words[0])
    if after is None or os.environ.get("RANK", "0") != "0":  # one of the processes that torchrun starts tells it
        return
    with suppress(Exception):  # a training of days has not failed because nothing can be told of what is next
        if line := after(args, words[1:] if after in _OF_ALL_WORDS else extra):
            _LOG.info("next: %s", line)


def _phantom(args: Namespace, words: Sequence[str]) -> str:
    if args.layout:
        test = f" --test {_quoted(args.output / 'test')}" if args.test else ""
        return f"d2net convert {_quoted(args.output / 'training')}{test} --check"
    return f"d2net plan_and_preprocess -d {args.dataset_id}"


def _convert(args: Namespace, words: Sequence[str]) -> str:
    if not args.check:
        return f"d2net inspect -d {args.dataset_id}"
    same = join(word for word in words if word != "--check")
    return f"d2net convert {same}" if args.dataset_id is not None and args.name else ""


def _inspect(args: Namespace, words: Sequence[str]) -> str:
    return f"d2net plan_and_preprocess -d {quote(args.dataset)}" if args.split == "Tr" else ""


def _extract_fingerprint(args: Namespace, words: Sequence[str]) -> str:
    return f"d2net plan -d {number}" if (number := _data_set(words)) else ""


def _plan(args: Namespace, words: Sequence[str]) -> str:
    number, plans = _data_set(words), plans_of(words)
    return f"d2net preprocess -d {number} -plans_name {quote(plans)}" if number and plans else ""


def _plan_and_preprocess(args: Namespace, words: Sequence[str]) -> str:
    return _plan(args, words) if "--no_pp" in words else _training(words, plans_of(words))


def _preprocess(args: Namespace, words: Sequence[str]) -> str:
    return _training(words, value_of(words, "-plans_name", "D2NetPlans"))


_TRAINED_BY = {
    "D2NetPlans": "",
    "D2NetPaperPlans": " -p D2NetPaperPlans -tr D2NetTrainerPaper",
    "D2NetWholeHeadPlans": " --start_from phantom",
}
"""What makes use of plans; others need ``-p`` alone."""


def _training(words: Sequence[str], plans: str) -> str:
    number = _data_set(words)
    if not number or not plans:
        return ""
    file = dataset_folder(number, "nnUNet_preprocessed", _NOT_THERE) / f"{plans}.json"
    planned = read_json_or(file, {}).get("configurations", {})
    wanted = [name for name in values_of(words, "-c") or ("3d_fullres", "2d") if name in planned]
    if not wanted:
        return ""
    from nnunetv2_d2net.plugin.training.splits import N_FOLDS

    configuration = "3d_fullres" if "3d_fullres" in wanted else wanted[0]
    n_cases = read_json_or(file.with_name("dataset.json"), {}).get("numTraining", N_FOLDS)
    fold = "all" if n_cases < N_FOLDS and not file.with_name("splits_final.json").exists() else "0"
    return f"d2net train {number} {quote(configuration)} {fold}{_TRAINED_BY.get(plans, f' -p {quote(plans)}')}"


def _train(args: Namespace, words: Sequence[str]) -> str:
    from nnunetv2_d2net.cli.train import all_words

    final = all_words(words, args.start_from)
    number, configuration, fold = map(quote, positionals(final))
    images = dataset_folder(positionals(final)[0], "nnUNet_raw", _NOT_THERE) / "imagesTs"
    if "--disable_checkpointing" in words or not any(images.glob("*")):
        return ""
    ours = {"-tr": "D2NetTrainer", "-p": "D2NetPlans"}
    named = {flag: value_of(final, flag) for flag in ours}
    more = "".join(f" {flag} {quote(value)}" for flag, value in named.items() if value != ours[flag])
    out = _quoted(_free(Path("predictions")))
    return f"d2net predict -i {_quoted(images)} -o {out} -d {number} -c {configuration} -f {fold}{more}"


def _predict(args: Namespace, words: Sequence[str]) -> str:
    images, out = Path(value_of(words, "-i")), Path(value_of(words, "-o"))
    references = images.with_name(images.name.replace("images", "labels", 1))
    if value_of(words, "-num_parts", "1") != "1" or references == images or not any(references.glob("*")):
        return ""
    from nnunetv2_d2net.cli.predict import model_folder
    from nnunetv2_d2net.plugin.prediction.note import EXPECTED_DICE

    model = model_folder(words)
    # what is measured is kept with the model, unless that knows something, or these cases were trained on
    kept = "" if (model / EXPECTED_DICE).exists() or references.name == "labelsTr" else f" -m {_quoted(model)}"
    return f"d2net evaluate -i {_quoted(out)} -r {_quoted(references)}{kept}"


def _pretrain(args: Namespace, words: Sequence[str]) -> str:
    """Segment the first of the simulated patients."""
    raw = next(iter((args.out / "nnUNet_raw").glob("Dataset*")))
    dataset, results = Dataset.read(raw / "dataset.json"), args.out / "nnUNet_results"
    model = next(results.glob(f"*/*_{args.epochs}epoch*__*"))
    patient = next(iter(dataset.find_cases(raw / "imagesTr").files.values()))
    names = [dataset.channels[channel] for channel in dataset.assign_channels(patient)]
    images = " ".join(f"--{name} {quote(file)}" for name, file in zip(names, patient, strict=True))
    return f"d2net segment {images} -m {_quoted(model)} -o {_quoted(_free(args.out / 'segmented'))}"


def _benchmark(args: Namespace, words: Sequence[str]) -> str:
    """Train all of it once more, which tells what is chance, and compare with what is there of that kind."""
    from nnunetv2_d2net.cli._benchmarks import folder_for

    if args.print_jobs or args.job:
        return ""
    out = folder_for(args, dataset_folder(args.dataset, "nnUNet_raw", _NOT_THERE))
    again = _free(out)
    there = sorted(path for path in out.parent.glob(f"{_stem(out)}*") if _stem(path) == _stem(out) and path.is_dir())
    seed = "" if args.seed is None else f" --seed {args.seed + len(there)}"
    results = folder_of("nnUNet_results")
    others = _quoted(results.with_name(f"{_stem(results)}_{again.name.rpartition('_')[2]}"))
    same = join(without(without(words, "-o"), "--seed"))
    folders = join(map(str, [*there, again]))
    return f"nnUNet_results={others} d2net benchmark {same}{seed} -o {_quoted(again)} && d2net repeats {folders}"


def _study(args: Namespace, words: Sequence[str]) -> str:
    """Draw Fig. 5 to 7 of the last row."""
    from nnunetv2_d2net.cli._benchmarks import folder_for

    if args.list or args.print_jobs:
        return ""
    raw = dataset_folder(args.dataset, "nnUNet_raw", _NOT_THERE)
    models = [f"{arm}__{args.plans}__{args.configuration}" for arm in args.arms]
    trained = [path for name in models if (path := folder_of("nnUNet_results") / raw.name / name).is_dir()]
    out = _quoted(folder_for(args, raw) / "figures")
    return f"d2net figures {_quoted(trained[-1])} -i {_quoted(raw / 'imagesTr')} -o {out}" if trained else ""


_AFTER: dict[str, Callable[[Namespace, Sequence[str]], str]] = {
    "phantom": _phantom,
    "convert": _convert,
    "inspect": _inspect,
    "extract_fingerprint": _extract_fingerprint,
    "plan": _plan,
    "preprocess": _preprocess,
    "plan_and_preprocess": _plan_and_preprocess,
    "train": _train,
    "predict": _predict,
    "pretrain": _pretrain,
    "benchmark": _benchmark,
    "study": _study,
}
"""The successor of each command that has one, as a line for a shell; empty where it cannot be told."""

_OF_ALL_WORDS = (_convert, _benchmark)


def _data_set(words: Sequence[str]) -> str:
    """Return the data set, in quotes; empty if there are several."""
    numbers = values_of(words, "-d") or ()
    return quote(numbers[0]) if len(numbers) == 1 else ""


def _stem(path: Path) -> str:
    """Return the name without a number at its end."""
    return re.sub(r"_\d{1,2}$", "", path.name)


def _free(path: Path) -> Path:
    """Return the first of ``NAME``, ``NAME_2``, ``NAME_3`` ... that is not there."""
    names = [path, *(path.with_name(f"{_stem(path)}_{number}") for number in range(2, 100))]
    return next((name for name in names if not name.exists()), path)


def _quoted(path: Path) -> str:
    return quote(str(path))
