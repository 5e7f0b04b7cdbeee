"""What a conversion has done: a journal while it runs, ``conversion.json`` afterwards; ``convert_back`` reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import LOCK, append_json_line, file_state, read_json, read_json_lines, write_json
from nnunetv2_d2net.base.text import version_of
from nnunetv2_d2net.data.convert.cases import CaseReport, Layout, SourceCase
from nnunetv2_d2net.data.convert.one_case import case_targets, remove_case

RECORD = "conversion.json"
_JOURNAL = "conversion.unfinished.jsonl"
_FORMAT = 1


@dataclass
class Record:
    """The record of one data set.

    Attributes:
        folder: Of the data set.
        settings: What must be the same when a conversion goes on.
        cases: What was converted, by case, as JSON.
    """

    folder: Path
    settings: dict[str, Any]
    cases: dict[str, dict[str, Any]]

    def touch(self) -> None:
        """Mark the folder as one that is being converted, before anything else is written into it."""
        (self.folder / _JOURNAL).touch()

    def is_complete(self, case: SourceCase) -> bool:
        """Tell whether the case was converted from these very files, and is still there."""
        entry = self.cases.get(case.name)
        if entry is None or entry["split"] != case.split or entry["files"] != _files(case):
            return False
        channels = [self.settings["modalities"].index(modality) for modality in entry["modalities"]]
        targets = case_targets(self.folder, case.name, case.split, channels, label=entry["label"] is not None)
        return all(path.is_file() for path in targets)

    def add(self, case: SourceCase, report: CaseReport) -> None:
        """Note that a case is complete, at once and in a way that survives being killed."""
        self.cases[case.name] = _entry(case, report)
        line = {"settings": self.settings, "name": case.name, "case": self.cases[case.name]}
        append_json_line(self.folder / _JOURNAL, line)

    def remove(self, name: str) -> None:
        """Take a case that was converted out of the data set."""
        if self.cases.pop(name, None) is not None:
            remove_case(self.folder, name, self.settings["modalities"])

    def reports(self) -> list[CaseReport]:
        """Say what is known of the cases, sorted by name."""
        return [_report(name, entry) for name, entry in sorted(self.cases.items())]

    def finish(self, problems: Mapping[str, str]) -> None:
        """Write ``conversion.json``, remove the journal."""
        content = {
            "format": _FORMAT,
            "versions": {"nnunetv2_d2net": __version__} | {n: version_of(n) for n in ("nnunetv2", "SimpleITK")},
            **self.settings,
            "problems": dict(problems),
            "cases": dict(sorted(self.cases.items())),
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
    settings = _settings(layout, sources)
    record, journal = Record(folder, settings, {}), folder / _JOURNAL
    if (folder / RECORD).is_file():
        content = read_record(folder / RECORD)
        _check_same(folder, content, settings)
        record.cases.update(content["cases"])
    elif folder.exists() and not journal.is_file() and any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} exists and was not written by d2net convert: choose another -d or --name")
    for entry in read_json_lines(journal):
        _check_same(folder, entry["settings"], settings)
        record.cases[entry["name"]] = entry["case"]
    return record


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


def _settings(layout: Layout, sources: Mapping[str, Path]) -> dict[str, Any]:
    """Describe where the data come from and what their labels mean, as JSON."""
    scheme = layout.scheme
    return {
        "layout": layout.name,
        "sources": {split: str(path.resolve()) for split, path in sources.items()},
        "modalities": list(layout.modalities),
        "label_names": {str(value): name for value, name in scheme.names.items()},
        "label_values": {str(value): target for value, target in scheme.values.items()},
    }


def _check_same(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if earlier.get(key) != value:
            raise UserError(
                f"{folder} was converted with {key} {json.dumps(earlier.get(key))}, not {json.dumps(value)}: choose "
                "another -d or --name, or remove it"
            )


def _entry(case: SourceCase, report: CaseReport) -> dict[str, Any]:
    images = {
        name: str(volume.path.absolute()) + ("" if volume.channel is None else f"[{volume.channel}]")
        for name, volume in case.images.items()
    }
    return {
        "split": case.split,
        "images": images,
        "label": None if case.label is None else str(case.label.absolute()),
        "files": _files(case),
        "modalities": report.modalities,
        "voxels": {str(value): n for value, n in report.counts.items()},
        "geometry": report.geometry,
        "notes": report.notes,
        "digests": report.digests,
    }


def _report(name: str, entry: dict[str, Any]) -> CaseReport:
    counts = {int(value): n for value, n in entry["voxels"].items()}
    return CaseReport(
        name, entry["split"], entry["modalities"], counts, entry["geometry"], entry["notes"], entry["digests"]
    )


def _files(case: SourceCase) -> dict[str, list[int] | None]:
    """Size and time of each file, which tell whether it has changed."""
    return {str(path.absolute()): file_state(path) for path in case.files()}
