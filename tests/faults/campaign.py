"""Disturbs every command in every way, again and again, and tables what came of it: ``make faults``.

Each outcome is kept in ``outcomes.jsonl`` of the folder, so a campaign that was stopped goes on.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunetv2_d2net.base.files import append_json_line, read_json_lines, read_json_or, write_json
from nnunetv2_d2net.base.text import markdown_table
from tests.faults.commands import COMMANDS, make_states
from tests.faults.faults import FAULTS, Outcome, Undisturbed, can_mount, disturb, undisturbed

_ONCE = ("read-only",)
_MOUNTED = ("full disk", "read-only")
_COLUMNS = ("command", "fault", "runs", "right at once", "right again", "told in one line", "silently wrong", "other")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table; the status is 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="faults of each kind and command (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/faults"), help="folder (%(default)s)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    args = parser.parse_args(argv)
    work = args.work.resolve()
    journal = work / "outcomes.jsonl"
    if not args.table:
        _run(args, work, journal)
    rows = table_of([line for line in read_json_lines(journal) if "outcome" in line])
    (work / "table.md").write_text(markdown_table([_COLUMNS, *rows]), encoding="utf-8")
    sys.stdout.write((work / "table.md").read_text(encoding="utf-8"))
    return int(any(row[-1] != "0" or row[-2] != "0" or row[2] != row[4] for row in rows))


def _run(args: argparse.Namespace, work: Path, journal: Path) -> None:
    place, states = work / "place", work / "states"
    work.mkdir(parents=True, exist_ok=True)
    mounts = can_mount(work / "disk")
    make_states(place, states, lambda line: tqdm.write(line, file=sys.stderr))
    faults = [fault for fault in args.faults if mounts or fault not in _MOUNTED]
    done = {(line["command"], line["fault"], line["index"]) for line in read_json_lines(journal)}
    plan = [(c, f, i) for i in range(args.n) for c in args.commands for f in faults if i == 0 or f not in _ONCE]
    todo, known = [key for key in plan if key not in done], _Known(work / "undisturbed.json", place, states)
    with tqdm(total=len(plan), initial=len(plan) - len(todo), unit="fault", file=sys.stderr) as bar:
        for name, fault, index in todo:
            bar.set_postfix_str(f"{name}: {fault}")
            outcome = disturb(place, COMMANDS[name], fault, index, known.of(name), states)
            line = {"command": name, "fault": fault, "index": index, "outcome": outcome._asdict()}
            append_json_line(journal, line)
            bar.update()


class _Known:
    """Undisturbed runs, each made when it is first needed, and kept in a file."""

    def __init__(self, file: Path, place: Path, states: Path) -> None:
        self.file, self.place, self.states = file, place, states
        self.runs = {name: Undisturbed(**run) for name, run in read_json_or(file, {}).items()}

    def of(self, name: str) -> Undisturbed:
        """Return the run of a command."""
        if name not in self.runs:
            self.runs[name] = undisturbed(self.place, COMMANDS[name], self.states)
            write_json(self.file, {known: run._asdict() for known, run in self.runs.items()})
        return self.runs[name]


def table_of(lines: Sequence[dict]) -> list[list[str]]:
    """Count outcomes by command and fault."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for line in lines:
        groups.setdefault((line["command"], line["fault"]), []).append(Outcome(**line["outcome"]))
    return [[*key, *_counts(outcomes)] for key, outcomes in groups.items()]


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    counts = [len(outcomes), sum(o.right_at_once for o in outcomes), sum(o.right_again for o in outcomes)]
    counts += [sum(o.told and o.status > 0 for o in outcomes), sum(bool(o.silently_wrong) for o in outcomes)]
    return [str(count) for count in (*counts, sum(bool(o.problems) for o in outcomes))]


if __name__ == "__main__":
    os.nice(10)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell commands would ignore it
    sys.exit(main())
