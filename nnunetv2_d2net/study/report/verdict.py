"""The first lines of a report: what came out, in words, bad news first."""

from collections.abc import Sequence
from typing import NamedTuple

from nnunetv2_d2net.base.text import counted
from nnunetv2_d2net.plugin.protocols import as_words
from nnunetv2_d2net.study.report.leads import LEVEL, TIE, Lead, find_lead
from nnunetv2_d2net.study.report.results import Benchmark, epochs_of, mean_name, trainer_of
from nnunetv2_d2net.study.scores.comparison import holm
from nnunetv2_d2net.study.scores.tables import ONE_TRAINING

_DROPOUTS = ("nnUNetTrainerModalityDropoutAdamW", "nnUNetTrainerModalityDropout")  # the stronger one first
_STOCKS = ("nnUNetTrainer",)
_SEVERITY = ("worse", "behind", "level", "tie", "ahead", "better")

_ON_COMPLETE = {
    "worse": "{arm} loses to {rival} {where}.",
    "behind": "{arm} is behind {rival} {where}, which may be chance.",
    "level": "{arm} and {rival} do not differ {where}, which may be chance.",
    "tie": f"{{arm}} and {{rival}} tie {{where}}: the whole interval lies within {TIE}.",
    "ahead": "{arm} is ahead of {rival} {where}, which may be chance.",
    "better": "{arm} beats {rival} {where}.",
}
_ON_AVERAGE = _ON_COMPLETE | {
    "behind": "{arm} does not beat {rival} {where}: it is behind, which may be chance.",
    "level": "{arm} is not shown to beat {rival} {where}: they do not differ, which may be chance.",
    "tie": f"{{arm}} does not beat {{rival}} {{where}}: they tie, the whole interval lies within {TIE}.",
    "ahead": "{arm} is not shown to beat {rival} {where}: its lead may be chance.",
}


_WHAT_P_TELLS = "p tells whether other cases would give the same order, not whether another training would."
_FEW = 6  # cases, of which no test can say anything
_ANEW = f"{ONE_TRAINING} d2net repeats compares benchmarks that were trained anew."


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
        average = f"on average over the {n_subsets} subsets" if n_subsets != test.subset else f"with {n_subsets}"
        where = "on complete input" if self.on_complete else average
        claims = _ON_COMPLETE if self.on_complete else _ON_AVERAGE
        claim = claims[self.lead.outcome].format(arm=test.arm, rival=test.rival, where=where)
        if not test.n_better + test.n_worse:
            claim = claim.replace("which may be chance", "in any case")
        return f"{claim[:-1]}; {self.lead.contrary}." if self.lead.contrary else claim

    @property
    def figures(self) -> str:
        """The figures behind the claim."""
        test = self.lead.test
        return f"Mean Dice {test.mean:.3f} against {test.rival_mean:.3f}: {self.lead.figures}."


class Verdict(NamedTuple):
    """What came out.

    Attributes:
        good: Nothing in the first lines speaks against the arm in focus.
        headlines: The comparisons that decide, bad news first; none if there is nothing to compare with.
        others: The further ones, bad news first.
        average: What the mean over subsets is called.
        standings: Mean Dice of every arm over the subsets, and with all modalities, each over the cases that all
            arms share; None where it was not scored.
        n_cases: How many these are, of the subsets and with all modalities.
        notes: What to know before believing it.
    """

    good: bool
    headlines: list[Finding]
    others: list[Finding]
    average: str
    standings: dict[str, tuple[float | None, float | None]]
    n_cases: tuple[int, ...]
    notes: list[str]


