import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base import images
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.images import (
    COPY_AGAIN,
    ROUNDED,
    TOLERANCE,
    WRITE_AGAIN,
    Image,
    ImageError,
    check_name,
    check_whole,
    check_written,
    differences,
    digest,
    header_lines,
    header_oddities,
    is_constant,
    is_placed,
    keep_place,
    label_counts,
    notes_of,
    odd_values,
    place_differences,
    properties_of,
    read_image,
    read_sitk,
    write_sitk,
)
from nnunetv2_d2net.base.orientation import UNPLACED

SHAPE = (4, 5, 6)  # z, y, x
CHOICES = {"yes": True, "no": False, "not offered": None}
WHOLE_ENDINGS = [".nii", ".nii.gz", ".nrrd", ".mha", ".gipl"]


def noise(kind=np.int16, shape=SHAPE):
    return np.random.default_rng(0).integers(1, 100, shape).astype(kind)


def nifti(path, voxels=None, header=nib.Nifti1Image, slope=None):
    """Write voxels (z, y, x) with nibabel, which writes what it is given."""
    image = header((noise() if voxels is None else voxels).T, np.diag([1.0, 2, 3, 1]))
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path


def itk(path, voxels=None, **settings):
    image = sitk.GetImageFromArray(noise() if voxels is None else voxels)
    image.SetSpacing([1.0, 2, 3][: image.GetDimension()])
    sitk.WriteImage(image, str(path), **settings)
    return path


def by_nibabel(file):
    return np.asarray(nib.load(file).dataobj).T[None], {}


GZIP_IS_SHORT = "Compressed file ended before the end-of-stream marker was reached"
NO_MAGIC_NUMBER = "its header is no NIfTI's: the magic number"
PAGE = b"not found " * 99 + b"\xe4"  # not a text of ASCII to its end
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9\n"


def without_magic_number(data):
    return data[:344] + bytes(len(data) - 344)


def refused(path, kinds, read=read_image):
    with pytest.raises(ImageError) as error:
        read(path)
    assert error.value.kind in kinds.split(), error.value
    assert str(error.value).startswith(f"{path} ")
    assert "\n" not in str(error.value)
    return error.value


class TestForms:
    @pytest.mark.parametrize("ending", WHOLE_ENDINGS)
    def test_voxels_and_place(self, tmp_path, ending):
        path = itk(tmp_path / f"a{ending}")
        image = read_image(path)
        assert image.path == path
        assert np.array_equal(image.voxels, noise()[None])
        assert image.properties["spacing"] == pytest.approx((1, 2, 3))
        assert len(image.properties["direction"]) == 9
        assert np.array_equal(sitk.GetArrayFromImage(read_sitk(path)), noise())

    @pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_every_kind_of_nifti(self, tmp_path, kind, order, ending):
        image = nib.Nifti1Image(noise(kind).T, np.eye(4), nib.Nifti1Header(endianness=order))
        image.set_data_dtype(np.dtype(kind).newbyteorder(order))
        nib.save(image, tmp_path / f"a{ending}")
        assert np.array_equal(read_image(tmp_path / f"a{ending}").voxels[0], noise(kind))

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_nifti_2(self, tmp_path, order, ending):
        """SimpleITK cannot read it; it is checked for the readers that can."""
        path = tmp_path / f"a{ending}"
        nib.save(nib.Nifti2Image(noise().T, np.eye(4), nib.Nifti2Header(endianness=order)), path)
        assert str(refused(path, "unreadable")) == f"{path} is NIfTI-2: write it as NIfTI-1"
        assert np.array_equal(read_image(path, by_nibabel).voxels[0], noise())
        data = path.read_bytes()
        path.write_bytes(gzip.compress(gzip.decompress(data)[:-1]) if path.suffix == ".gz" else data[:-1])
        assert refused(path, "unreadable").remedy == COPY_AGAIN
        refused(path, "unreadable", lambda file: read_image(file, by_nibabel))
        nib.save(nib.Nifti2Image(np.full(SHAPE, np.nan).T, np.eye(4)), path)
        refused(path, "NaN", lambda file: read_image(file, lambda _file: (np.zeros(SHAPE), {})))

    def test_gzip_around_a_short_file(self, tmp_path):
        data = nifti(tmp_path / "a.nii").read_bytes()
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data[:-1]))
        assert "1 bytes of voxels are missing" in refused(tmp_path / "a.nii.gz", "unreadable").reason

    def test_gzip_of_several_parts(self, tmp_path):
        """As pigz and bgzip write it."""
        data = nifti(tmp_path / "a.nii").read_bytes()
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
        assert np.array_equal(read_image(tmp_path / "a.nii.gz").voxels[0], noise())

    def test_a_plain_file_that_is_called_gzip(self, tmp_path):
        data = nifti(tmp_path / "a.nii").read_bytes()
        (tmp_path / "a.nii.gz").write_bytes(data)
        assert np.array_equal(read_image(tmp_path / "a.nii.gz").voxels[0], noise())
        (tmp_path / "a.nii.gz").write_bytes(data[:-1])
        refused(tmp_path / "a.nii.gz", "unreadable")

    def test_gzip_that_is_called_plain(self, tmp_path):
        """ITK cannot read it; what it says is told, and a reader that can is given it."""
        data = nifti(tmp_path / "a.nii.gz").read_bytes()
        (tmp_path / "a.nii").write_bytes(data)
        refused(tmp_path / "a.nii", "unreadable")

        def unpacking(file):
            return nib.Nifti1Image.from_bytes(gzip.decompress(Path(file).read_bytes())).get_fdata().T[None], {}

        assert np.array_equal(read_image(tmp_path / "a.nii", unpacking).voxels[0], noise())
        (tmp_path / "a.nii").write_bytes(data[:-9])
        with pytest.raises(ImageError):
            read_image(tmp_path / "a.nii", unpacking)

    def test_another_format_than_the_name_says(self, tmp_path):
        itk(tmp_path / "a.mha").rename(tmp_path / "a.nii.gz")
        itk(tmp_path / "a.mha")
        for name in ("a.nii.gz", "a.mha"):
            refused(tmp_path / name, "unreadable", lambda path: read_sitk(path, only_nifti=True))
        found = read_sitk(nifti(tmp_path / "a.nii"), only_nifti=True)
        assert np.array_equal(sitk.GetArrayFromImage(found), noise())

    @pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".mha"])
    def test_two_axes(self, tmp_path, ending):
        picture = noise(np.uint8, (7, 9))
        assert np.array_equal(read_image(itk(tmp_path / f"a{ending}", picture)).voxels, picture[None])

    @pytest.mark.parametrize("ending", [".png", ".nrrd", ".nii.gz"])
    def test_colors_are_channels(self, tmp_path, ending):
        picture = noise(np.uint8, (7, 9, 3))
        image = sitk.GetImageFromArray(picture, isVector=True)
        sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
        assert np.array_equal(read_image(tmp_path / f"a{ending}").voxels, np.moveaxis(picture, -1, 0))

    def test_a_very_small_picture(self, tmp_path):
        path = itk(tmp_path / "a.png", np.ones((1, 1), np.uint8))
        assert path.stat().st_size < 348
        assert read_image(path).voxels.tolist() == [[[1]]]

    def test_four_axes(self, tmp_path):
        voxels = noise(shape=(2, *SHAPE))
        image = read_image(nifti(tmp_path / "a.nii.gz", voxels))
        assert np.array_equal(image.voxels, voxels[None])

    def test_whole_numbers_with_a_slope(self, tmp_path):
        image = nib.Nifti1Image(noise().T, np.eye(4))
        image.header.set_slope_inter(0.5, -3)
        (tmp_path / "a.nii").write_bytes(image.to_bytes())
        read = read_image(tmp_path / "a.nii").voxels[0]
        assert read.dtype.kind == "f"

    def test_a_pair_of_header_and_voxels(self, tmp_path):
        nib.save(nib.Nifti1Pair(noise().T, np.eye(4)), tmp_path / "a.hdr")
        for name in ("a.hdr", "a.img"):
            assert np.array_equal(read_image(tmp_path / name).voxels[0], noise())
        voxels = (tmp_path / "a.img").read_bytes()
        (tmp_path / "a.img").write_bytes(voxels[:-1])
        for name in ("a.hdr", "a.img"):
            refused(tmp_path / name, "unreadable")
        (tmp_path / "a.img").unlink()
        refused(tmp_path / "a.hdr", "unreadable")

    def test_names_are_taken_as_they_are(self, tmp_path):
        for name in ("a b.nii", "ä%d[1]*?.nii", "a'\".nii.gz", ".hidden.nii", "~.nii"):
            assert read_image(nifti(tmp_path / name)).voxels.shape == (1, *SHAPE)


