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


class Finding(NamedTuple):
    """One comparison of the arm in focus.

    Attributes:
        lead: Over its rival.
        on_complete: With all modalities; else on average over the subsets.
    """

    lead: Lead
    on_complete: bool

    @property
    def bad(self) -> bool:
        """The arm must beat its rival on average, and must not fall behind on complete input."""
        outcome = self.lead.outcome
        return outcome in ("worse", "behind") or (not self.on_complete and outcome != "better")

    @property
    def rank(self) -> tuple[bool, int]:
        """Place among the findings, bad news first."""
        return not self.bad, _SEVERITY.index(self.lead.outcome)

    @property
    def claim(self) -> str:
        """What came out."""
        test = self.lead.test
        n_subsets = test.subset.removeprefix("mean of ")
        where = "on complete input" if self.on_complete else f"on average over the {n_subsets} subsets"
        claims = _ON_COMPLETE if self.on_complete else _ON_AVERAGE
        return claims[self.lead.outcome].format(arm=test.arm, rival=test.rival, where=where)

    @property
    def figures(self) -> str:
        """The figures behind the claim."""
        return f"Mean Dice {self.lead.dice:.3f} against {self.lead.rival_dice:.3f}: {self.lead.figures}."


class Verdict(NamedTuple):
    """What came out.

    Attributes:
        good: Nothing in the first lines speaks against the arm in focus.
        headlines: The comparisons that decide, bad news first; none if there is nothing to compare with.
        others: The further ones, bad news first.
        average: What the mean over subsets is called.
        standings: Mean Dice of every arm over the subsets, and with all modalities; None where it was not scored.
        notes: What to know before believing it.
    """

    good: bool
    headlines: list[Finding]
    others: list[Finding]
    average: str
    standings: dict[str, tuple[float | None, float | None]]
    notes: list[str]


def verdict(benchmark: Benchmark) -> Verdict:
    """Judge the arm in focus by its means over the regions.

    Two comparisons decide: with plain modality dropout on average over the subsets, and with stock nnU-Net on complete
    input. Where an arm is missing, its place takes the rival that is best there.
    """
    overall, complete, focus = benchmark.overall_region, benchmark.dataset.complete, benchmark.focus
    average = mean_name(next(iter(benchmark.summaries["dice"].values()))[overall])
    findings = [
        Finding(lead, subset == complete)
        for rival in benchmark.arms
        for subset in dict.fromkeys((average, complete))  # one where all there is is complete input
        if rival != focus and (lead := find_lead(benchmark, focus, rival, subset, overall))
    ]
    deciding = [
        *_deciding([finding for finding in findings if not finding.on_complete], _DROPOUT),
        *_deciding([finding for finding in findings if finding.on_complete], _STOCK),
    ]
    return Verdict(
        good=bool(deciding) and not any(finding.bad for finding in deciding),
        headlines=sorted(deciding, key=lambda finding: finding.rank),
        others=sorted((f for f in findings if f not in deciding), key=lambda finding: finding.rank),
        average=average,
        standings={
            arm: (benchmark.dice(arm, average, overall), benchmark.dice(arm, complete, overall))
            for arm in benchmark.arms
        },
        notes=_notes(benchmark, [finding.lead.test.n for finding in findings]),
    )


def _deciding(findings: list[Finding], rival: str) -> list[Finding]:
    named = [finding for finding in findings if trainer_of(finding.lead.test.rival) == rival]
    return named or sorted(findings, key=lambda finding: -finding.lead.rival_dice)[:1]


def _notes(benchmark: Benchmark, numbers_of_cases: list[int]) -> list[str]:
    notes = [f"Arms are not trained alike: {line}." for line in benchmark.setup.get("differences", ())]
    fewest = min(numbers_of_cases, default=_FEWEST)
    if fewest < _FEWEST:
        notes.append(f"With {fewest} cases no difference can reach p < {LEVEL}, whatever it is.")
    if numbers_of_cases:
        notes.append(
            "p tells whether other cases would give the same order. Training anew may change it, too, and that is not "
            "in p: d2net repeats compares benchmarks that were trained anew."
        )
    return notes
