import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.dicom import find_series, is_dicom, read_series, series_of
from nnunetv2_d2net.base.images import ImageError, notes_of
from tests.dicom_series import write_series


@pytest.fixture
def image(rng):
    image = sitk.GetImageFromArray(rng.integers(0, 900, (6, 5, 4)).astype(np.int16))
    image.SetSpacing((1.0, 1.5, 2.5))
    image.SetOrigin((-3.0, 4.0, 5.0))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))  # sagittal slices
    return image


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_series_in_one_folder_are_told_apart(tmp_path, image):
    write_series(image, tmp_path, "1.2.3", "T2 FLAIR")
    write_series(image + 7, tmp_path, "1.2.4", "T1 ax")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes.txt").write_text("of the scanner", encoding="utf-8")
    flair, t1 = sorted(find_series(files_of(tmp_path)))
    assert (flair.uid, flair.description, len(flair.files)) == ("1.2.3", "T2 FLAIR", 6)
    read = read_series(t1)
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image) + 7)
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(read, what)() == pytest.approx(getattr(image, what)())


def test_a_slice_stands_for_its_series(tmp_path, image):
    write_series(image, tmp_path, "1.2.3", "T2 FLAIR")
    files = write_series(image, tmp_path, "1.2.4", "T1")
    assert series_of(files[3]).description == "T1"
    assert str(series_of(files[3])) == f"{files[0]} (T1, 6 files)"
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match=r"a\.nii\.gz cannot be read as DICOM \(no series\): export"):
        series_of(tmp_path / "a.nii.gz")


def test_a_series_without_description(tmp_path, image):
    files = write_series(image, tmp_path, "1.2.3", "")
    (series,) = find_series(files)
    assert (series.description, str(series)) == ("", f"{files[0]} (no description, 6 files)")


def test_a_series_may_be_named_by_its_protocol(tmp_path, image):
    (series,) = find_series(write_series(image, tmp_path, "1.2.3", "", protocol="t1_mprage"))
    assert series.description == "t1_mprage"


def test_missing_slices_are_refused(tmp_path, image, capfd):
    sitk.ProcessObject.GlobalWarningDisplayOn()
    (series,) = find_series(write_series(image, tmp_path, "1.2.3", "T1", slices=[0, 1, 2, 4, 5]))
    with pytest.raises(ImageError) as error:
        read_series(series)
    assert error.value.kind == "shape"
    assert str(error.value) == (
        f"{series.files[0]} is one of 5 slices that are not evenly spaced, or do not say where they lie: some are "
        "missing, or the series holds several images: export it whole, or convert it with dcm2niix"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("moved", "is_read"), [(0.2, True), (0.3, False)])
def test_a_slice_may_lie_a_tenth_of_their_distance_elsewhere(tmp_path, image, moved, is_read):
    files = write_series(image, tmp_path, "1.2.3", "T1", slices=[0, 1, 2, 3, 4])
    image.SetOrigin((-3.0 + moved, 4.0, 5.0))  # 2.5 mm apart, along x
    files += write_series(image, tmp_path, "1.2.3", "T1", slices=[5])
    (series,) = find_series(files)
    if is_read:
        assert read_series(series).GetSize() == image.GetSize()
    else:
        with pytest.raises(ImageError, match="6 slices that are not evenly spaced"):
            read_series(series)


def test_slices_in_one_place_are_refused(tmp_path, image):
    image.SetSpacing((1.0, 1.5, 1e-9))
    for n in (6, 2):
        (series,) = find_series(write_series(image[:, :, :n], tmp_path / str(n), "1.2.3", "T1"))
        with pytest.raises(ImageError, match=f"{n} slices that are not evenly spaced"):
            read_series(series)


