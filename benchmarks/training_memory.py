"""Peak memory of a training step, with and without activation checkpointing, against modality dropout alone.

Usage: python benchmarks/training_memory.py [--device cpu|cuda] [--json FILE]

The peak is that of torch's allocator in one step, plus what weights and optimizer hold (:func:`measuring.peak_bytes`).
"""

from measuring import make_parser, parse, peak_bytes, report
from synthetic import (
    ARMS,
    PHANTOM,
    TOY,
    Setting,
    do_step,
    make_batch,
    make_trainer,
    nnunet_folders,
    set_half,
    state_bytes,
)

SETTINGS = (PHANTOM, Setting((64, 64, 64)), Setting((128, 128), n_cases=12))
GPU_SETTINGS = (Setting((128, 128, 128)), Setting((512, 512), n_cases=12))


def main() -> None:
    """Measure and print."""
    args = parse(make_parser(__doc__))
    settings = GPU_SETTINGS if args.device == "cuda" else SETTINGS
    rows = []
    for setting in [TOY] if args.toy else settings:
        peaks = {arm: measure(arm, setting, args.device) for arm in ARMS}
        reference = next(iter(peaks.values()))
        rows += [
            {"size": str(setting), "trainer": arm, "peak, MiB": peak / 2**20, "ratio": peak / reference, "target": 1.6}
            for arm, peak in peaks.items()
        ]
    report(rows, args)


def measure(arm: str, setting: Setting, device: str, half: str = "") -> int:
    """Return the bytes of one trainer, which is gone afterwards; in nnU-Net's precision unless told otherwise."""
    with nnunet_folders():
        trainer = make_trainer(ARMS[arm], setting, device)
        if half:
            set_half(trainer, half)
        batch = make_batch(setting, trainer)
        return peak_bytes(lambda: do_step(trainer, batch), device) + state_bytes(trainer)


if __name__ == "__main__":
    main()
