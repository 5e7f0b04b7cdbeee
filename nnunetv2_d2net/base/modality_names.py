"""What the modalities are called: in the layouts that are known, in names of files, and in scanners' words."""

import re
from collections.abc import Sequence

LABEL = "segmentation"
"""The slot of a case that holds its labels; the other slots are called like the modalities."""

MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
"""Of the data sets made from known layouts, in the order of the channels."""

BRATS_TOKENS = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t1gd": "T1ce", "t1c": "T1ce", "t2": "T2", "seg": LABEL}
"""Of BraTS 2017 to 2021."""

BRATS2023_TOKENS = {"t2f": "FLAIR", "t1n": "T1", "t1c": "T1ce", "t2w": "T2", "seg": LABEL}
MSD_NAMES = {"flair": "FLAIR", "t1w": "T1", "t1": "T1", "t1gd": "T1ce", "t1ce": "T1ce", "t2w": "T2", "t2": "T2"}

_WORDS = BRATS_TOKENS | BRATS2023_TOKENS | MSD_NAMES
_WORDS |= {"t2flair": "FLAIR", "flairt2": "FLAIR", "fluid": "FLAIR", "darkfluid": "FLAIR", "mprage": "T1"}
_CONTRAST = {"gd", "gad", "gado", "gadolinium", "ce", "km", "contrast", "enhanced", "post", "postcontrast"}
_NATIVE = {
    *("pre", "precontrast", "without", "no", "non", "wo", "minus", "native", "nativ"),
    *("ohne", "vor", "sans", "avant"),
}
_OF_NO_MODALITY = {
    *("segmentation", "segm", "mask", "brainmask", "roi", "label", "labels", "lesion", "lesions"),
    *("adc", "dwi", "dti", "diff", "diffusion", "trace", "swi", "asl", "perf", "perfusion", "dsc", "dce"),
    *("bold", "hemo", "haemo"),
    *("localizer", "localiser", "scout", "subtraction", "map", "spine", "cspine"),
}
_OF_OTHER_WEIGHTING = re.compile(r"t2[\W_]*(\*|star(?![^\W_]))|(?<![^\W_])ep[23]d")
_PLUS_CONTRAST = re.compile(r"\+\s*[ck](?![^\W_])|(?<![^\W_])c\s*\+")
_WITHOUT = re.compile(r"\b(t1)?w o\b")
_OTHER_THAN_CONTRAST = re.compile(
    r"\b(pre|post|vor|avant) (op|operative|operation|surgery|rt|radiation|radiotherapy|chemo|treatment|therapy|tx)\b"
    r"|\bno (?=\d+\b)"
)
"""Before and after a treatment, and numbers of something."""


def modalities_of(text: str) -> set[str]:
    """Say which of :data:`MODALITIES` a file's name without its ending, or a scanner's words for a series, may mean.

    Upper and lower case do not differ. A T1 of which is said that there is a contrast agent is T1ce, a T2 that is FLAIR
    is FLAIR. Segmentations, localizers, images of the spine and of other kinds are none.

    Returns:
        Nothing where no modality is named; several where the words are not clear.

    Example:
        >>> for text in ("BraTS-00001-t2f", "t2_tirm_tra_dark-fluid", "Ax T1 +C", "T1 no contrast", "t1_seg"):
        ...     print(*modalities_of(text))
        FLAIR
        FLAIR
        T1ce
        T1
        <BLANKLINE>
        >>> sorted(modalities_of("T1 pre and post contrast"))
        ['T1', 'T1ce']
    """
    said = _WITHOUT.sub(r"\1 wo", " ".join(words_of(text)))
    words = set(_OTHER_THAN_CONTRAST.sub("", said).split())
    named = {_WORDS[word] for word in words if word in _WORDS}
    if words & _OF_NO_MODALITY or LABEL in named or _OF_OTHER_WEIGHTING.search(text.lower()):
        return set()
    if "FLAIR" in named:
        named.discard("T2")
    native, contrast = bool(words & _NATIVE), words & _CONTRAST or _PLUS_CONTRAST.search(text.lower())
    if "T1" in named and contrast and not native:
        named = named - {"T1"} | {"T1ce"}
    elif "T1" in named and native and "post" in words:
        named.add("T1ce")
    return named


def plain_names(names: Sequence[str]) -> list[str]:
    """Return modalities as this package calls them, so that those of two data sets can be compared.

    A name that means none of :data:`MODALITIES`, or several of them, stays, and so do all where two would be the same.

    Example:
        >>> plain_names(["T1w", "t1gd", "T2w", "Flair", "ADC"])
        ['T1', 'T1ce', 'T2', 'FLAIR', 'ADC']
        >>> plain_names(["T1", "T1w"])
        ['T1', 'T1w']
    """
    plain = [min(meant) if len(meant := modalities_of(name)) == 1 else name for name in names]
    return plain if len(set(plain)) == len(plain) else list(names)


def words_of(text: str) -> list[str]:
    """Split a name into its words, in lower case, without a ``2D`` or ``3D`` that sticks to one.

    Example:
        >>> words_of("sub-01_3DFLAIR")
        ['sub', '01', 'flair']
    """
    words = re.findall(r"[^\W_]+", text.lower())
    return [re.sub(r"^[23]d(?=.)|(?<=.)[23]d$", "", word) for word in words]
