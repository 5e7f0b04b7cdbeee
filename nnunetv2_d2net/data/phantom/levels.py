"""Random brightness: what each tissue may look like in each sequence, over normal white matter, which is 1.

Who learns from simulated images and meets real ones does better with contrasts drawn at random around the measured
ones than with physics alone (Billot et al., SynthSeg, Med Image Anal 86, 2023). So the ranges here are wide: for normal
tissue the mean over real patients with three times their spread, for lesions what was seen in patients and in what
trained well. Only an order that is certain is kept. Columns are ``mri.MODALITIES``: FLAIR, T1, T1ce, T2.
"""

import numpy as np
from numpy.typing import NDArray

from nnunetv2_d2net.data.phantom import mri

NORMAL = {
    "gray": ((1.03, 0.10), (0.65, 0.07), (0.68, 0.06), (1.62, 0.15)),
    "csf": ((0.15, 0.07), (0.14, 0.06), (0.20, 0.09), (2.50, 0.40)),
}
"""Mean and spread over real patients as ``benchmarks/reality.py`` measures them, less what neighboring tissue adds."""

NORMAL_LIMITS = {
    "gray": ((0.75, 1.50), (0.40, 0.93), (0.45, 0.93), (1.10, 2.40)),
    "csf": ((0.03, 0.60), (0.03, 0.60), (0.03, 0.60), (1.60, 4.50)),
}
"""Gray matter is darker than white matter in T1 and brighter in T2; CSF is the darkest or the brightest."""

RANGES = {
    "edema": ((1.40, 2.50), (0.35, 0.95), (0.40, 0.95), (1.35, 3.00)),
    "core": ((0.35, 2.20), (0.30, 0.95), (0.30, 1.00), (1.30, 3.50)),
    "enhancing": ((0.95, 2.30), (0.40, 1.05), (1.05, 2.50), (1.20, 3.00)),
    "blood": ((0.15, 1.20), (0.30, 1.10), (1.40, 3.50), (0.20, 1.60)),
    "dura": ((0.20, 1.20), (0.30, 1.20), (0.80, 2.60), (0.20, 1.30)),
    "plaque": ((1.25, 2.10), (0.45, 0.95), (0.50, 0.95), (1.30, 2.60)),
    "infarct": ((1.15, 2.00), (0.40, 0.90), (0.45, 1.00), (1.30, 2.80)),
    "metastasis": ((0.90, 1.80), (0.50, 1.00), (1.20, 2.60), (1.00, 2.20)),
}
"""Least and greatest level of tissue that is drawn uniformly; the last five are never labeled."""

_T1, _T1CE = 1, 2
_CLEARLY = 0.25  # how much brighter than the rest of the lesion enhancing tumor is in T1ce, at least
_MOST_BLACK = 0.25  # of white matter in T1 and T1ce: the signal that a stored image has as its zero
_UPTAKE = 1 / 3  # of the table's agent in normal tissue: held against patients, the table's is too much


def draw_normal(rng: np.random.Generator, *, physical: bool) -> dict[str, NDArray[np.floating]]:
    """Draw the levels of gray matter, white matter and CSF, ``(4,)`` each.

    Args:
        rng: The patient's.
        physical: By relaxation times and a pulse sequence, in half of such cases with an inversion before T1 and T1ce
            (Mugler, Brookeman, Magn Reson Med 15, 1990); otherwise around the measured means.
    """
    if physical:
        return _physical(rng)
    levels: dict[str, NDArray[np.floating]] = {"white": np.ones(4)}
    for name, measured in NORMAL.items():
        mean, spread = np.transpose(measured)
        low, high = np.transpose(NORMAL_LIMITS[name])
        levels[name] = np.clip(rng.normal(mean, 3 * spread), low, high)
    return levels


def _physical(rng: np.random.Generator) -> dict[str, NDArray[np.floating]]:
    names = ("gray", "white", "csf")
    drawn = dict(zip(mri.TISSUES, mri.draw_tissues(rng), strict=True))
    tissues = [drawn[name]._replace(uptake=drawn[name].uptake * _UPTAKE) for name in names]
    flair, t1, t1ce, t2 = mri.draw_sequences(rng)
    repetition, inversion = rng.uniform(1800, 2300), rng.uniform(850, 1100)
    if rng.random() < 0.5:
        t1, t1ce = (mri.Sequence(repetition, 3, inversion, contrast_agent=after) for after in (False, True))
    signals = np.array(
        [[mri.pure_signal(tissue, sequence) for sequence in (flair, t1, t1ce, t2)] for tissue in tissues]
    )
    levels = signals / signals[1]
    if t1.inversion_time is None:  # after inversion there is no signal to take off
        black = rng.uniform(0, _MOST_BLACK)
        levels[:, _T1 : _T1CE + 1] = np.maximum((levels[:, _T1 : _T1CE + 1] - black) / (1 - black), 0.02)
    return dict(zip(names, levels, strict=True))


def draw_tissue(rng: np.random.Generator, name: str, n: int = 1) -> NDArray[np.floating]:
    """Draw the levels of ``n`` sub-tissues, ``(n, 4)``: alike, but each different, within ``RANGES``.

    T1 and T1ce of tissue that takes no agent up are drawn together: they are nearly the same sequence.
    """
    low, high = np.transpose(RANGES[name])
    place = rng.uniform(0, 1, 4) + rng.normal(0, 0.25 if n > 1 else 0, (n, 4))
    if name in ("edema", "core", "plaque", "infarct"):
        place[:, _T1CE] = place[:, _T1] + rng.normal(0, 0.15, n)
    return low + np.clip(place, 0, 1) * (high - low)


def draw_lesion(rng: np.random.Generator) -> dict[str, NDArray[np.floating]]:
    """Draw the levels of a tumor's tissues, each of one to three sub-tissues, ``(n, 4)``."""
    levels = {name: draw_tissue(rng, name, int(rng.integers(1, 4))) for name in ("edema", "core", "enhancing")}
    dimmest = max(levels[name][:, _T1CE].mean() for name in ("edema", "core")) + _CLEARLY
    levels["enhancing"][:, _T1CE] = np.maximum(levels["enhancing"][:, _T1CE], dimmest)
    return levels
