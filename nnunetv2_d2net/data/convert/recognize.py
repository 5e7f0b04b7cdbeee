"""Which layout a source has, and which cases are in it."""

from pathlib import Path

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.data.convert.cases import Found, Problem
from nnunetv2_d2net.data.convert.decathlon import LOOKS_LIKE, read_decathlon
from nnunetv2_d2net.data.convert.layouts import (
    BRATS2018,
    BRATS2021,
    BRATS2023,
    NEW_NAME,
    OLD_NAME,
    Layout,
)
from nnunetv2_d2net.data.convert.mapping import read_mapping
from nnunetv2_d2net.data.convert.source_files import nifti_files, nifti_stem

AUTO, MSD = "auto", "msd"
KNOWN = {layout.name: layout for layout in (BRATS2018, BRATS2021, BRATS2023)}


def layout_of(source: Path, wanted: str = AUTO) -> Layout:
    """Return the layout of a source.

    Args:
        source: The folder.
        wanted: Name of a known layout, path of a mapping file, or ``auto``.

    Raises:
        UserError: The folder or the mapping file is unusable, or no layout or several were recognized.
    """
    if not source.is_dir():
        raise UserError(f"{source} is no folder: pass the folder that holds the cases")
    if wanted in KNOWN:
        return KNOWN[wanted]
    if wanted == MSD:
        return read_decathlon(source)
    if wanted != AUTO:
        return read_mapping(Path(wanted))
    if (source / "dataset.json").is_file() and (source / "imagesTr").is_dir():
        return read_decathlon(source)
    return _recognize(source)


def find_cases(layout: Layout, source: Path, test: Path | None) -> Found:
    """List the cases of a source, and of a second one whose cases are all for testing.

    Raises:
        UserError: A folder is unusable, or holds nothing of this layout.
    """
    found = _found(layout, source)
    if test is None:
        return found
    held_out = _found(layout, test)
    for case in held_out.cases:
        case.split = "Ts"
        case.notes = [note for note in case.notes if "imagesTs" not in note]
    twice = {case.name for case in found.cases} & {case.name for case in held_out.cases}
    problems = [
        Problem(
            name, "colliding name", f"case {name!r} is in {source} and in {test}: rename one, or remove it from one"
        )
        for name in sorted(twice)
    ]
    cases = [case for case in (*found.cases, *held_out.cases) if case.name not in twice]
    return Found(cases, [*found.problems, *held_out.problems, *problems], [*found.stray, *held_out.stray])


def _found(layout: Layout, source: Path) -> Found:
    found = layout.find(source)
    if not found.cases and not found.problems:
        raise UserError(f"{source} holds nothing like {layout.looks_like}: check the folder and --layout")
    return found


def _recognize(source: Path) -> Layout:
    stems = [nifti_stem(path.name) or "" for path in nifti_files(source)]
    old = [match["case"] for stem in stems if (match := OLD_NAME.fullmatch(stem))]
    new = [match["case"] for stem in stems if (match := NEW_NAME.fullmatch(stem))]
    if old and new:
        raise UserError(
            f"{source} holds {len(old)} files named as in BraTS 2017 to 2021, such as those of {old[0]!r}, and "
            f"{len(new)} as in BraTS 2023, such as those of {new[0]!r}: pass --layout, or convert folder by folder"
        )
    if new:
        pediatric = next((case for case in new if case.upper().startswith("BRATS-PED")), None)
        if pediatric:
            raise UserError(
                f"{source} holds pediatric cases such as {pediatric}, whose label numbers changed after 2023: pass "
                "--layout brats2023 for those of 2023, else the mapping file of docs/data.md"
            )
        return BRATS2023
    if old:
        return BRATS2021 if all(case.lower().startswith("brats2021") for case in old) else BRATS2018
    looked_for = f"{BRATS2018.looks_like}; {BRATS2023.looks_like}; {LOOKS_LIKE}"
    raise UserError(f"{source} has no known layout, looked for {looked_for}: pass --layout with a mapping file")