class TestDamage:
    @pytest.mark.parametrize("ending", [*WHOLE_ENDINGS, ".png"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_cut_short_anywhere(self, tmp_path, ending, compressed):
        voxels = noise(np.uint8, (30, 31)) if ending == ".png" else noise()
        path = itk(tmp_path / f"a{ending}", voxels, useCompression=compressed)
        data, whole = path.read_bytes(), read_image(path).voxels
        for n in {*range(0, len(data), 7), *range(len(data) - 20, len(data))}:
            path.write_bytes(data[:n])
            try:
                read = read_image(path).voxels
            except ImageError as error:
                assert error.kind == "unreadable"  # noqa: PT017
            else:  # a checksum behind the voxels may be missing, but no voxel
                assert np.array_equal(read, whole), n
                assert ending not in (".nii", ".nii.gz", ".gipl"), n

    def test_every_flipped_bit_of_a_gzip_file_is_seen(self, tmp_path):
        path = tmp_path / "a.nii.gz"
        data = gzip.compress(nifti(tmp_path / "a.nii").read_bytes())
        for position in range(10, len(data)):  # the first ten bytes tell time and system
            path.write_bytes(data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :])
            with pytest.raises(ImageError) as error:
                read_image(path)
            assert error.value.kind in ("unreadable", "header")

    def test_a_reader_that_puts_zeros_does_not_get_the_file(self, tmp_path):
        path = nifti(tmp_path / "a.nii")
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ImageError):
            read_image(path, lambda _file: pytest.fail("it was read"))

    def test_more_bytes_than_the_header_says_are_fine(self, tmp_path):
        path = nifti(tmp_path / "a.nii")
        path.write_bytes(path.read_bytes() + b"more")
        assert np.array_equal(read_image(path).voxels[0], noise())

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img"])
    def test_far_more_bytes_are_told_and_as_many_again_are_refused(self, tmp_path, name):
        path = tmp_path / name
        nib.save((nib.Nifti1Pair if name == "a.img" else nib.Nifti1Image)(noise().T, np.eye(4)), path)
        data = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()

        def notes_behind(n_more):
            more = data + bytes(n_more)
            path.write_bytes(gzip.compress(more) if name.endswith("gz") else more)
            return [note for read in (read_image(path).notes, notes_of(read_sitk(path))) for note in read]

        n_bytes = noise().nbytes
        assert notes_behind(n_bytes // 10) == []
        found = notes_behind(n_bytes // 10 + 1)
        assert found == ["holds 25 bytes behind its voxels, so its header may state another type or size"] * 2
        for times in (2, 4):
            words = f"holds {times} times as many bytes of voxels as its header says"
            assert refused(path, "header", lambda _, n=times - 1: notes_behind(n * n_bytes)).reason == words

    @pytest.mark.parametrize(
        ("place", "form", "value"),
        [
            (42, "<h", 32767),  # far more voxels than there are
            (42, "<h", -5),
            (40, "<h", 0),  # dimensions
            (40, "<h", 9),
            (344, "<I", 0),  # magic number
            (70, "<h", 9999),  # type of the voxels
            (70, "<h", 0),
            (108, "<f", float("nan")),  # where the voxels begin
            (108, "<f", float("inf")),
            (108, "<f", 1e30),
            (108, "<f", -1e30),
            (108, "<f", 400),
        ],
    )
    def test_headers_that_make_no_sense(self, tmp_path, place, form, value):
        path = nifti(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        struct.pack_into(form, data, place, value)
        for file, content in ((path, bytes(data)), (tmp_path / "a.nii.gz", gzip.compress(data))):
            file.write_bytes(content)
            refused(file, "unreadable header")

    def test_fewer_voxels_than_none(self, tmp_path):
        path = nifti(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        struct.pack_into("<h", data, 46, -8)
        path.write_bytes(data)
        error = refused(path, "header")
        assert (error.reason, error.remedy) == ("says that it has 6 x 5 x -8 voxels", "write it anew from its source")

    def test_what_is_no_image(self, tmp_path):
        for name, data in (("a.nii", b""), ("b.nii.gz", b"text"), ("c.nii.gz", b"\x1f\x8b"), ("d", b"x" * 1000)):
            (tmp_path / name).write_bytes(data)
            refused(tmp_path / name, "unreadable")

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            ("a.nii", lambda data: data[:-3], f"(3 bytes of voxels are missing): {COPY_AGAIN}"),
            ("a.nii.gz", lambda data: data[:-3], f"(3 bytes of voxels are missing): {COPY_AGAIN}"),
            ("a.nii", lambda data: gzip.compress(data)[:-9], f"({GZIP_IS_SHORT}): {COPY_AGAIN}"),
            ("a.nii", gzip.compress, "(it is compressed, and its name does not say so): call it a.nii.gz"),
            ("a.NII", gzip.compress, "(it is compressed, and its name does not say so): call it a.NII.gz"),
            ("a.nii", lambda _: b"\x1f\x8b" + bytes(99), f"(Unknown compression method): {WRITE_AGAIN}"),
            ("a.nii", without_magic_number, f"({NO_MAGIC_NUMBER}): {WRITE_AGAIN}"),
            ("a.NII.gz", without_magic_number, f"({NO_MAGIC_NUMBER}): {WRITE_AGAIN}"),
            ("a.nii", lambda _: PAGE, "(it is a text, no image): put the image there, or remove it"),
            ("a.nii", lambda _: LFS, "(it is a pointer of Git LFS, no image): fetch the image with git lfs pull"),
        ],
    )
    def test_what_is_wrong_and_what_helps(self, tmp_path, name, change, words):
        data = nifti(tmp_path / "whole.nii").read_bytes()
        path = tmp_path / name
        path.write_bytes(change(data))
        error = refused(path, "unreadable")
        assert str(error) == f"{path} cannot be read {words}"
        assert (error.path, f"{error.reason}: {error.remedy}") == (path, f"cannot be read {words}")

    def test_a_header_is_taken_as_it_is(self, tmp_path):
        """nibabel would mend it on reading, and other programs would not."""
        data = bytearray(nifti(tmp_path / "a.nii").read_bytes())
        struct.pack_into("<f", data, 84, -2)
        (tmp_path / "a.nii").write_bytes(data)
        assert refused(tmp_path / "a.nii", "header").reason.startswith("has negative voxel sizes (1 x -2 x 3 mm)")

    def test_what_has_no_right_angles(self, tmp_path):
        image = nib.Nifti1Image(noise().T, None)
        image.set_sform(np.diag([1.0, 2, 3, 1]) + np.eye(4, k=1) * [0, 2 * np.tan(np.deg2rad(7)), 0, 0], code=1)
        nib.save(image, tmp_path / "a.nii")
        error = refused(tmp_path / "a.nii", "header")
        assert error.reason == "has a sheared sform: its axes miss right angles by 7.0 degrees"
        assert error.remedy == (
            "resample it onto a grid of right angles, for instance with nibabel.processing.resample_to_output"
        )

    @pytest.mark.parametrize("name", ["a.NII.gz", "a.nii.GZ", "a.Nii", "a.MHA", "b.c.Nii.Gz"])
    @pytest.mark.parametrize("only_nifti", [False, True])
    def test_capitals_that_itk_does_not_know(self, tmp_path, name, only_nifti):
        lower = name.lower() if name[0] == "a" else "b.c.nii.gz"
        path = itk(tmp_path / lower).rename(tmp_path / name)
        error = refused(path, "unreadable", lambda file: read_sitk(file, only_nifti=only_nifti))
        wanted = ("has capitals in its ending, which ITK does not read", f"call it {lower}")
        assert (error.reason, error.remedy) == wanted
        path.rename(tmp_path / lower)
        assert read_sitk(tmp_path / lower).GetSize() == SHAPE[::-1]

    @pytest.mark.parametrize("name", ["a.NII.GZ", "a.NII", "a.NRRD"])
    def test_capitals_that_itk_knows(self, tmp_path, name):
        path = itk(tmp_path / name.lower()).rename(tmp_path / name)
        assert read_sitk(path).GetSize() == SHAPE[::-1]

    def test_what_readers_of_other_formats_say_is_told(self, tmp_path):
        def read(_file):
            raise RuntimeError("no orthonormal matrix")

        packed = tmp_path / "a.nii"
        packed.write_bytes(gzip.compress(itk(tmp_path / "b.mha").read_bytes()))
        packed = packed.rename(tmp_path / "a.mha")  # under its own name
        for path in (itk(tmp_path / "a.nrrd"), packed):
            error = refused(path, "unreadable", lambda file: read_image(file, read))
            assert (error.reason, error.remedy) == ("cannot be read (no orthonormal matrix)", WRITE_AGAIN)

    def test_what_is_not_there(self, tmp_path):
        (tmp_path / "folder.nii").mkdir()
        (tmp_path / "link.nii").symlink_to("gone.nii")
        for name in ("gone.nii", "folder.nii", "link.nii"):
            assert refused(tmp_path / name, "missing").remedy == "name a file that exists, or leave it out"
            refused(tmp_path / name, "missing", read_sitk)

    @pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(36, "File name too long")])
    def test_what_the_system_keeps_closed(self, tmp_path, monkeypatch, error):
        def fail(*_args, **_kwargs):
            raise error

        path = nifti(tmp_path / "a.nii")
        monkeypatch.setattr(Path, "is_file", fail)
        assert error.strerror in refused(path, "unreadable").reason

    @pytest.mark.parametrize("read", [read_image, read_sitk])
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (PermissionError(13, "Permission denied"), "(Permission denied): change its permissions"),
            (OSError(5, "Input/output error"), f"(Input/output error): {WRITE_AGAIN}"),
        ],
    )
    def test_what_cannot_be_opened(self, tmp_path, monkeypatch, read, error, words):
        def fail(_path):
            raise error

        path = nifti(tmp_path / "a.nii.gz")
        monkeypatch.setattr(images, "_unpacked", fail)
        assert str(refused(path, "unreadable", read)) == f"{path} cannot be read {words}"

    def test_whatever_a_reader_raises_is_one_line(self, tmp_path):
        def read(_file):
            raise KeyError("first\nlast line")

        with pytest.raises(ImageError, match=r"cannot be read \(.*last line.*\): "):
            read_image(nifti(tmp_path / "a.nii"), read)

    def test_an_interruption_passes(self, tmp_path):
        def read(_file):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            read_image(nifti(tmp_path / "a.nii"), read)

    def test_errors_cross_processes(self, tmp_path):
        error = refused(tmp_path / "gone.nii", "missing")
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.path, copy.kind, copy.reason) == (str(error), error.path, "missing", "is not there")
        assert isinstance(copy, UserError)


