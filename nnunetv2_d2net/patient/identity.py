"""Whether DICOM series are of one patient, whichever way they were given."""

import logging
from collections.abc import Collection

from nnunetv2_d2net.base.dicom import Series
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.modality_names import words_of
from nnunetv2_d2net.base.text import listed

_LOG = logging.getLogger("nnunetv2_d2net")


def check_one_patient(series: Collection[Series]) -> None:
    """Refuse series of two patients; those of different studies are told in the log.

    Raises:
        UserError: Two differ in a PatientID, PatientName or PatientBirthDate that both have.
    """
    for at, field in enumerate(("PatientID", "PatientName", "PatientBirthDate")):
        whose = {_plain(one.patient[at], field): f"{one} is of {field} {one.patient[at]}" for one in series}
        whose.pop("", None)
        if len(whose) > 1:
            remedy = "pass images of one patient; if they are of one, convert them to NIfTI and pass the files"
            raise UserError(f"different patients: {' and '.join(whose.values())}: {remedy}")
    studies = {one.study: f"{one} of {one.study[1] or 'no date'}" for one in series}
    if len(studies) > 1:
        _LOG.warning(
            "the series are of different studies, %s: see that they belong together", listed([*studies.values()])
        )


def _plain(value: str, field: str) -> str:
    """Return what is compared: scanners write a name with and without commas, in any case, and in several scripts."""
    return " ".join(sorted(words_of(value.partition("=")[0]))) if field == "PatientName" else value
