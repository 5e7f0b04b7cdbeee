"""What a conversion has done: a journal while it runs, ``conversion.json`` afterwards; ``convert_back`` reads it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2_d2net import __version__
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.cases import SourceCase
from nnunetv2_d2net.data.convert.layouts import Layout
from nnunetv2_d2net.data.convert.report import CaseReport

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

    def add(self, case: SourceCase, report: CaseReport) -> None:
        """Note that a case is complete, at once and in a way that survives being killed."""
        self.cases[case.name] = _entry(case, report)
        line = json.dumps({"settings": self.settings, "name": case.name, "case": self.cases[case.name]})
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def touch(self) -> None:
        """Mark the folder as one that is being converted, before anything else is written into it."""
        (self.folder / _JOURNAL).touch()

    def same_source(self, case: SourceCase) -> bool:
        """Tell whether the case was converted from these very files."""
        entry = self.cases.get(case.name)
        return entry is not None and entry["split"] == case.split and entry["files"] == _files(case)

    def finish(self, problems: Mapping[str, str]) -> None:
        """Write ``conversion.json``, remove the journal."""
        versions = {"nnunetv2_d2net": __version__} | {name: version(name) for name in ("nnunetv2", "SimpleITK")}
        content = {
            "format": _FORMAT,
            "versions": versions,
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
    settings = settings_of(layout, sources)
    record = Record(folder, settings, {})
    journal = folder / _JOURNAL
    if (folder / RECORD).is_file():
        content = read_record(folder / RECORD)
        _check_same(folder, content, settings)
        record.cases.update(content["cases"])
    elif folder.exists() and not journal.is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and was not written by d2net convert: choose another -d or --name")
    for entry in _read_journal(journal):
        _check_same(folder, entry["settings"], settings)
        record.cases[entry["name"]] = entry["case"]
    return record


def settings_of(layout: Layout, sources: Mapping[str, Path]) -> dict[str, Any]:
    """Describe where the data come from and what their labels mean, as JSON."""
    scheme = layout.scheme
    return {
        "layout": layout.name,
        "sources": {split: str(path.resolve()) for split, path in sources.items()},
        "modalities": list(layout.modalities),
        "label_names": {str(value): name for value, name in scheme.names.items()},
        "label_values": {str(value): target for value, target in scheme.values.items()},
    }


def read_record(path: Path) -> dict[str, Any]:
    """Read a ``conversion.json``.

    Raises:
        UserError: It is missing, damaged, or of a later version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): d2net convert writes it beside the data") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: remove it with its data set and convert again") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("cases"), dict):
        raise UserError(f"{path} is not a record of this version of d2net convert: convert again")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; the order of its keys is kept."""
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _read_journal(path: Path) -> list[dict[str, Any]]:
    """Read what was noted; the last line may be cut short."""
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _check_same(folder: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if found.get(key) != value:
            raise UserError(
                f"{folder} was converted with {key} {json.dumps(found.get(key))}, not {json.dumps(value)}: choose "
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


def _files(case: SourceCase) -> dict[str, list[int]]:
    """Size and time of each file, which tell whether it has changed."""
    return {str(path.absolute()): [path.stat().st_size, path.stat().st_mtime_ns] for path in case.files()}