class TestNotFinite:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", ["f4", "f8", ">f4", ">f8"])
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_nifti(self, tmp_path, value, kind, ending):
        voxels = noise().astype(kind)
        voxels[-1, -1, -1] = value
        image = nib.Nifti1Image(voxels.T, np.eye(4), nib.Nifti1Header(endianness=kind[0] if kind[0] == ">" else "<"))
        image.set_data_dtype(np.dtype(kind))
        nib.save(image, tmp_path / f"a{ending}")
        for read in (read_image, read_sitk):
            assert refused(tmp_path / f"a{ending}", "NaN", read).reason == "holds NaN or infinite voxels"

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("ending", [".nrrd", ".mha"])
    def test_other_formats(self, tmp_path, value, ending):
        voxels = noise(np.float32)
        voxels[1, 2, 3] = value
        refused(itk(tmp_path / f"a{ending}", voxels), "NaN")

    def test_a_slope_that_leaves_the_numbers(self, tmp_path):
        path = nifti(tmp_path / "a.nii", np.full(SHAPE, 1e38, np.float32))
        data = bytearray(path.read_bytes())
        struct.pack_into("<f", data, 112, 1e10)
        path.write_bytes(data)
        with np.errstate(over="ignore"):
            refused(path, "NaN", lambda p: read_image(p, lambda file: (np.float32(nib.load(file).dataobj), {})))

    def test_what_lies_behind_the_voxels_does_not_count(self, tmp_path):
        path = nifti(tmp_path / "a.nii", noise(np.float32))
        path.write_bytes(path.read_bytes() + np.full(9, np.nan, np.float32).tobytes())
        assert read_image(path).voxels.shape == (1, *SHAPE)

    def test_voxels_that_only_the_reader_makes_infinite(self, tmp_path):
        path = nifti(tmp_path / "a.nii")
        refused(path, "NaN", lambda file: read_image(file, lambda _file: (np.array([np.inf]), {})))

    def test_nan_that_only_the_reader_makes_is_not_looked_for_in_the_file(self, tmp_path):
        voxels = noise(np.float32)[None]
        voxels[0, 2, 2, 3] = np.nan
        path = nifti(tmp_path / "a.nii")
        refused(path, "NaN", lambda file: read_image(file, lambda _file: (voxels, {}), nan_outside_as_zero=True))