@pytest.mark.parametrize("lacking", [[2], range(6)])
def test_slices_that_do_not_say_where_they_lie_are_refused(tmp_path, image, lacking):
    files = write_series(image, tmp_path, "1.2.3", "T1")
    for n in lacking:  # the tag becomes one that nobody knows
        files[n].write_bytes(files[n].read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x31\x00", 1))
    (series,) = find_series(files)
    with pytest.raises(ImageError, match=r"6 slices that .* do not say where they lie"):
        read_series(series)


@pytest.mark.parametrize(("turned", "is_read"), [(0.0009, True), (0.0011, False)])
def test_slices_that_are_not_parallel_are_refused(tmp_path, image, turned, is_read):
    files = write_series(image, tmp_path, "1.2.3", "T1", slices=range(5))
    image.SetDirection((turned, 0, 1, 1, 0, 0, 0, 1, -turned))
    files += write_series(image, tmp_path, "1.2.3", "T1", slices=[5])
    (series,) = find_series(files)
    if is_read:
        assert read_series(series).GetSize() == image.GetSize()
    else:
        with pytest.raises(ImageError, match=r"one of 6 slices that are not parallel: .* a localizer, .* dcm2niix$"):
            read_series(series)


def element(group, number, kind, value, *, explicit=True):
    """An element of a DICOM file; a sequence's value is its items."""
    if kind == "SQ":
        value = b"".join(struct.pack("<2HI", 0xFFFE, 0xE000, len(item)) + item for item in value)
    elif isinstance(value, str):
        value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    elif isinstance(value, int):
        value = struct.pack("<H", value)
    tag = struct.pack("<2H", group, number)
    if not explicit:
        return tag + struct.pack("<I", len(value)) + value
    is_long = kind in ("OB", "OW", "SQ")
    return tag + kind.encode() + struct.pack("<2xI" if is_long else "<H", len(value)) + value


def write_dicom(path, elements, *, explicit=True):
    syntax = "1.2.840.10008.1.2" + (".1" if explicit else "")
    meta = b"".join(element(2, *one) for one in ((1, "OB", b"\0\1"), (0x10, "UI", syntax), (0x12, "UI", "1.2")))
    content = b"".join(element(*one, explicit=explicit) for one in elements)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + content)


