import gzip
import zlib

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
        ("a.mha", "ElementSize = 1 1 1\n", "has no TransformMatrix"),
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


@pytest.mark.parametrize(
    ("name", "place", "is_noted"),
    [
        ("a.mha", META.replace("ElementSpacing = 3 3 3\n", ""), True),
        ("a.mha", META.replace("ElementSpacing", "ElementSize"), False),
        ("a.nrrd", "", True),
        ("a.nrrd", "spacings: 3 3 nan\n", True),
        ("a.nrrd", "spacings: 3 3 3\n", False),
        ("a.nrrd", NRRD.replace(" (0,0,3)", " none"), True),
        ("a.nrrd", NRRD, False),
    ],
)
def test_a_voxel_size_that_is_not_said_is_told(tmp_path, name, place, is_noted):
    path = (write_meta if name.endswith("mha") else write_nrrd)(tmp_path / name, place)
    wanted = ["does not say how large its voxels are along every axis: 1 mm is assumed"]
    assert [note for note in read_image(path).notes if "how large" in note] == wanted * is_noted
    assert (1 in read_sitk(path).GetSpacing()) == is_noted


@pytest.mark.parametrize("kind", ["RGB-color", "list"])
def test_axes_of_channels_need_no_size(tmp_path, kind):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    assert b"kinds: vector" in content
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"kinds: vector", f"kinds: {kind}".encode()))
    assert check_text_header((tmp_path / "a.nrrd").read_bytes()) == []


@pytest.mark.parametrize("unit", ["m", "cm", "um", "\u00b5m", "meters", "Centimeter", "inches"])
def test_other_units_than_mm_are_refused(tmp_path, unit):
    path = write_nrrd(tmp_path / "a.nrrd", f'{NRRD}space units: "{unit}" "{unit}" "{unit}"\n')
    with pytest.raises(ImageError, match=r"a\.nrrd gives lengths in .*, taken for mm by programs: write place, spac"):
        read_sitk(path)


@pytest.mark.parametrize("unit", ["mm", "", "millimeters", "Millimetre"])
def test_mm_are_read(tmp_path, unit):
    assert not notes_of(read_sitk(write_nrrd(tmp_path / "a.nrrd", f'{NRRD}space units: "{unit}" "{unit}" "{unit}"\n')))


def test_no_voxel_is_refused(tmp_path):
    for path in (write_meta(tmp_path / "a.mha", META), write_nrrd(tmp_path / "a.nrrd", NRRD)):
        path.write_bytes(path.read_bytes().replace(b"5 4 3", b"5 4 0"))
        with pytest.raises(ImageError, match=r"(DimSize|sizes) = 5 4 0, which is no voxel: write it anew from its"):
            read_sitk(path)


PACKERS = pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])


def write_packed(path, packed, size=None):
    n_packed = len(packed) if size is None else size
    write_meta(path, f"{META}CompressedData = True\nCompressedDataSize = {n_packed}\n", VOXELS[:0])
    path.write_bytes(path.read_bytes() + packed)
    return path


@PACKERS
def test_compressed_voxels_are_unpacked_to_their_checksum(tmp_path, pack):
    packed = pack(VOXELS.tobytes())
    assert np.array_equal(sitk.GetArrayFromImage(read_sitk(write_packed(tmp_path / "a.mha", packed))), VOXELS)
    flipped = packed[:20] + bytes([packed[20] ^ 1]) + packed[21:]
    checksum = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    for damaged in (flipped, checksum, packed[:-9], packed[:30], pack(VOXELS.tobytes()[:-2]), VOXELS.tobytes()):
        with pytest.raises(ImageError, match=r"a\.mha cannot be read \(.*\): (it may be cut short, )?copy it again"):
            read_image(write_packed(tmp_path / "a.mha", damaged))


@PACKERS
def test_compressed_voxels_in_another_file(tmp_path, pack):
    path, packed = write_meta(tmp_path / "a.mhd", META + "CompressedData = True\n", VOXELS[:0]), pack(VOXELS.tobytes())
    path.write_bytes(path.read_bytes().replace(b"LOCAL", b"a.zraw"))
    (tmp_path / "a.zraw").write_bytes(packed)
    assert np.array_equal(sitk.GetArrayFromImage(read_sitk(path)), VOXELS)
    (tmp_path / "a.zraw").write_bytes(packed[:-9])
    with pytest.raises(ImageError, match=r"a\.mhd cannot be read \(bytes of its compressed voxels are missing\)"):
        read_sitk(path)


def test_compressed_voxels_of_unknown_length_are_refused(tmp_path):
    path = write_packed(tmp_path / "a.mha", zlib.compress(VOXELS.tobytes()))
    path.write_bytes(path.read_bytes().replace(b"CompressedDataSize", b"Comment"))
    with pytest.raises(ImageError, match="compressed voxels of no CompressedDataSize, which ITK cannot unpack: write"):
        read_sitk(path)


@pytest.mark.parametrize(("what", "n_files"), [("LIST", 0), ("LIST", 2), ("LIST 3", 0), ("LIST", 3)])
def test_lists_of_files_have_one_for_each_slice(tmp_path, what, n_files):
    path = write_meta(tmp_path / "a.mhd", META, VOXELS[:0])
    files = [f"{n}.raw" for n in range(n_files)]
    for n, file in enumerate(files):
        (tmp_path / file).write_bytes(VOXELS[n].tobytes())
    path.write_bytes(path.read_bytes().replace(b"LOCAL", "\n".join([what, *files]).encode()))
    if n_files == 3:
        assert np.array_equal(sitk.GetArrayFromImage(read_sitk(path)), VOXELS)
        return
    with pytest.raises(ImageError, match=rf"a\.mhd lists {n_files} files of voxels for 3 slices: write it anew"):
        read_sitk(path)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.mhd"])
def test_bytes_behind_the_voxels(tmp_path, name):
    path = write_nrrd(tmp_path / name, NRRD) if name == "a.nrrd" else write_meta(tmp_path / name, META)
    voxels = path
    if name == "a.mhd":
        path.write_bytes(path.read_bytes().removesuffix(VOXELS.tobytes()).replace(b"LOCAL", b"voxels.raw"))
        voxels = tmp_path / "voxels.raw"
        voxels.write_bytes(VOXELS.tobytes())
    content = voxels.read_bytes()
    for n_more, notes in (
        (11, ()),
        (13, ("holds 13 bytes behind its voxels, so its header may state another type or",)),
    ):
        voxels.write_bytes(content + bytes(n_more))
        found = read_image(path).notes
        assert len(found) == len(notes)
        assert all(note.startswith(start) for note, start in zip(found, notes, strict=True))
    voxels.write_bytes(content + bytes(VOXELS.nbytes))
    with pytest.raises(ImageError, match="holds 2 times as many bytes of voxels as its header says: write it anew"):
        read_image(path)


def test_a_header_may_be_longer_than_what_is_read_at_once(tmp_path):
    path = write_meta(tmp_path / "a.mha", "Comment = a word\n" * 9999 + META)
    assert np.array_equal(read_image(path).voxels[0], VOXELS)
    assert read_image(path).notes == ()
    path.write_bytes(path.read_bytes() + VOXELS.tobytes())
    with pytest.raises(ImageError, match="holds 2 times as many"):
        read_image(path)
