"""MR signals: tissue properties, pulse sequences, contrast agent, and what the scanner adds.

Sources of the healthy tissue's values, at 3 T:

- T1 and T2 of gray and white matter: Wansapura, Holland, Dunn, Ball, J Magn Reson Imaging 9, 1999; blood: Stanisz,
  Odrobina, Pun, Escaravage, Graham, Bronskill, Henkelman, Magn Reson Med 54, 2005.
- T1 of CSF: Rooney et al., Magn Reson Med 57, 2007; T2: Spijkerman, Petersen, Hendrikse, Luijten, Zwanenburg,
  MAGMA 31, 2018; both rounded.
- Water content of gray and white matter, as proton density: Whittall, MacKay, Graeb, Nugent, Li, Paty, Magn Reson
  Med 37, 1997; rounded.

Edema, necrosis and tumor: T1, T2 and water content are longer and higher than in white matter (Just and Thelen,
Radiology 169, 1988); the numbers here are ours, picked so that the images look right, and jittered for each case.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Tissue(NamedTuple):
    """Properties of one tissue; times in ms.

    Attributes:
        t1: Longitudinal relaxation time.
        t2: Transverse relaxation time.
        density: Proton density, pure water is 1.
        uptake: Concentration of contrast agent after injection, mmol/L.
        texture: Spread of T1 and T2 inside the tissue (log scale).
    """

    t1: float
    t2: float
    density: float
    uptake: float
    texture: float


TISSUES = {
    "gray": Tissue(1331, 110, 0.82, 0.015, 0.04),
    "white": Tissue(832, 80, 0.70, 0.010, 0.03),
    "csf": Tissue(4300, 1900, 1.00, 0.0, 0.0),
    "edema": Tissue(1450, 300, 0.87, 0.02, 0.10),
    "necrotic": Tissue(2200, 240, 0.92, 0.04, 0.18),
    "solid": Tissue(1500, 150, 0.85, 0.05, 0.15),
    "enhancing": Tissue(1480, 109, 0.83, 0.28, 0.15),
    "blood": Tissue(1932, 275, 0.85, 1.2, 0.05),
}
"""Tissues in the order of the fractions that ``acquire`` takes."""

MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
"""Modalities in the order of dataset.json's ``channel_names``."""

T1_RELAXIVITY, T2_RELAXIVITY = 5.0, 7.1
"""Gadobutrol in plasma at 3 T, L/(mmol s): Rohrer, Bauer, Mintorovitch, Requardt, Weinmann, Invest Radiol 40, 2005."""

_FLOW_VOID = 0.35
"""Share of the signal that flowing blood keeps where no contrast agent is."""


class Sequence(NamedTuple):
    """One spin-echo acquisition; times in ms. Without ``inversion_time`` no inversion pulse is played."""

    repetition_time: float
    echo_time: float
    inversion_time: float | None = None
    contrast_agent: bool = False


def spin_echo(t1: Array, t2: Array, density: Array, sequence: Sequence) -> Array:
    r"""Magnitude signal of a spin echo with an echo time much shorter than the repetition time.

    .. math:: S = \rho (1 - e^{-T_R / T_1}) e^{-T_E / T_2}

    After an inversion pulse, which makes it FLAIR where it nulls CSF:

    .. math:: S = \rho \left|1 - 2 e^{-T_I / T_1} + e^{-T_R / T_1}\right| e^{-T_E / T_2}

    Sources: Haacke, Brown, Thompson, Venkatesan, Magnetic Resonance Imaging, 1999; Bydder and Young, J Comput Assist
    Tomogr 9, 1985; FLAIR: Hajnal et al., J Comput Assist Tomogr 16, 1992.
    """
    remaining = np.exp(-sequence.repetition_time / t1)
    if sequence.inversion_time is None:
        recovered = 1 - remaining
    else:
        recovered = np.abs(1 - 2 * np.exp(-sequence.inversion_time / t1) + remaining)
    return density * recovered * np.exp(-sequence.echo_time / t2)