class TestNoSignal:
    @pytest.mark.parametrize("read", [read_image, read_sitk])
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd"])
    def test_complex_numbers(self, tmp_path, read, ending):
        path = tmp_path / f"a{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(noise().astype(np.complex64)), str(path))
        for is_label in (False, True):
            error = refused(path, "shape", lambda file, of=is_label: read(file, is_label=of))
            assert (error.reason, error.remedy) == ("holds complex numbers", "write its magnitude")

    def test_complex_numbers_of_which_a_reader_takes_the_real_part(self, tmp_path):
        path = nifti(tmp_path / "a.nii", noise().astype(np.complex128))
        refused(path, "shape", lambda file: read_image(file, lambda _file: pytest.fail("it was read")))

    @pytest.mark.parametrize("read", [read_image, read_sitk])
    @pytest.mark.parametrize(
        ("value", "word"), [(-3.4e38, "-3.4e+38"), (1e20, "1e+20"), (-1.1e15, "-1.1e+15"), (1e15, None)]
    )
    @pytest.mark.filterwarnings("error")
    def test_huge_numbers(self, tmp_path, read, value, word):
        voxels = noise(np.float64)
        voxels[1, 2, 3] = value
        path = nifti(tmp_path / "a.nii.gz", voxels)
        if word is None:
            read(path)
        else:
            error = refused(path, "range", read)
            assert error.reason == f"holds a voxel of {word}, which is no signal"
            assert error.remedy == "write 0 outside the head, and mend such voxels inside"
        read(path, is_label=True)

    @pytest.mark.parametrize("kind", ["b1", "i1", "u2", "i4", "f2", ">f4"])
    @pytest.mark.filterwarnings("error")
    def test_ordinary_numbers_of_every_type(self, kind):
        assert odd_values("a", noise(kind)) == []
        assert odd_values("a", np.zeros((0, 3), kind)) == []

    @pytest.mark.parametrize(("kind", "value"), [("i8", -(2**63)), ("u8", 2**64 - 1), (">f8", -1e300)])
    @pytest.mark.filterwarnings("error")
    def test_huge_numbers_of_every_type(self, kind, value):
        with pytest.raises(ImageError, match=f"holds a voxel of {value:g}".replace("+", r"\+")):
            odd_values("a", np.array([1, value], kind))

    @pytest.mark.parametrize("read", [read_image, read_sitk])
    def test_huge_numbers_beside_nan(self, tmp_path, read):
        voxels = noise(np.float32)
        voxels[:, :, -1], voxels[1, 2, 3] = np.nan, -3.4e38
        path = itk(tmp_path / "a.nrrd", voxels)
        refused(path, "range", lambda file: read(file, nan_outside_as_zero=True))

    @pytest.mark.parametrize("read", [read_image, read_sitk])
    @pytest.mark.parametrize("factor", [1e-12, 1e-41, 1e-300])
    def test_values_that_normalization_cannot_tell_apart(self, tmp_path, read, factor):
        path = itk(tmp_path / "a.nrrd", noise(np.float64) * factor)
        error = refused(path, "range", read)
        assert error.reason.endswith("which nnU-Net's normalization cannot tell apart")
        read(path, is_label=True)
        read(itk(tmp_path / "b.nrrd", noise(np.float64) * 1e-6))
        read(itk(tmp_path / "c.nrrd", np.full(SHAPE, 1e-12)))  # constant, which others tell

    @pytest.mark.parametrize(("offset", "is_told"), [(0, True), (-50, True), (200, False)])
    def test_a_negative_scale_is_told(self, tmp_path, offset, is_told):
        path = nifti(tmp_path / "a.nii.gz", slope=(-1, offset))
        note = "has no value above 0, as if its scale were negative: a network sees it inverted"
        assert read_image(path).notes == ((note,) if is_told else ())
        assert notes_of(read_sitk(path)) == ([note] if is_told else [])
        assert read_image(path, is_label=True).notes == ()

    def test_a_negative_value_around_nothing_is_no_negative_scale(self):
        assert odd_values("a", np.array([-1000.0, 0, 0])) == []


class TestNames:
    """At bytes that are no UTF-8 ITK ends the whole program."""

    @pytest.fixture(params=[b"M\xfcller.nii.gz", b"M\xfcller/a.nii.gz"])
    def path(self, request, tmp_path, monkeypatch):
        for name in ("ReadImage", "WriteImage", "ImageFileReader"):
            monkeypatch.setattr(sitk, name, lambda *_args, **_kwargs: pytest.fail("ITK was called"))
        return tmp_path / os.fsdecode(request.param)

    @pytest.mark.parametrize("read", [read_image, read_sitk])
    def test_reading(self, tmp_path, path, read):
        path.parent.mkdir(exist_ok=True)
        nifti(tmp_path / "a.nii.gz").rename(path)
        assert str(refused(path, "unreadable", read)) == f"{path} has a name that is no UTF-8: rename it"

    def test_writing(self, path):
        with pytest.raises(ImageError, match="has a name that is no UTF-8: rename it"):
            write_sitk(sitk.GetImageFromArray(noise()), path)
        assert not path.parent.exists() or not list(path.parent.iterdir())

    def test_other_letters_are_fine(self):
        check_name("Müller/脳.nii")


