"""What the modalities are called: in the layouts that are known, in names of files, and in scanners' words."""

import re
from collections.abc import Iterable, Sequence
from unicodedata import combining, normalize

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
_T1S = {"T1", "T1ce"}

_AGENT = (
    r"(?:gd\d*|gd(?:dtpa|bopta)|gad|gado\w*|ce|km\d*|mdc|pdc|cte|civ|enh|enhanced|"
    r"dotarem|artirem|magnegita|prohance|omniscan|optimark|multihance|\w+avist|\w+[eo]vist|clariscan|dotagraf|cyclolux|"
    r"elucirem|vueway|[ck]ontr(?:ast(?:e|o|s|mittel|medi\w+|verst(?:a|ae)rk\w*)?)?|"
    r"inj(?:ect(?:ion|ed|ee?s?)?)?|injektion|injiziert|iniezione|iniettat[oa]|inyeccion|inyectad[oa]|injecao|injetad[oa])"
)
"""What is given, and that it is, in the languages of scanners; accents are folded."""

_NATIVE = (
    r"(?:pre|prae?|without|no|non|wo|minus|nativ(?:e|o|a)?|natif|ohne|vor|sans|avant|senza|prima|basale?|sin|sem|antes|"
    r"before|unenhanced|t1n)"
)
_NOT = (
    r"(?:nicht|not|kein\w{0,2}|un(?= enh)|ss(?= (?:gado|inj|pdc))|pas|previ[oa]|prior to|priv[oa]|sine|zonder|voor|"
    r"utan|uden|uten|før|bez|fara|ilman)"
)
"""Negations that say nothing away from a contrast agent."""

_WITH = (
    r"(?:with|w|mit|avec|con|com|c|met|med|after|nach|apres|apos|dopo|depois|despues|tras|efter|post?|pos|plus|durch|"
    r"by|und|and|et)"
)
_FILLER = (
    r"(?:mezzo|medio|medium|meio|produit|di|de|del|du|da|do|of|von|a|d|la|l|iv|i|v|intraven\w*|any|il|el|le|gabe|"
    r"administration|the|der)"
)
_SMALL = rf"(?: {_FILLER})*"
_NOT_GIVEN = re.compile(
    rf"\b(?:{_NATIVE}|{_NOT}(?: {_WITH})?|[ov]|s(?= contrast[eo]?\b))(?:{_SMALL} (?:{_AGENT}|cm)\b)+"
    rf"|\b(?:{_AGENT}|cm) (?:frei|free|none|no|nein|neg|negativ[eo]?|oncesi)\b"
)
_GIVEN_OR_NOT = re.compile(
    rf"\b(?:with|w|mit|avec|con|com|c|after|nach|apres|dopo)(?: (?:and|und|et|e|y|or|ou|o(?:der)?))? "
    rf"(?:{_NATIVE}|s(?= contrast))\b"
)
_IS_NATIVE, _IS_GIVEN = re.compile(rf"\b{_NATIVE}\b"), re.compile(rf"\b(?:{_AGENT}|post|{_WITH} cm)\b")
_PLANE = r"(?:t1w?|ax\w*|tra\w*|sag\w*|[ck]or\w*)"
_MAY_BE_GIVEN = re.compile(
    r"\b(?:(?:gad|[ck]ontrast|inje|injiz|iniez|iniett|inyec)\w+|plus|iv|i v|pos|cm|pc|cont|delayed|dynami\w+|w c|"
    rf"(?:with|mit|avec|after|nach|apres|apos|dopo)(?= {_PLANE}\b|$))\b"
)
"""Words that nobody has foreseen, or that name no agent: the user is asked."""