def pure_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Signal of a tissue without texture, after the agent if the sequence is acquired then."""
    t1, t2 = np.array([tissue.t1]), np.array([tissue.t2])
    if sequence.contrast_agent:
        concentration = np.array([tissue.uptake])
        t1, t2 = shorten(t1, T1_RELAXIVITY, concentration), shorten(t2, T2_RELAXIVITY, concentration)
    return spin_echo(t1, t2, np.array([tissue.density]), sequence).item()


def nulling_time(t1: float, repetition_time: float) -> float:
    """Inversion time (ms) at which tissue of the given T1 gives no signal: the zero of ``spin_echo``."""
    return t1 * float(np.log(2 / (1 + np.exp(-repetition_time / t1))))


def shorten(time: Array, relaxivity: float, concentration: Array) -> Array:
    r"""Relaxation time with contrast agent, ms.

    .. math:: 1 / T' = 1 / T + r c

    The relaxivity r is in L/(mmol s), the concentration c in mmol/L.
    """
    return 1 / (1 / time + relaxivity * concentration / 1000)


def draw_sequences(rng: np.random.Generator) -> tuple[Sequence, ...]:
    """Draw one scanner's protocol, in the order of ``MODALITIES``."""
    jitter = np.exp(rng.normal(0, 0.06, 6))
    flair_tr = 9000 * jitter[0]
    flair_ti = nulling_time(TISSUES["csf"].t1, flair_tr) * np.exp(rng.normal(0, 0.015))
    again = np.exp(rng.normal(0, 0.03, 2))
    return (
        Sequence(flair_tr, 105 * jitter[1], flair_ti),
        Sequence(450 * jitter[2], 9 * jitter[3]),
        Sequence(450 * jitter[2] * again[0], 9 * jitter[3] * again[1], contrast_agent=True),
        Sequence(5000 * jitter[4], 95 * jitter[5]),
    )


def draw_tissues(rng: np.random.Generator) -> tuple[Tissue, ...]:
    """Draw one patient's tissues around ``TISSUES``: lesions and uptake vary more than healthy tissue."""
    drawn = []
    for name, tissue in TISSUES.items():
        spread = (0.02, 0.03, 0.01, 0.3) if name in ("gray", "white", "csf") else (0.08, 0.1, 0.02, 0.3)
        values = np.array(tissue[:4]) * np.exp(rng.normal(0, spread))
        t1, t2, density, uptake = values.tolist()  # Python floats keep float32 arrays float32
        drawn.append(Tissue(t1, t2, min(density, 1), uptake, tissue.texture))
    return tuple(drawn)


def acquire(fractions: Array, tissues: tuple[Tissue, ...], sequence: Sequence, textures: tuple[Array, Array]) -> Array:
    """Signal of every voxel: the sum over its tissues of fraction times signal, which is what partial volume is.

    Args:
        fractions: Tissue fractions, ``(tissue, voxel)``, in the order of ``TISSUES``.
        tissues: As many.
        sequence: How they are acquired.
        textures: Two unit-variance fields, each ``(voxel,)``: variation of relaxation, and of the agent's uptake.

    Returns:
        ``(voxel,)``, in units of pure water's full magnetization.
    """
    relaxation, perfusion = textures
    signal = np.zeros(fractions.shape[1], dtype=np.float32)
    for name, tissue, fraction in zip(TISSUES, tissues, fractions, strict=True):
        where = np.flatnonzero(fraction > 1e-3)
        spread = np.exp(tissue.texture * relaxation[where])
        t1, t2 = tissue.t1 * spread, tissue.t2 * spread
        if sequence.contrast_agent:
            concentration = tissue.uptake * np.exp(0.55 * perfusion[where])
            t1, t2 = shorten(t1, T1_RELAXIVITY, concentration), shorten(t2, T2_RELAXIVITY, concentration)
        amount = fraction[where] * (_FLOW_VOID if name == "blood" and not sequence.contrast_agent else 1)
        signal[where] += amount * spin_echo(t1, t2, np.full_like(t1, tissue.density), sequence)
    return signal


def add_rician_noise(signal: Array, sigma: float, noise: Array) -> Array:
    """Magnitude of the complex signal with noise in both channels (Gudbjartsson and Patz, Magn Reson Med 34, 1995).

    Args:
        signal: Of any shape, at least 0.
        sigma: Standard deviation of the noise in either channel.
        noise: Standard normal numbers, ``(2, *signal.shape)``.
    """
    return np.hypot(signal + sigma * noise[0], sigma * noise[1])