class TestNanOutsideTheFieldOfView:
    """A slab of NaN at the border, as reslicing writes it."""

    @pytest.fixture(params=[".nii", ".nii.gz", ".nrrd"])
    def write(self, request, tmp_path):
        def write(*places, value=np.nan, shape=SHAPE):
            voxels = noise(np.float32, shape)
            for place in places:
                voxels[place] = value
            return itk(tmp_path / f"a{request.param}", voxels), voxels

        return write

    def as_sitk(self, file, option="yes"):
        return sitk.GetArrayFromImage(read_sitk(file, nan_outside_as_zero=CHOICES[option]))

    def as_image(self, file, option="yes"):
        return read_image(file, nan_outside_as_zero=CHOICES[option]).voxels[0]

    @pytest.mark.parametrize("read", [as_sitk, as_image])
    def test_it_is_zero_where_it_may_be(self, write, read):
        path, voxels = write(np.s_[:1], np.s_[1, 0])
        assert refused(path, "NaN", lambda p: read(self, p, "no")).remedy.startswith("pass --nan_outside_as_zero")
        assert "--nan" not in refused(path, "NaN", lambda p: read(self, p, "not offered")).remedy
        result = read(self, path)
        assert result.dtype == np.float32
        assert np.array_equal(result, np.nan_to_num(voxels))

    def test_it_is_noted(self, write):
        path, _ = write(np.s_[..., :1])
        note = "has NaN outside the field of view, which is taken as 0"
        assert note in read_image(path, nan_outside_as_zero=True).notes
        assert note in notes_of(read_sitk(path, nan_outside_as_zero=True))
        whole, _ = write()
        assert note not in read_image(whole, nan_outside_as_zero=True).notes

    @pytest.mark.parametrize("n_channels", [2, 3])
    def test_in_each_channel(self, tmp_path, n_channels):
        voxels = noise(np.float32, (*SHAPE, n_channels))
        voxels[:, 0, :, 0] = voxels[:, :, :2, -1] = np.nan
        image, path = sitk.GetImageFromArray(voxels, isVector=True), tmp_path / "a.nrrd"
        image.SetSpacing((1.0, 2.0, 3.0))
        sitk.WriteImage(image, str(path))
        found = read_sitk(path, nan_outside_as_zero=True)
        assert np.array_equal(sitk.GetArrayFromImage(found), np.nan_to_num(voxels))
        assert found.GetSpacing() == (1, 2, 3)
        assert np.array_equal(self.as_image(path), np.nan_to_num(voxels[..., 0]))
        voxels[2, 2, 3, 0] = np.nan
        sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=True), str(path))
        assert "--nan" not in refused(path, "NaN", self.as_image).remedy

    def test_in_pictures_of_several_channels_and_of_one(self, tmp_path):
        for shape, kind in (((5, 6, 3), sitk.sitkVectorFloat32), ((5, 6), sitk.sitkFloat32)):
            voxels = noise(np.float32, shape)
            voxels[0] = np.nan
            sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=len(shape) == 3), str(tmp_path / "a.nrrd"))
            found = read_sitk(tmp_path / "a.nrrd", nan_outside_as_zero=True)
            assert found.GetPixelID() == kind
            assert np.array_equal(sitk.GetArrayFromImage(found), np.nan_to_num(voxels))

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr"])
    def test_wherever_a_file_has_its_voxels(self, tmp_path, name):
        """With more behind them, and axes that its header does not count."""
        voxels = noise(np.float32)
        voxels[:, :, -1] = np.nan
        path = nifti(tmp_path / name, voxels, nib.Nifti1Pair if name.endswith("hdr") else nib.Nifti1Image)
        data = bytearray(gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes())
        struct.pack_into("<4h", data, 48, 9, 9, 9, 9)
        path.write_bytes(gzip.compress(data + b"more") if name.endswith("gz") else data + b"more")
        assert np.array_equal(self.as_image(path), np.nan_to_num(voxels))
        assert np.array_equal(self.as_sitk(path), np.nan_to_num(voxels))
        voxels[2, 2, 3] = np.nan
        nifti(path, voxels, nib.Nifti1Pair if name.endswith("hdr") else nib.Nifti1Image)
        assert "--nan" not in refused(path, "NaN", self.as_image).remedy

    def test_nothing_else_is_lost(self, tmp_path):
        """Where the header says nothing about the patient's sides, and what else is odd about it."""
        voxels = noise(np.float32)
        voxels[:, :, -1] = np.nan
        image = nib.Nifti1Image(voxels.T, None)
        nib.save(image, tmp_path / "a.nii")
        found = read_sitk(tmp_path / "a.nii", nan_outside_as_zero=True)
        assert not is_placed(found)
        notes = read_image(tmp_path / "a.nii", nan_outside_as_zero=True).notes
        assert notes_of(found) == list(notes)
        assert [note.split(":")[0] for note in notes] == [
            "has neither qform nor sform",
            "has NaN outside the field of view, which is taken as 0",
        ]

    def test_readers_that_leave_nan_as_it_is(self, tmp_path):
        voxels = noise(np.float32)
        voxels[:, :, -1] = np.nan
        path = nifti(tmp_path / "a.nii.gz", voxels)
        image = read_image(path, by_nibabel, nan_outside_as_zero=True)
        assert np.array_equal(image.voxels[0], np.nan_to_num(voxels))

    @pytest.mark.parametrize("places", [[np.s_[2, 2, 3]], [np.s_[:1], np.s_[2, 2, 3]], [np.s_[:]]])
    @pytest.mark.parametrize("read", [as_sitk, as_image])
    def test_inside_it_stays_refused(self, write, read, places):
        path, _ = write(*places)
        assert "--nan" not in refused(path, "NaN", lambda p: read(self, p)).remedy

    @pytest.mark.parametrize("read", [as_sitk, as_image])
    def test_infinity_stays_refused(self, write, read):
        refused(write(np.s_[:1], value=np.inf)[0], "NaN", lambda p: read(self, p))

    def test_one_slice(self, write):
        path, voxels = write(np.s_[0, :2], shape=(1, 5, 6))
        assert np.array_equal(self.as_image(path), np.nan_to_num(voxels))
        refused(write(np.s_[0, 2, 2], shape=(1, 5, 6))[0], "NaN", self.as_image)


