"""Writing images as DICOM series, for tests."""

import locale
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk


@contextmanager
def kept_locale() -> Iterator[None]:
    """Take back what GDCM's writer does to the process: its locale becomes C, and text is ASCII from then on."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def write_series(image, folder, uid, description, *, prefix="IM", slices=None, protocol="", tags=()):
    """Write an image slice by slice, with what makes a series of them; return the files.

    Args:
        image: Three axes, right-handed.
        folder: Made if it does not exist.
        uid: SeriesInstanceUID.
        description: SeriesDescription.
        prefix: Of the files' names, which have no ending.
        slices: Which to write; None for all.
        protocol: ProtocolName.
        tags: Others, by number, such as ``0018|0010``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    d = image.GetDirection()
    common = {
        "0008|0060": "MR",
        "0008|103e": description,
        "0018|1030": protocol,
        "0020|000d": "1.2.826.0.1",
        "0020|000e": uid,
        "0020|0037": "\\".join(f"{v:.8f}" for v in (d[0], d[3], d[6], d[1], d[4], d[7])),
        "0018|0050": str(image.GetSpacing()[2]),
        **dict(tags),
    }
    writer, files = sitk.ImageFileWriter(), []
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    for z in range(image.GetDepth()) if slices is None else slices:
        one = sitk.Cast(image[:, :, z], sitk.sitkInt16)
        place = "\\".join(f"{v:.6f}" for v in image.TransformIndexToPhysicalPoint((0, 0, z)))
        for tag, value in (common | {"0020|0032": place, "0020|0013": str(z), "0008|0018": f"{uid}.{z}"}).items():
            one.SetMetaData(tag, value)
        files.append(folder / f"{prefix}{len(description):02d}{uid[-1]}{z:04d}")
        writer.SetFileName(str(files[-1]))
        writer.Execute(one)
    return files
