"""What a conversion has done: a journal while it runs, ``conversion.json`` afterwards; ``convert_back`` reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import LOCK, append_json_line, read_json, read_json_lines, write_json
from nnunetv2_d2net.base.text import version_of
from nnunetv2_d2net.data.convert.cases import CaseReport, Layout, SourceCase
from nnunetv2_d2net.data.convert.one_case import case_targets, remove_case

RECORD = "conversion.json"
_JOURNAL = "conversion.unfinished.jsonl"
_FORMAT = 1
_SAME = ("split", "files", "images", "label")
"""What a case must have in common with its record."""


@dataclass
class Record:
    """The record of one data set: what must be the same when a conversion goes on, and the cases that are converted."""

    folder: Path
    settings: dict[str, Any]
    cases: dict[str, CaseReport]

    def touch(self) -> None:
        """Mark the folder as one that is being converted, before anything else is written into it."""
        (self.folder / _JOURNAL).touch()

    def is_complete(self, case: SourceCase) -> bool:
        """Tell whether the case was converted from these very files, each for what it is now, and is still there."""
        done, now = self.cases.get(case.name), CaseReport.of(case)
        if done is None or any(getattr(done, what) != getattr(now, what) for what in _SAME):
            return False
        channels = [self.settings["modalities"].index(modality) for modality in done.modalities]
        targets = case_targets(self.folder, case.name, case.split, channels, label=done.label is not None)
        return all(path.is_file() for path in targets)

    def add(self, report: CaseReport) -> None:
        """Note that a case is complete, at once and in a way that survives being killed."""
        self.cases[report.case] = report
        line = {"settings": self.settings, "name": report.case, "case": _entry(report)}
        append_json_line(self.folder / _JOURNAL, line)

    def remove(self, name: str) -> None:
        """Take a case that was converted out of the data set."""
        if self.cases.pop(name, None) is not None:
            remove_case(self.folder, name, self.settings["modalities"])

    def reports(self) -> list[CaseReport]:
        """Say what is known of the cases, sorted by name."""
        return [report for _, report in sorted(self.cases.items())]

    def finish(self, problems: Mapping[str, str]) -> None:
        """Write ``conversion.json``, remove the journal."""
        content = {
            "format": _FORMAT,
            "versions": {"nnunetv2_d2net": __version__} | {n: version_of(n) for n in ("nnunetv2", "SimpleITK")},
            **self.settings,
            "problems": dict(problems),
            "cases": {report.case: _entry(report) for report in self.reports()},
        }
        write_json(self.folder / RECORD, content)
        (self.folder / _JOURNAL).unlink(missing_ok=True)


def open_record(folder: Path, layout: Layout, sources: Mapping[str, Path]) -> Record:
    """Return the record of a folder, with what earlier runs have done.

    Args:
        folder: Of the data set; may be missing.
        layout: Of the source.
        sources: Folder of the training and, where given, of the test cases.

    Raises:
        UserError: The folder is something else, or was made from another source.
    """
    settings = {
        "layout": layout.name,
        "sources": {split: str(path.resolve()) for split, path in sources.items()},
        "modalities": list(layout.modalities),
        "label_names": {str(value): name for value, name in layout.scheme.names.items()},
        "label_values": {str(value): target for value, target in layout.scheme.values.items()},
    }
    cases, journal = {}, folder / _JOURNAL
    if (folder / RECORD).is_file():
        content = read_record(folder / RECORD)
        _check_same(folder, content, settings)
        cases |= content["cases"]
    elif folder.exists() and not journal.is_file() and any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} exists and was not written by d2net convert: choose another -d or --name")
    for line in read_json_lines(journal):
        _check_same(folder, line["settings"], settings)
        cases[line["name"]] = line["case"]
    return Record(folder, settings, {name: _report(name, entry) for name, entry in cases.items()})


def read_record(path: Path) -> dict[str, Any]:
    """Read a ``conversion.json``.

    Raises:
        UserError: It is missing, damaged, or of a later version.
    """
    remedy = "d2net convert writes it beside the data, remove it with its data set and convert again"
    content = read_json(path, remedy, {"format": int, "cases": dict})
    if content["format"] != _FORMAT:
        raise UserError(f"{path} is not a record of this version of d2net convert: convert again")
    return content


def _check_same(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if earlier.get(key) != value:
            change = f"{key} {json.dumps(earlier.get(key))}, not {json.dumps(value)}"
            raise UserError(f"{folder} was converted with {change}: choose another -d or --name, or remove it")


def _entry(report: CaseReport) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name not in ("case", "problem")}


def _report(name: str, entry: dict[str, Any]) -> CaseReport:
    report = CaseReport(name, **entry)
    report.voxels = {int(value): n for value, n in entry["voxels"].items()}
    return report