class TestPlaces:
    def image(self, **properties):
        return Image(Path("a"), np.zeros((1, *SHAPE)), {"spacing": [1, 2, 3], "origin": (0, 0, 0)} | properties)

    def test_the_same_place(self):
        assert differences(self.image(), self.image()) == []
        near = self.image(spacing=np.array([1, 2, 3 + 0.9 * TOLERANCE]), origin=[0, -TOLERANCE, 0])
        assert differences(self.image(), near) == []
        assert differences(self.image(direction=()), self.image(direction=())) == []

    def test_a_program_may_have_rounded(self):
        rounded, moved = self.image(origin=(0, 0.01, 0)), self.image(origin=(0, 0.011, 0))
        assert differences(self.image(), rounded, ROUNDED) == []
        assert differences(self.image(), rounded) == ["origin (by 0.01)"]
        assert differences(self.image(), moved, ROUNDED) == ["origin (by 0.011)"]
        assert differences(self.image(), self.image(spacing=(1, 2, 3.01)), ROUNDED) == ["spacing (by 0.01)"]

    def test_matrices_that_disagree_in_one_image_only(self):
        """Where only its rotation differs, they even have one origin."""
        turned = self.image(qform=np.eye(4), sform=np.diag([-1, -1, 1, 1]))
        for pair in ((turned, self.image()), (self.image(), turned)):
            assert differences(*pair) == ["place (qform and sform of one of them differ)"]
        assert differences(turned, turned) == []
        assert differences(turned, self.image(qform=np.eye(4), sform=np.eye(4))) == ["sform (by 2)"]

    @pytest.mark.parametrize(
        ("properties", "words"),
        [
            ({"spacing": [1, 2, 3.5]}, "spacing (by 0.5)"),
            ({"spacing": [1, 2, 3 - 1.1 * TOLERANCE]}, "spacing (by 0.0011)"),
            ({"spacing": [1, 2]}, "spacing"),
            ({"origin": (0, np.nan, 0)}, "origin (by nan)"),
            ({"origin": (0, np.inf, 0)}, "origin (by inf)"),
            ({"affine": np.eye(4)}, "affine matrix"),
            ({"of the reader": {"direction": np.eye(3)}}, "direction"),
        ],
    )
    def test_another_place(self, properties, words):
        assert differences(self.image(), self.image(**properties)) == [words]
        assert differences(self.image(**properties), self.image()) == [words]

    @pytest.mark.filterwarnings("ignore:invalid value")
    def test_nothing_is_like_nan(self):
        other = self.image(origin=[np.nan] * 3)
        assert differences(other, other) == ["origin (by nan)"]
        assert differences(self.image(origin=[np.inf] * 3), self.image(origin=[np.inf] * 3)) == ["origin (by nan)"]

    def test_another_shape_but_as_many_channels_as_one_likes(self):
        other = self.image()._replace(voxels=np.zeros((3, *SHAPE)))
        assert differences(self.image(), other) == []
        other = self.image(spacing=[1, 2, 5])._replace(voxels=np.zeros((1, 4, 5, 7)))
        assert differences(self.image(), other) == ["shape (4x5x6 and 4x5x7 voxels)", "spacing (by 2)"]

    def test_what_is_no_place_does_not_count(self):
        assert place_differences({"name": "a", "number": 1}, {"name": "b", "number": 2}) == []

    @pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
    def test_what_the_readers_of_nnunet_keep(self, tmp_path, reader):
        from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

        read = recursive_find_reader_writer_by_name(reader)()
        one = nifti(tmp_path / "a.nii.gz")
        moved = nib.Nifti1Image(noise().T, np.diag([1.0, 2, 3, 1]) + np.eye(4, k=3) * 5)
        nib.save(moved, tmp_path / "b.nii.gz")
        here, there = (read_image(p, lambda f: read.read_images((f,))) for p in (one, tmp_path / "b.nii.gz"))
        assert differences(here, here) == []
        assert [words.split(" (")[1] for words in differences(here, there)] == ["by 5)"]


