"""The first lines of a report: what came out, in words, bad news first."""

from typing import NamedTuple

from nnunetv2_d2net.study.report.leads import LEVEL, Lead, find_lead
from nnunetv2_d2net.study.report.results import Benchmark, mean_name, trainer_of

_DROPOUT = "nnUNetTrainerModalityDropout"
_STOCK = "nnUNetTrainer"
_SEVERITY = ("worse", "behind", "equal", "ahead", "better")
_FEWEST = 6
"""Cases below which Wilcoxon's two-sided test cannot reach 0.05 whatever they are."""


_ON_COMPLETE = {
    "worse": "{arm} loses to {rival} {where}.",
    "behind": "{arm} is behind {rival} {where}, which may be chance.",
    "equal": "{arm} and {rival} are equal {where}.",
    "ahead": "{arm} is ahead of {rival} {where}, which may be chance.",
    "better": "{arm} beats {rival} {where}.",
}
_ON_AVERAGE = _ON_COMPLETE | {
    "behind": "{arm} does not beat {rival} {where}: it is behind, which may be chance.",
    "equal": "{arm} does not beat {rival} {where}: they are equal.",
    "ahead": "{arm} is not shown to beat {rival} {where}: its lead may be chance.",
}


class Standing(NamedTuple):
    """Mean Dice of an arm over the subsets, and with all modalities; None where it was not scored."""

    arm: str
    average: float | None
    complete: float | None


class Sentence(NamedTuple):
    """What is claimed, and the figures behind it."""

    claim: str
    figures: str = ""

    def __str__(self) -> str:
        """Say both in one line."""
        return f"{self.claim} {self.figures}".rstrip()


class Verdict(NamedTuple):
    """What came out.

    Attributes:
        good: Nothing in the first lines speaks against the arm in focus.
        headlines: The comparisons that decide, bad news first.
        others: The further ones, bad news first.
        standings: Of every arm.
        average: What the mean over subsets is called.
        notes: What to know before believing it.
    """

    good: bool
    headlines: list[Sentence]
    others: list[Sentence]
    standings: list[Standing]
    average: str
    notes: list[str]


class _Finding(NamedTuple):
    lead: Lead
    on_complete: bool

    @property
    def bad(self) -> bool:
        """The arm must beat its rival on average, and must not fall behind on complete input."""
        outcome = self.lead.outcome
        return outcome in ("worse", "behind") or (not self.on_complete and outcome != "better")


def verdict(benchmark: Benchmark) -> Verdict:
    """Judge the arm in focus by its means over the regions.

    Two comparisons decide: with plain modality dropout on average over the subsets, and with stock nnU-Net on complete
    input. Where an arm is missing, its place takes the rival that is best there.
    """
    overall = benchmark.overall_region
    average = mean_name(next(iter(benchmark.summaries["dice"].values()))[overall])
    standings = [
        Standing(arm, *(benchmark.dice(arm, subset, overall) for subset in (average, benchmark.dataset.complete)))
        for arm in benchmark.arms
    ]
    findings = _findings(benchmark, average)
    deciding = [
        *_deciding([f for f in findings if not f.on_complete], _DROPOUT),
        *_deciding([f for f in findings if f.on_complete], _STOCK),
    ]
    others = [finding for finding in findings if finding not in deciding]
    return Verdict(
        good=bool(deciding) and not any(finding.bad for finding in deciding),
        headlines=[_sentence(f) for f in sorted(deciding, key=_bad_first)]
        or [Sentence("There is nothing to compare with.")],
        others=[_sentence(f) for f in sorted(others, key=_bad_first)],
        standings=standings,
        average=average,
        notes=_notes(benchmark, [finding.lead for finding in findings]),
    )


def _findings(benchmark: Benchmark, average: str) -> list[_Finding]:
    """Both comparisons of the arm in focus with every rival; one where all there is is complete input."""
    complete = benchmark.dataset.complete
    pairs = [(benchmark.focus, rival) for rival in benchmark.arms if rival != benchmark.focus]
    return [
        _Finding(lead, subset == complete)
        for pair in pairs
        for subset in dict.fromkeys((average, complete))
        if (lead := find_lead(benchmark, pair, subset, benchmark.overall_region))
    ]


def _deciding(findings: list[_Finding], rival: str) -> list[_Finding]:
    named = [finding for finding in findings if trainer_of(finding.lead.rival) == rival]
    return named or sorted(findings, key=lambda finding: -finding.lead.rival_dice)[:1]


def _bad_first(finding: _Finding) -> tuple[bool, int]:
    return not finding.bad, _SEVERITY.index(finding.lead.outcome)


def _sentence(finding: _Finding) -> Sentence:
    lead = finding.lead
    n_subsets = lead.subset.removeprefix("mean of ")
    where = "on complete input" if finding.on_complete else f"on average over the {n_subsets} subsets"
    claim = (_ON_COMPLETE if finding.on_complete else _ON_AVERAGE)[lead.outcome]
    return Sentence(
        claim.format(arm=lead.arm, rival=lead.rival, where=where),
        f"Mean Dice {lead.dice:.3f} against {lead.rival_dice:.3f}: {lead.figures()}.",
    )


def _notes(benchmark: Benchmark, leads: list[Lead]) -> list[str]:
    notes = [f"Arms are not trained alike: {line}." for line in benchmark.setup.get("differences", ())]
    fewest = min((lead.n for lead in leads), default=_FEWEST)
    if fewest < _FEWEST:
        notes.append(f"With {fewest} cases no difference can reach p < {LEVEL}, whatever it is.")
    if leads:
        notes.append(
            "p tells whether other cases would give the same order. Training anew may change it, too, and that is not "
            "in p: d2net repeats compares benchmarks that were trained anew."
        )
    return notes
