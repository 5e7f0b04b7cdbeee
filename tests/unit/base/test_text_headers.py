import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.headers import HeaderError
from nnunetv2_d2net.base.images import ImageError, is_placed, notes_of, read_image, read_sitk
from nnunetv2_d2net.base.orientation import UNPLACED
from nnunetv2_d2net.base.text_headers import check_text_header

VOXELS = np.arange(60, dtype="<i2").reshape(3, 4, 5)
META = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 3 3 3\n"
NRRD = "space: left-posterior-superior\nspace directions: (3,0,0) (0,3,0) (0,0,3)\nspace origin: (0,0,0)\n"


def write_meta(path, place, voxels=VOXELS):
    header = f"ObjectType = Image\nNDims = 3\nBinaryData = True\n{place}DimSize = 5 4 3\nElementType = MET_SHORT\n"
    path.write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + voxels.tobytes())
    return path


def write_nrrd(path, place):
    header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\n{place}\n"
    path.write_bytes(header.encode() + VOXELS.tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "place", "note"),
    [
        ("a.mha", META, ""),
        ("a.mha", META.replace("TransformMatrix", "Orientation"), ""),
        ("a.mha", "", "has no TransformMatrix"),
        ("a.mha", META.partition("\n")[2], "has no TransformMatrix"),
        ("a.nrrd", NRRD, ""),
        ("a.nrrd", NRRD.replace("left-posterior-superior", "RAS"), ""),
        ("a.nrrd", "spacings: 3 3 3\n", "names no space of the patient"),
        ("a.nrrd", NRRD.replace("space: left-posterior-superior", "space dimension: 3"), "names no space"),
        ("a.nrrd", NRRD.replace("left-posterior-superior", "3D-left-handed"), "names no space of the patient"),
    ],
)
def test_where_the_sides_are_is_not_known_unless_it_is_said(tmp_path, name, place, note):
    path = (write_meta if name.endswith("mha") else write_nrrd)(tmp_path / name, place)
    for notes in (notes_of(read_sitk(path)), read_image(path).notes):
        assert len(notes) == bool(note)
        assert all(line.startswith(note) and line.endswith("front and back are is not known") for line in notes)
    assert is_placed(read_sitk(path)) == (not note)
    assert read_image(path).properties.get(UNPLACED, False) == bool(note)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("Offset = 0", "Offset = nan", "says Offset = nan 0 0, so its place is lost: write it anew"),
        ("Matrix = 1", "Matrix = inf", "says TransformMatrix = inf"),
        ("Spacing = 3", "Spacing = -3", r"says ElementSpacing = -3 3 3 mm, of which .*: write the right spacing"),
        ("Spacing = 3", "Spacing = 0", "says ElementSpacing = 0 3 3 mm"),
        ("Spacing = 3", "Spacing = nan", "says ElementSpacing = nan 3 3 mm"),
        ("Spacing = 3", "Spacing = three", "says ElementSpacing = three 3 3 mm"),
    ],
)
def test_what_is_no_place_is_refused(tmp_path, old, new, what):
    path = write_meta(tmp_path / "a.mha", META.replace(old, new))
    for read in (read_sitk, read_image):
        with pytest.raises(ImageError, match=rf"a\.mha {what}"):
            read(path)
    with pytest.raises(HeaderError):
        check_text_header(path.read_bytes())


def test_sheared_axes_are_refused(tmp_path):
    meta = write_meta(tmp_path / "a.mha", META.replace("1 0 0 0 1", "1 0 0 0.5 1"))
    nrrd = write_nrrd(tmp_path / "a.nrrd", NRRD.replace("(0,3,0)", "(1,3,0)"))
    for path, angle in ((meta, "30.0"), (nrrd, "18.4")):
        for read in (read_sitk, read_image):
            with pytest.raises(ImageError, match=rf"is sheared: its axes miss right angles by {angle} degrees: resamp"):
                read(path)


def test_the_remedy_for_sheared_axes_works(tmp_path):
    sheared = sitk.ReadImage(str(write_meta(tmp_path / "a.mha", META.replace("1 0 0 0 1", "1 0 0 0.5 1"))))
    sitk.WriteImage(sitk.Resample(sheared, [8, 4, 3], sitk.Transform(), sitk.sitkLinear), str(tmp_path / "b.mha"))
    assert read_sitk(tmp_path / "b.mha").GetSize() == (8, 4, 3)


@pytest.mark.parametrize("text", [b"", b"\x89PNG", b"Comment of somebody", b"\0" * 400])
def test_other_formats_say_nothing(text):
    assert check_text_header(text) == []


def test_missing_voxels_are_told(tmp_path):
    with pytest.raises(ImageError, match=r"a\.mha cannot be read \(some or all of its voxels are missing\): copy it"):
        read_sitk(write_meta(tmp_path / "a.mha", META, VOXELS[:2]))