_GIVES = re.compile(_WITH)
_BESIDE_AGENT = re.compile(rf"(?:\b(\w+){_SMALL} )?\b{_AGENT}(?:{_SMALL} {_AGENT})*\b(?: (\w+))?")
_NO_NEGATION = re.compile(
    rf"{_AGENT}|{_NATIVE}|{_WITH}|{_PLANE}|{_FILLER}|(?!0$)\w*\d\w*|"
    r"flair|m?e?mprage|mpr|[tf]?se|gre|[tf]fe|f?spgr|s?t?ir|tirm|vibe|thrive|lava|flash|bravo|space|cube|blade|propeller|"
    r"m?dixon|spair|spir|fs|fat|fatsat|sat|water|mtc?|hr|hires|clear|twist|caipi\w*|grappa|turbo|fast|spin|echo|dark|"
    r"black|blood|dyn\w*|late|delayed|min|ml|iso\w*|thin|volum\w*|recon\w*|reform\w*|w?weighted|images?|img|mri?|mrt|irm|rm|"
    r"brain|head|kopf|sch(?:a|ae)del|hirn|cerebr\w*|cr[ai]n\w*|cerveau|ence(?:ph|f)al\w*|tumou?r|navi\w*|neuronav\w*|"
    r"stealth|stereo\w*|acq|run|rec|desc|sub|ses|reg\w*|coreg\w*|norm\w*|resampled|stripped|skull\w*|bet|bias|masked|warped|"
    r"defaced|orig\w*|raw|final|copy|kopie|anon\w*|mni|reorient\w*|ref|bb|bh|routine|standard|follow|up|followup"
)
"""What may stand beside a contrast agent and leaves it given; any other word may negate it, in whatever language."""

_STUCK = re.compile(
    rf"\b(?!t1(?:ce|gd)\b)(t1w?|pre|prae?|post|no|non|vor|nach|mit|ohne|sans|without)(?=(?:{_AGENT}|pre|post)\b)"
)
_PLUS = re.compile(
    r"t1w?[\s_]*\+\W*$|\+\s*[ck](?![^\W_])|(?<![^\W_])(?:c|iv)\s*\+|(?<![^\W_])(?:plus|t1w?)[\s_]+c(?![^\W_])"
)
_SIGNS = (
    (re.compile(r"^sub-(?!(?:t1w?|ax|tra|sag|cor)(?![^\W_]))[^\W_]+|(?<![^\W_])ses-[^\W_]+"), " "),
    (re.compile(r"\+/?-|±|(?<![^\W_])t1w?-c(?![^\W_])"), " t1 pre post "),
    (re.compile(rf"(?<=[\s_(\[])-(?=(?:{_AGENT}|[ck])(?![^\W_]))"), " ohne km "),
    (re.compile(r"(?<![^\W_])(t1w?)?(?:km|gd|gado?|mdc|ce|iv|[ck])-(?=[\s_)\],]|$)"), r" \1 ohne km "),
    (re.compile(rf"(?<![^\W_])s[/.-]\s*(?:c(?![^\W_])|(?={_AGENT}(?![^\W_])))"), " sans km "),
    (re.compile(r"(?<![^\W_])w/(?:c(?![^\W_])|\W*$)"), " w c "),
    (re.compile(rf"(?<![^\W_])ce-(?={_AGENT}(?![^\W_]))"), " post "),
)
"""Subject and session of BIDS; more or less; minus; ``s/c``, without in Spanish; ``w/c``; BIDS's agent: words keep
nothing of them."""

_OF_NO_MODALITY = re.compile(
    r"\b(?:\w*mask(?!ed\b|iert)\w*|\w*(?:masque|mascher|mascara)\w*|\w*segs?|segm|\w*segment\w*|labels?|[rv]oi(?:s|\d*)|"
    r"lesion\w*|lae?sion\w*|[gcp]tv\d*|gt|pred(?:s|ict\w*)?|pve|annotat\w*|contours?|parcel\w*|"
    r"adc|dwi|dti|diff(?:usion|eren\w*)?|trace\w?|swi|asl|perf(?:usion)?|dsc|dce|(?:r|rel)?(?:cb[vf]|mtt)|ttp|tmax|ktrans|"
    r"bold|ha?emo|\w*map(?:s|ping)?|jacobian\w*|bias ?field(?! ?corr)|warp|"
    r"subs?tra[ckz]\w*|soustra\w*|sottra\w*|sustra\w*|mr[av]|tof|mip|minip|angio\w*|projection|"
    r"loc|lo[ck]ali[sz]\w*|scout|survey|topogram\w*|\w*spine|[hbl]ws|cervical\w*|neck|hals)\b"
    r"|\b(?:tumou?r\w*|tumeur|wmh|[gw]m|csf)(?: \d+)?$"
)
"""The last ones name a data set where they do not end the name."""