class TestMatricesThatDisagree:
    def test_they_are_kept_beside_the_place(self, tmp_path):
        image = nib.Nifti1Image(noise().T, np.diag([1.0, 2, 3, 1]))
        image.set_qform(np.diag([1.0, 2, 3, 1]) + np.eye(4, k=3) * (1 / 3), code=1)
        image.set_sform(np.diag([1.0, 2, 3, 1]), code=1)
        nib.save(image, tmp_path / "a.nii.gz")
        by_image, by_sitk = read_image(tmp_path / "a.nii.gz"), read_sitk(tmp_path / "a.nii.gz")
        assert list(by_image.notes) == notes_of(by_sitk)
        assert "qform and an sform that differ by 0.333 mm" in by_image.notes[0]
        properties = properties_of(by_sitk)
        assert set(properties) == set(by_image.properties) == {"spacing", "origin", "direction", "qform", "sform"}
        for name, value in by_image.properties.items():
            assert np.array_equal(value, properties[name])

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("elsewhere", [-1, 2])
    @pytest.mark.parametrize(("codes", "read"), [((1, 1), "sform"), ((1, 2), "qform")])
    def test_which_of_them_itk_has_read(self, tmp_path, axis, elsewhere, codes, read):
        """The one that has the image's origin; the other one's is at its mirror image, or twice as far."""
        image = nib.Nifti1Image(noise().T, None)
        for name, code in zip(("qform", "sform"), codes, strict=True):
            place = np.diag([1.0, 2, 30, 1])
            place[axis, 3] = 10 * (1 if name == read else elsewhere)
            getattr(image, f"set_{name}")(place, code=code)
        nib.save(image, tmp_path / "a.nii")
        assert read_image(tmp_path / "a.nii").notes == (
            f"has a qform and an sform that differ by {abs(10 - 10 * elsewhere)} mm; the {read} was read",
            "has voxels of 1 x 2 x 30 mm, as no patient's image has",
        )

    @pytest.mark.parametrize(("codes", "read"), [((1, 1), "sform"), ((1, 2), "qform")])
    @pytest.mark.parametrize("axes", [3, 4])
    @pytest.mark.parametrize("scale", [1, 1.2])
    def test_which_of_two_with_one_origin_itk_has_read(self, tmp_path, codes, read, axes, scale):
        """The one that has the image's axes, whatever its voxel sizes, which are those of pixdim."""
        cosine, sine = np.cos(0.1), np.sin(0.1)
        turn = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        for turned in ("qform", "sform"):
            image = nib.Nifti1Image(noise(shape=(1, *SHAPE)[-axes:]).T, None)
            for name, code in zip(("sform", "qform"), codes[::-1], strict=True):
                sizes = np.diag([1.0, 2, 3 * (scale if name == "sform" else 1), 1])
                getattr(image, f"set_{name}")(turn @ sizes if name == turned else sizes, code=code)
            nib.save(image, tmp_path / "a.nii")
            found = read_image(tmp_path / "a.nii")
            assert found.notes[0].endswith(f"; the {read} was read")
            assert np.allclose(found.properties["direction"][1], 0) == (turned != read)

    @pytest.mark.parametrize("read", [read_image, read_sitk])
    def test_itk_does_not_warn_of_them_as_well(self, tmp_path, capfd, read):
        image = nib.Nifti1Image(noise().T, np.diag([1.0, 2, 3, 1]))
        image.set_sform(np.diag([1.0, 2, 3.5, 1]), code=1)
        image.set_qform(np.diag([1.0, 2, 3, 1]), code=1)
        nib.save(image, tmp_path / "a.nii")
        try:
            sitk.ProcessObject.GlobalWarningDisplayOn()
            read(tmp_path / "a.nii")
        finally:
            sitk.ProcessObject.GlobalWarningDisplayOff()
        assert capfd.readouterr() == ("", "")

    def test_a_picture_has_two_places_as_well(self, tmp_path):
        image = nib.Nifti1Image(noise(shape=(5, 6)).T, None)
        image.set_qform(np.eye(4), code=1)
        image.set_sform(np.eye(4) + np.eye(4, k=3) * 5, code=1)
        nib.save(image, tmp_path / "a.nii")
        assert read_image(tmp_path / "a.nii").notes == (
            "has a qform and an sform that differ by 5 mm; the sform was read",
        )

    def test_each_oddity_of_a_case_is_one_line(self):
        def image(name, *notes):
            return Image(Path(name), np.zeros(1), {}, notes)

        images = [image("a", "is odd"), image("b"), image("c", "is old", "is odd"), image("d", "is odd")]
        oddities = [(Path("a"), "is odd (as in 3 files of its case)"), (Path("c"), "is old")]
        assert header_oddities(images) == oddities
        assert header_lines(images) == ["a is odd (as in 3 files of its case)", "c is old"]
        assert header_oddities(image(name, "is odd") for name in "ab")[0][1] == "is odd (as in 2 files of its case)"

    def test_whether_it_is_known_where_the_sides_are(self, tmp_path):
        for codes, placed in (((0, 0), False), ((1, 0), True), ((0, 1), True)):
            image = nib.Nifti1Image(noise().T, np.eye(4))
            for name, code in zip(("qform", "sform"), codes, strict=True):
                getattr(image, f"set_{name}")(np.eye(4) if code else None, code=code)
            nib.save(image, tmp_path / "a.nii")
            assert is_placed(read_sitk(tmp_path / "a.nii")) == placed
            assert read_image(tmp_path / "a.nii").properties.get(UNPLACED, False) == (not placed)
        assert is_placed(read_sitk(itk(tmp_path / "a.nrrd")))
        assert UNPLACED not in read_image(tmp_path / "a.nrrd").properties

    def test_an_image_without_oddities_has_none(self, tmp_path):
        image = read_sitk(nifti(tmp_path / "a.nii.gz"))
        assert notes_of(image) == notes_of(sitk.Image(2, 2, sitk.sitkUInt8)) == []
        assert set(properties_of(image)) == {"spacing", "origin", "direction"}


class TestKeptPlace:
    """A result says about its place what the image said of which it is."""

    def odd(self, path, kind=nib.Nifti1Image):
        """An image whose qform and sform disagree, in micrometers, from a program that knows times."""
        image = kind(noise().T, None)
        image.set_qform(np.array([[0, 2e3, 0, 7], [1e3, 0, 0, -8], [0, 0, 3e3, 9], [0, 0, 0, 1]]), code=3)
        image.set_sform(np.diag([1e3, 2e3, 3e3, 1]), code=4)
        image.header.set_xyzt_units("micron", "sec")
        image.header["pixdim"][4:] = 5
        nib.save(image, path)
        return path

    def fields(self, path):
        values = {name: value.tolist() for name, value in nib.load(path).header.items()}
        return values | dict.fromkeys(("scl_slope", "scl_inter"))  # NaN is like nothing, NaN included

    @pytest.mark.parametrize("source", ["source.nii", "source.nii.gz", "source.hdr"])
    @pytest.mark.parametrize("target", ["target.nii", "target.nii.gz"])
    def test_of_an_odd_header_all_is_kept(self, tmp_path, source, target):
        kind = nib.Nifti1Pair if source.endswith("hdr") else nib.Nifti1Image
        source, target = self.odd(tmp_path / source, kind), tmp_path / target
        result = sitk.GetImageFromArray(noise(np.uint8) + 100)
        write_sitk(result, target)
        before, theirs = self.fields(target), self.fields(source)
        write_sitk(result, target, place_of=source)
        place = ("qform_code", "sform_code", "qoffset", "quatern", "srow", "xyzt_units")
        kept = {name: value for name, value in theirs.items() if name.startswith(place)}
        sizes = theirs["pixdim"][:4] + before["pixdim"][4:]
        assert self.fields(target) == before | kept | {"pixdim": sizes}
        assert len(kept) == 12
        assert np.array_equal(np.asarray(nib.load(target).dataobj).T, noise(np.uint8) + 100)

    def test_the_same_file_comes_out_whenever_it_is_written(self, tmp_path, monkeypatch):
        source, target = self.odd(tmp_path / "source.nii"), tmp_path / "a.nii.gz"
        write_sitk(sitk.GetImageFromArray(noise()), target)
        written = target.read_bytes()
        keep_place(source, target)
        one = target.read_bytes()
        target.write_bytes(written)
        monkeypatch.setattr("time.time", lambda: 1e9)
        keep_place(source, target)
        assert target.read_bytes() == one != written

    def test_of_a_clear_header_and_of_other_formats_nothing_is(self, tmp_path):
        target = tmp_path / "a.nii.gz"
        write_sitk(sitk.GetImageFromArray(noise()), target)
        before = target.read_bytes()
        for source in (nifti(tmp_path / "b.nii.gz"), itk(tmp_path / "c.nrrd")):
            keep_place(source, target)
            assert target.read_bytes() == before