def verdict(benchmark: Benchmark) -> Verdict:
    """Judge the arm in focus by its means over the regions.

    Two comparisons decide, and their p are corrected for two: with modality dropout on average over the subsets, of
    the nearest length and by AdamW if both kinds have it, and with stock nnU-Net on complete input. Where
    an arm is missing, its place takes the rival that is best there.
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
        *_deciding(benchmark, [finding for finding in findings if not finding.on_complete], _DROPOUTS),
        *_deciding(benchmark, [finding for finding in findings if finding.on_complete], _STOCKS),
    ]
    others = [finding for finding in findings if finding not in deciding]
    headlines = [_corrected(finding, deciding) for finding in deciding]
    subsets = list(next(iter(benchmark.tables.values()))[overall])
    means = [benchmark.shared_dice(names, overall) for names in (subsets, [complete])]
    n_cases = [benchmark.n_shared(names, overall) for names in (subsets, [complete])]
    return Verdict(
        good=bool(headlines) and not any(finding.bad for finding in headlines),
        headlines=sorted(headlines, key=lambda finding: finding.rank),
        others=sorted(others, key=lambda finding: finding.rank),
        average=average,
        standings={arm: (means[0].get(arm), means[1].get(arm)) for arm in benchmark.arms},
        n_cases=tuple(n_cases),
        notes=_notes(benchmark, headlines, average),
    )


def _corrected(finding: Finding, deciding: list[Finding]) -> Finding:
    """Correct p for the number of findings that decide."""
    p_holm = holm([other.lead.test.p for other in deciding])[deciding.index(finding)]
    test = finding.lead.test._replace(p_holm=float(p_holm))
    return finding._replace(lead=Lead(test, "for the two tests that decide"))


def _deciding(benchmark: Benchmark, findings: list[Finding], rivals: Sequence[str]) -> list[Finding]:
    """Choose the test against the rival of the length nearest to what the arm in focus has seen; of those the first."""
    named = [finding for rival in rivals for finding in findings if trainer_of(finding.lead.test.rival) == rival]
    if not named:
        return sorted(findings, key=lambda finding: finding.lead.test.mean_difference)[:1]
    epochs = {arm["name"]: epochs_of(arm) for arm in benchmark.setup["arms"]}
    return [min(named, key=lambda finding: abs(epochs[finding.lead.test.rival] - epochs[benchmark.focus]))]


def _notes(benchmark: Benchmark, headlines: list[Finding], average: str) -> list[str]:
    notes = [f"Arms are not trained alike: {line}." for line in benchmark.setup.get("differences", ())]
    if len(set(benchmark.weights.values())) > 1:
        often = ", ".join(as_words(benchmark.weights))
        notes.append(f"In means over the subsets each counts as often as it is said to occur: {often}.")
    tests = [finding.lead.test for finding in headlines]
    fewest = min((test.n for test in tests), default=0)
    if tests and len(tests) * 2 / 2**fewest >= LEVEL:
        notes.append(f"With {counted(fewest, 'case')} no difference can reach p < {LEVEL}, whatever it is.")
    for test in tests:
        if test.n_left_out:
            all_cases, where = counted(test.n + test.n_left_out, "case"), f"{test.subset} against {test.rival}"
            notes.append(
                f"{test.n_left_out} of {all_cases} are left out of {where}, because they lack a subset in one of the "
                "arms. Tables of one arm average each subset over all cases that have it, and may show another order."
            )
    if len(benchmark.arms) > 1 and average.startswith("mean of ") and all(line.on_complete for line in headlines):
        notes.append("No case has all subsets in two arms, so nothing is said of the mean over the subsets.")
    if tests:
        notes.append(f"{_correction(benchmark, headlines)} {_WHAT_P_TELLS}")
    if (n_cases := len(benchmark.cases)) < _FEW:
        notes.append(f"{counted(n_cases, 'case')}: enough to see that it runs, too few to say how good it is.")
    return [*notes, _ANEW]


def _correction(benchmark: Benchmark, headlines: list[Finding]) -> str:
    """Say what p is corrected for, and what not."""
    corrected = (
        "Both p above are corrected for two tests by Holm's method" if len(headlines) > 1 else "p is of one test"
    )
    named = all(trainer_of(line.lead.test.rival) in (_STOCKS if line.on_complete else _DROPOUTS) for line in headlines)
    if named or len(benchmark.arms) == 2:  # there was no choice
        return f"{corrected}, named beforehand."
    return f"{corrected}, but not for choosing as rival the best of the other arms by these very cases."
