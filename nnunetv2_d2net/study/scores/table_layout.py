"""A table with a column per subset, its header drawn as in the literature: a filled circle for what is available."""

from collections.abc import Sequence
from typing import NamedTuple

from nnunetv2_d2net.study.scores.subset_table import markdown_table

_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "●": r"$\bullet$", "○": r"$\circ$"}
_LATEX |= {character: rf"\{character}" for character in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


class Table(NamedTuple):
    """Cells, ready to be rendered.

    Attributes:
        title: Metric and unit.
        stubs: Headers of the columns that name the row.
        subsets: Of the other columns; a name not made of modalities stands for itself.
        rows: As many cells as stubs and subsets.
        modalities: M names.
    """

    title: str
    stubs: list[str]
    subsets: list[str]
    rows: list[list[str]]
    modalities: list[str]

    def header(self) -> list[list[str]]:
        """Return a row of circles per modality; or one of names, if no column is a subset of the modalities."""
        known = [set(subset.split("+")) <= set(self.modalities) for subset in self.subsets]
        if not any(known):
            return [[*self.stubs, *self.subsets]]
        rows = [
            [
                modality,
                *self.stubs[1:],
                *(self._circle(modality, s) if k else "" for s, k in zip(self.subsets, known, strict=True)),
            ]
            for modality in self.modalities
        ]
        names = [name if not k else "" for name, k in zip(self.subsets, known, strict=True)]
        rows[0][len(self.stubs) :] = [n or cell for n, cell in zip(names, rows[0][len(self.stubs) :], strict=True)]
        return rows

    @staticmethod
    def _circle(modality: str, subset: str) -> str:
        return "●" if modality in subset.split("+") else "○"

    def markdown(self) -> str:
        """Render as Markdown."""
        return f"{self.title}\n\n{markdown_table([*self.header(), *self.rows])}"

    def latex(self) -> str:
        """Render as a LaTeX ``tabular`` for the package booktabs."""
        lines = [
            f"% {self.title}",
            rf"\begin{{tabular}}{{{'l' * len(self.stubs)}{'r' * len(self.subsets)}}}",
            r"\toprule",
        ]
        lines += [_latex_row(row) for row in self.header()]
        lines += [r"\midrule", *(_latex_row(row) for row in self.rows), r"\bottomrule", r"\end{tabular}"]
        return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"