def write_frames(path, places, n_frames=6, *, explicit=True):
    """An enhanced MR image whose frames are 0, 1, 2 and so on."""

    def sequence(group, number, items):
        return element(group, number, "SQ", items, explicit=explicit)

    def text(group, number, value):
        return element(group, number, "DS", value, explicit=explicit)

    size = sequence(0x28, 0x9110, [text(0x18, 0x50, "2") + text(0x28, 0x30, r"1\1")])
    axes = sequence(0x20, 0x9116, [text(0x20, 0x37, r"1\0\0\0\1\0")])
    frames = [sequence(0x20, 0x9113, [text(0x20, 0x32, rf"-3.5\4\{z}")]) for z in places]
    elements = [
        *((8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.4.1"), (8, 0x18, "UI", "1.2.5"), (8, 0x60, "CS", "MR")),
        *((0x20, 0xD, "UI", "1.2"), (0x20, 0xE, "UI", "1.2.3"), (0x28, 2, "US", 1), (0x28, 4, "CS", "MONOCHROME2")),
        *((0x28, 8, "IS", str(n_frames)), (0x28, 0x10, "US", 5), (0x28, 0x11, "US", 4), (0x28, 0x100, "US", 16)),
        *((0x28, 0x101, "US", 16), (0x28, 0x102, "US", 15), (0x28, 0x103, "US", 1)),
        *((0x5200, 0x9229, "SQ", [axes + size]), (0x5200, 0x9230, "SQ", frames)),
        (0x7FE0, 0x10, "OW", np.repeat(np.arange(n_frames, dtype="<i2"), 20).tobytes()),
    ]
    write_dicom(path, elements, explicit=explicit)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(
    ("places", "is_read"),
    [
        ((0, 2, 4, 6, 8, 10.1), True),
        ((0, -2, -4, -6, -8, -10), True),
        ((0,), True),  # one for all says nothing
        ((0, 2, 4, 0, 2, 4), False),
        ((0, 0, 2, 2, 4, 4), False),
        ((0, 4, 8, 2, 6, 10), False),
        ((0, 2, 4, 8, 10, 12), False),
        ((0, 2, 4, 6, 8), False),
    ],
)
def test_frames_lie_one_behind_the_other(tmp_path, places, is_read, explicit):
    write_frames(tmp_path / "IM", places, explicit=explicit)
    series = series_of(tmp_path / "IM")
    if is_read:
        assert sitk.GetArrayFromImage(read_series(series))[..., 0, 0].ravel().tolist() == [0, 1, 2, 3, 4, 5]
    else:
        with pytest.raises(
            ImageError, match=r"IM holds 6 frames that are not evenly spaced and in order: .* dcm2niix$"
        ):
            read_series(series)


def write_slices(folder, stored, n=6, *, changed):
    """Slices of 4 x 5 voxels of 1, 3 mm apart; ``changed`` has what some elements are of slice k, or nothing."""
    for k in range(n):
        elements = {
            (8, 0x16): ("UI", "1.2.840.10008.5.1.4.1.1.4"),
            (8, 0x18): ("UI", f"1.2.5.{k}"),
            (0x18, 0x50): ("DS", "3"),
            (0x20, 0xD): ("UI", "1.2"),
            (0x20, 0xE): ("UI", "1.2.3"),
            (0x20, 0x32): ("DS", rf"0\0\{3 * k}"),
            (0x20, 0x37): ("DS", r"1\0\0\0\1\0"),
            (0x28, 2): ("US", 1),
            (0x28, 4): ("CS", "MONOCHROME2"),
            (0x28, 0x10): ("US", 5),
            (0x28, 0x11): ("US", 4),
            (0x28, 0x30): ("DS", r"1\1"),
            (0x28, 0x100): ("US", 16),
            (0x28, 0x101): ("US", 16),
            (0x28, 0x102): ("US", 15),
            (0x28, 0x103): ("US", 1),
            (0x7FE0, 0x10): ("OW", np.full(20, stored, "<i2").tobytes()),
        }
        for tag, of_slice in changed.items():
            elements[tag] = of_slice(k)
        write_dicom(folder / f"IM{k}", [(*tag, *one) for tag, one in sorted(elements.items()) if one])
    (series,) = find_series(files_of(folder))
    return series


@pytest.mark.parametrize("slopes", [("2", "2"), ("1", "99"), ("2", ".3"), (".3", "2")])
def test_each_slice_has_its_own_scale(tmp_path, slopes):
    scaled = {(0x28, 0x1052): lambda _: ("DS", "0"), (0x28, 0x1053): lambda k: ("DS", slopes[k > 0])}
    read = read_series(write_slices(tmp_path, 1000, changed=scaled))
    expected = 1000 * np.array([float(slopes[k > 0]) for k in range(6)])
    assert sitk.GetArrayFromImage(read)[:, 0, 0] == pytest.approx(expected)


def test_slices_of_different_types(tmp_path):
    signed = {(0x28, 0x103): lambda k: ("US", int(k == 0))}
    read = read_series(write_slices(tmp_path, -2, changed=signed))
    assert sitk.GetArrayFromImage(read)[:, 0, 0].tolist() == [-2] + 5 * [65534]


SIZE, AXES = (0x28, 0x30), (0x20, 0x37)


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize(
    ("tag", "value", "what"),
    [
        *((SIZE, value, r"IM0 does not say how large its pixels are") for value in ("", r"0\0", r"1\0", "wide")),
        *((AXES, value, r"IM0 does not say how it lies") for value in ("", r"0\0\0\0\0\0", r"1\0\0\0.5\1\0", r"1\0\0")),
    ],
)
def test_slices_that_do_not_say_how_they_lie_are_refused(tmp_path, n, tag, value, what):
    series = write_slices(tmp_path, 7, n, changed={tag: lambda _: value and ("DS", value)})
    with pytest.raises(ImageError, match=f"{what}.*: export the series again, or convert it to NIfTI with the right"):
        read_series(series)


@pytest.mark.parametrize(("beside", "is_read"), [(0.05, True), (0.3, False), (2, False)])
def test_slices_that_lie_askew_are_refused(tmp_path, beside, is_read):
    place = {(0x20, 0x32): lambda k: ("DS", rf"0\{beside * k:g}\{3 * k}")}
    series = write_slices(tmp_path, 7, changed=place)
    if is_read:
        assert read_series(series).GetSize() == (4, 5, 6)
    else:
        with pytest.raises(ImageError, match=r"6 slices that lie askew, .*: resample it to right angles"):
            read_series(series)


@pytest.mark.parametrize(
    ("said", "thickness", "is_told"), [("3", "3", False), ("1.5", "1.5", True), ("0.3", "2.7", False), ("", "1", False)]
)
def test_a_step_that_the_header_does_not_have_is_told(tmp_path, said, thickness, is_told):
    headers = {(0x18, 0x88): lambda _: said and ("DS", said), (0x18, 0x50): lambda _: ("DS", thickness)}
    notes = notes_of(read_series(write_slices(tmp_path, 7, changed=headers)))
    assert notes == ["has slices 3 mm apart, 1.5 mm by their headers: some may be missing"] * is_told


def test_a_single_slice_is_an_image(tmp_path, image):
    (series,) = find_series(write_series(image, tmp_path, "1.2.3", "T1", slices=[3]))
    assert read_series(series).GetSize() == (4, 5, 1)


def test_slices_whose_places_are_rounded_are_read(tmp_path, image):
    image.SetSpacing((1.0, 1.5, 2.5 + 1e-3))
    files = write_series(image[:, :, :3], tmp_path, "1.2.3", "T1")
    image.SetSpacing((1.0, 1.5, 2.5))
    files += write_series(image, tmp_path, "1.2.3", "T1", slices=[3, 4, 5])
    (series,) = find_series(files)
    assert read_series(series).GetSize() == image.GetSize()


def test_what_cannot_be_read(tmp_path, image):
    file = tmp_path / "IM"
    file.write_bytes(b"\0" * 128 + b"DICM" + b"nothing")
    assert is_dicom(file)
    with pytest.raises(ImageError) as error:
        series_of(file)
    assert error.value.kind == "unreadable"
    assert re.fullmatch(r".*IM cannot be read as DICOM \([^\n]+\): export the series again", str(error.value))
    (series,) = find_series(write_series(image, tmp_path / "cut", "1.2.3", "T1"))
    series.files[2].write_bytes(series.files[2].read_bytes()[:700])
    with pytest.raises(ImageError, match="cannot be read as DICOM"):
        read_series(series)


@pytest.mark.parametrize("end", [0, 5])
@pytest.mark.parametrize("before", [b"\x28\0\x10\0", b"\xe0\x7f\x10\0", b""])
def test_a_slice_at_the_end_that_is_cut_short_is_refused(tmp_path, image, end, before, caplog):
    files = write_series(image, tmp_path, "1.2.3", "T1")
    write_series(image, tmp_path, "1.2.4", "T2")
    content = files[end].read_bytes()
    files[end].write_bytes(content[: content.index(before)] if before else content[:-2])
    cut, whole = sorted(find_series(files[1:2]))
    with pytest.raises(ImageError) as error:
        read_series(cut)
    kept = files[1] if end == 0 else files[0]
    assert str(error.value) == f"{files[end]} is cut short, and is a slice of {kept} (T1, 5 files): copy it again"
    assert error.value.kind == "unreadable"
    assert read_series(whole).GetSize() == image.GetSize()
    assert not caplog.records


def test_what_is_left_of_a_header_is_passed_over(tmp_path, image, caplog):
    files = write_series(image, tmp_path, "1.2.3", "T1")
    for name in ("left1", "left2"):
        (tmp_path / name).write_bytes(files[0].read_bytes()[:300])
    write_frames(tmp_path / "of another series", [0])
    other = (tmp_path / "of another series").read_bytes()
    (tmp_path / "of another series").write_bytes(other.replace(b"1.2.3\0", b"1.2.9\0")[:-20])
    (series,) = find_series(files)
    assert (len(series.files), series.cut) == (6, None)
    assert [record.getMessage() for record in caplog.records] == [
        f"passed over, cannot be read as DICOM: {tmp_path / 'left1'}, {tmp_path / 'left2'}, "
        f"{tmp_path / 'of another series'}: copy what is needed again"
    ]


@pytest.mark.parametrize("explicit", [True, False])
def test_files_without_pixels_beside_a_series_are_no_matter(tmp_path, image, explicit, caplog):
    files = write_series(image, tmp_path, "1.2.3", "T1")
    series_it_is_of = element(0x20, 0xE, "UI", "1.2.3", explicit=explicit)
    own = [(0x20, 0xD, "UI", "1.2"), (0x20, 0xE, "UI", "1.2.9")]
    write_dicom(tmp_path / "state", [(8, 0x1115, "SQ", [series_it_is_of]), *own], explicit=explicit)
    write_dicom(tmp_path / "struct", [*own, (0x3006, 0x14, "SQ", [series_it_is_of])], explicit=explicit)
    (series,) = find_series(files)
    assert read_series(series).GetSize() == image.GetSize()
    assert not caplog.records


def without_preamble(file, *, keep_meta):
    content = file.read_bytes()
    n_meta = int.from_bytes(content[140:144], "little")
    file.write_bytes(content[132 if keep_meta else 144 + n_meta :])


def test_files_without_a_preamble_are_read(tmp_path, image):
    for file in write_series(image, tmp_path, "1.2.3", "T1"):
        without_preamble(file, keep_meta=False)
    (series,) = find_series(files_of(tmp_path))
    assert (series.description, len(series.files)) == ("T1", 6)
    assert np.array_equal(sitk.GetArrayFromImage(read_series(series)), sitk.GetArrayFromImage(image))


def test_files_that_only_lost_their_preamble_are_told(tmp_path, image):
    for file in write_series(image, tmp_path, "1.2.3", "T1"):
        without_preamble(file, keep_meta=True)
    with pytest.raises(ImageError, match=r"cannot be read as DICOM .*: export the series again"):
        find_series(files_of(tmp_path))


def test_what_is_no_dicom(tmp_path):
    (tmp_path / "short").write_bytes(b"DICM")
    assert not is_dicom(tmp_path / "short")
    assert not is_dicom(tmp_path)
    for name in ("a.img", "a.raw"):
        (tmp_path / name).write_bytes(np.array([8, 24, 8], "<i2").tobytes())
        assert not is_dicom(tmp_path / name)
    for name in ("DICOMDIR", "dicomdir", "slice"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
        assert is_dicom(tmp_path / name) == (name == "slice")
    assert find_series([tmp_path / "short", tmp_path / "missing"]) == []


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path, image):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/M\xfcller"))
    folder.mkdir()
    files = [path.rename(folder / path.name) for path in write_series(image, tmp_path, "1.2.3", "T1")]
    for call in (lambda: find_series(files), lambda: series_of(files[0])):
        with pytest.raises(ImageError, match="has a name that is no UTF-8: rename it"):
            call()


def test_a_slice_of_too_few_pixels_is_refused(tmp_path):
    for name, n_bytes, is_read in (("whole", 40, True), ("padded", 42, True), ("cut", 38, False)):
        pixels = {(0x7FE0, 0x10): lambda k, n=n_bytes: ("OW", bytes(n if k == 2 else 40))}
        series = write_slices(tmp_path / name, 0, changed=pixels)
        if is_read:
            assert read_series(series).GetSize() == (4, 5, 6)
            continue
        with pytest.raises(ImageError) as error:
            read_series(series)
        wanted = f"{tmp_path / name / 'IM2'} holds fewer pixels than Rows and Columns say: export the series again"
        assert str(error.value) == wanted


@pytest.mark.parametrize("explicit", [True, False])
def test_frames_of_too_few_pixels_are_refused(tmp_path, explicit):
    write_frames(tmp_path / "IM", [0], explicit=explicit)
    content = (tmp_path / "IM").read_bytes()
    whole, short = struct.pack("<I", 240), struct.pack("<I", 200)
    assert content.count(whole) == 1
    (tmp_path / "IM").write_bytes(content.replace(whole, short)[:-40])
    with pytest.raises(ImageError, match="IM holds fewer pixels than Rows and Columns say: export the series again"):
        read_series(series_of(tmp_path / "IM"))


def test_empty_files_of_a_series_are_told(tmp_path, image, caplog):
    files = write_series(image, tmp_path, "1.2.3", "T1")
    files[-1].write_bytes(b"")
    (tmp_path / "done.txt").touch()
    (series,) = find_series(files)
    assert len(series.files) == 5
    said = f"passed over, cannot be read as DICOM: {files[-1]}: copy what is needed again"
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize(("size", "is_read"), [("1\\1.0005", True), ("1\\1.01", False)])
def test_slices_of_other_pixel_sizes_are_refused(tmp_path, size, is_read):
    series = write_slices(tmp_path, 0, changed={(0x28, 0x30): lambda k: ("DS", size if k == 2 else "1\\1")})
    if is_read:
        assert read_series(series).GetSize() == (4, 5, 6)
        return
    with pytest.raises(ImageError, match="is one of 6 slices whose pixels are of different sizes: the series holds se"):
        read_series(series)