class TestVoxels:
    def test_constant(self):
        assert is_constant(np.zeros(SHAPE))
        assert is_constant(np.full((1, 1), 7, np.uint8))
        assert not is_constant(noise())
        assert not is_constant(np.array([0, 1e-30]))
        assert not is_constant(np.array([np.nan, np.nan]))

    def test_nothing_in_the_head_and_one_negative_value_around_it(self):
        assert is_constant(np.array([-1, 0, 0, -1]))
        assert not is_constant(np.array([-1, 0, -2]))
        assert not is_constant(np.array([0, 1, 1, 0])), "a mask may be a channel"

    def test_a_digest_tells_voxels_and_not_how_they_are_kept(self):
        voxels = noise()
        same = [voxels.astype(kind) for kind in ("u1", "i2", ">i2", "u4", "i8", "f4", ">f4", "f8", ">f8")]
        same += [np.asfortranarray(voxels), voxels[::-1][::-1], np.repeat(voxels, 2, axis=1)[:, ::2], voxels[None]]
        assert {digest(array) for array in same} == {digest(voxels)}
        expected = hashlib.blake2b(voxels.astype("<f4").tobytes(), digest_size=16).hexdigest()
        assert digest(voxels) == expected
        for other in (voxels[::-1], voxels + 1, voxels[:-1], voxels.T):
            assert digest(other) != expected

    @pytest.mark.parametrize("kind", ["b1", "u1", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", ">f4"])
    def test_labels_of_every_type(self, kind):
        voxels = np.array([[0, 1, 1], [0, 0, 1]]).astype(kind)
        counts = label_counts("a", voxels)
        assert counts == {0: 3, 1: 3}
        assert list(map(type, counts)) == [int, int]
        assert list(map(type, counts.values())) == [int, int]

    def test_labels_that_are_whole_but_for_rounding(self):
        assert label_counts("a", np.array([0.9995, 1, 1.0004, -0.0004, 3])) == {0: 1, 1: 3, 3: 1}
        assert label_counts("a", np.array([-1, 5, -1], np.int8)) == {-1: 2, 5: 1}
        assert label_counts("a", np.array([TOLERANCE, 1])) == {0: 1, 1: 1}

    @pytest.mark.parametrize(
        ("value", "word"), [(0.998, "0.998"), (1.5, "1.5"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")]
    )
    @pytest.mark.filterwarnings("error")
    def test_labels_that_are_no_whole_numbers(self, value, word):
        with pytest.raises(ImageError, match=f"^a holds label values .* such as {word}: export it again") as error:
            label_counts("a", np.array([0, value, 1]))
        assert error.value.kind == "labels"

    @pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**53 + 1, 2**53 - 1, 2**15, 2**15 - 1])
    @pytest.mark.filterwarnings("error")
    def test_very_large_labels_stay_what_they_are(self, value):
        assert label_counts("a", np.array([value, 0], np.uint64)) == {0: 1, value: 1}

    @pytest.mark.filterwarnings("error")
    def test_a_very_large_label_that_was_a_float(self):
        assert label_counts("a", np.array([1e30, 0])) == {0: 1, int(1e30): 1}

    def test_no_voxel(self):
        assert label_counts("a", np.zeros((0, 3))) == {}


class TestWriting:
    @pytest.mark.parametrize("ending", WHOLE_ENDINGS)
    def test_what_is_written_is_read(self, tmp_path, ending):
        image = sitk.GetImageFromArray(noise())
        write_sitk(image, tmp_path / "new" / f"a{ending}")
        assert np.array_equal(read_image(tmp_path / "new" / f"a{ending}").voxels[0], noise())
        assert [path.name for path in (tmp_path / "new").iterdir()] == [f"a{ending}"]

    @pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
    def test_it_is_compressed_where_the_format_knows_how(self, tmp_path, ending):
        write_sitk(sitk.Image(50, 50, 50, sitk.sitkInt16), tmp_path / f"a{ending}")
        assert (tmp_path / f"a{ending}").stat().st_size < 10_000

    @pytest.mark.parametrize("ending", [*WHOLE_ENDINGS, ".png", ".tif"])
    def test_a_full_disk(self, small_disk, ending):
        (small_disk / f"a{ending}").write_text("old", encoding="utf-8")
        shape = (400, 500) if ending == ".png" else (50, 60, 70)
        voxels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        with pytest.raises(UserError, match="cannot be written") as error:
            write_sitk(sitk.GetImageFromArray(voxels), small_disk / f"a{ending}")
        assert "\n" not in str(error.value)
        assert (small_disk / f"a{ending}").read_text(encoding="utf-8") == "old"
        assert [path.name for path in small_disk.iterdir()] == [f"a{ending}"]

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_what_was_written_is_checked(self, tmp_path, name):
        path = nifti(tmp_path / name)
        check_written(path)
        data = path.read_bytes()
        for n in range(0, len(data), 11):
            path.write_bytes(data[:n])
            with pytest.raises(OSError, match="the file was cut short, is the disk full"):
                check_written(path)

    def test_voxels_lie_behind_the_header_whatever_it_says(self, tmp_path):
        path = nifti(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        struct.pack_into("<f", data, 108, 0)
        path.write_bytes(data)
        assert check_whole(path)
        path.write_bytes(data[:-10])
        with pytest.raises(EOFError, match="6 bytes of voxels are missing"):  # four lie between the two
            check_whole(path)

    def test_the_last_voxel_counts_and_the_first_one(self, tmp_path):
        path = nifti(tmp_path / "a.nii", np.ones((1, 1, 1), np.uint8))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(EOFError, match="1 bytes of voxels are missing"):
            check_whole(path)
        voxels = np.zeros((5, 500, 500), np.float32)  # more than is read at once
        voxels[0, 0, 0] = np.nan
        assert not check_whole(nifti(path, voxels))

    def test_what_follows_a_checksum_is_padding_and_a_wrong_checksum_is_none(self, tmp_path):
        path = nifti(tmp_path / "a.nii.gz")
        data = path.read_bytes()
        path.write_bytes(data + b"more")
        assert check_whole(path)
        path.write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
        with pytest.raises(gzip.BadGzipFile, match="CRC check failed"):
            check_whole(path)

    def test_of_voxels_of_an_unknown_type_no_size_is_known(self, tmp_path):
        path = itk(tmp_path / "a.gipl")
        data = bytearray(path.read_bytes())
        struct.pack_into(">H", data, 8, 99)
        path.write_bytes(data[:-200])
        assert check_whole(path)
        refused(path, "unreadable")  # as ITK does not know it either

    def test_a_file_that_is_whole(self, tmp_path):
        for path in (nifti(tmp_path / "a.nii.gz"), itk(tmp_path / "a.mha")):
            assert check_whole(path)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".mhd", ".nhdr"])
def test_a_header_of_text_may_be_long(tmp_path, ending):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    image.SetMetaData("comment", "a word " * 100)
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    assert np.array_equal(read_image(tmp_path / f"a{ending}").voxels[0], sitk.GetArrayViewFromImage(image))
    (tmp_path / f"b{ending}").write_text("<html>no such image</html>\n" * 40, encoding="utf-8")
    with pytest.raises(ImageError, match=r"b\.\w+ cannot be read"):
        read_image(tmp_path / f"b{ending}")