_OF_ANOTHER_KIND = re.compile(
    r"t2[\W_]*(\*|star(?![^\W_]))|(?<![^\W_])ep[23]d|(?<![^\W_])sub[\W_]+(?:t1w?|ax|tra|sag|cor)(?![^\W_])|"
    r"(?:t1|mprage)[^\W_]*[\W_](?:.*[\W_])?sub(?![^\W_]|-\w|_?\d+(?![^\W_]))"
)
"""T2* and subtractions, but not BIDS's subject ``sub-01_T1w``."""

_OF_GRADIENT_ECHOES = re.compile(r"(?<![^\W_])(?:f?gre|mpgr|ffe|swan|medic|(?:fl|me)[23]d)(?![^\W_])")
"""A T2 of which is T2*, and a T1 a T1."""

_WITHOUT = re.compile(r"\b(t1)?w o(?:ut)?\b")
_OTHER_THAN_CONTRAST = re.compile(
    r"\b(pre|prae?|post?|pos|vor|nach|avant|apres|prima|dopo|before|after) "
    r"(op|operative|operation|surgery|rt|radiation|radiotherapy|chemo|treatment|therapy|tx)\b"
    r"|\bno (?=\d+\b)|\bsense$"
)
"""Before and after a treatment, numbers of something, and Philips's parallel imaging, which is without in Catalan."""


def modalities_of(text: str) -> set[str]:
    """Say which of :data:`MODALITIES` a file's name without its ending, or a scanner's words for a series, may mean.

    Upper and lower case do not differ. A T1 of which is said that there is a contrast agent is T1ce, a T2 that is FLAIR
    is FLAIR. Segmentations, subtractions, maps, localizers, images of the spine and of other kinds, such as T2*, are
    none.

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
    said, folded = _said(text), _folded(text)
    named = {_WORDS[word] for word in said.split() if word in _WORDS}
    if LABEL in named or _OF_NO_MODALITY.search(said) or _OF_ANOTHER_KIND.search(folded):
        return set()
    if named == {"T2"} and _OF_GRADIENT_ECHOES.search(folded):
        return set()
    if "FLAIR" in named:
        named.discard("T2")
    return named - {"T1"} | (_by_agent(text) or {"T1"}) if "T1" in named else named


def modalities_beside(text: str, beside: Iterable[str], *, agent: bool = False) -> set[str]:
    """Say as :func:`modalities_of` does, where other words stand beside, which may contradict.

    Args:
        text: Of the image.
        beside: Names of its protocol or folder, which count if they name a T1 and nothing else.
        agent: Whether a contrast agent is noted for it, which native words outweigh: some scanners note it for all.
    """
    meant = modalities_of(text)
    if meant.isdisjoint(_T1S):
        return meant
    others = [other for other in beside if modalities_of(other) and modalities_of(other) <= _T1S]
    said = set().union(*(_by_agent(other) | modalities_of(other) - {"T1"} for other in others))
    if agent and "T1" not in _by_agent(text) | said:
        said.add("T1ce")
    return meant | said


def _by_agent(text: str) -> set[str]:
    """Say what a T1 is by the words for a contrast agent; nothing where there are none, both where they are unclear.

    An agent beside a word of unknown meaning is unclear unless that it was given is said.
    """
    said = _said(text)
    rest = _NOT_GIVEN.sub("", said)
    unsaid = (match for match in _BESIDE_AGENT.finditer(rest) if not _GIVES.fullmatch(match[1] or ""))
    unknown = any(word and not _NO_NEGATION.fullmatch(word) for match in unsaid for word in match.groups())
    given = _IS_GIVEN.search(rest) or _GIVEN_OR_NOT.search(said) or _PLUS.search(_folded(text))
    may_be = unknown or (not given and _MAY_BE_GIVEN.search(rest))
    native = _IS_NATIVE.search(said) or rest != said
    return {modality for modality, is_said in (("T1", native), ("T1ce", given)) if is_said or may_be}


def _said(text: str) -> str:
    """Bring a name into words that stand apart, without those that are of no modality nor of a contrast agent."""
    said = _WITHOUT.sub(r"\1 wo", " ".join(words_of(_folded(text))))
    return " ".join(_STUCK.sub(r"\1 ", _OTHER_THAN_CONTRAST.sub("", said)).split())


def _folded(text: str) -> str:
    """Return a text in lower case without accents, with words for signs."""
    folded = "".join(letter for letter in normalize("NFKD", text.lower()) if not combining(letter))
    for sign, words in _SIGNS:
        folded = sign.sub(words, folded)
    return folded


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
