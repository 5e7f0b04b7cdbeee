"""Naming what is wrong with some cases after the others are done."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunetv2_d2net.base.errors import UserError

if TYPE_CHECKING:
    from nnunetv2_d2net.data.convert.cases import Problem


def refuse_problems(problems: "Sequence[Problem]", what: str, remedy: str) -> None:
    """Name every problem on stderr, then count them by kind.

    Args:
        problems: One a case.
        what: What has them and what came of it, such as ``cases left out``.
        remedy: What to do.

    Raises:
        UserError: There are problems.
    """
    if problems:
        sys.stdout.flush()
        sys.stderr.writelines(f"{problem.kind}: {problem.line}\n" for problem in problems)
        kinds = Counter(problem.kind for problem in problems).most_common()
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds)
        raise UserError(f"{len(problems)} {what} ({counts}), named above: {remedy}")
