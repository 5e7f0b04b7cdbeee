"""Images, labels, references and predictions: one checked way to read them, to compare and to write them."""

import contextlib
import errno
import gzip
import hashlib
import io
import math
import re
import string
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import written_whole
from nnunetv2_d2net.base.formats import misnamed
from nnunetv2_d2net.base.headers import NOT_KNOWN, HeaderError, check_header, second_place, shear_of, tells_sides
from nnunetv2_d2net.base.orientation import UNPLACED
from nnunetv2_d2net.base.text import counted, last_line
from nnunetv2_d2net.base.text_headers import check_text_header, read_beginning, voxels_of

TOLERANCE = 1e-3
"""Largest difference of two geometries, in mm or as a cosine, and of a label from a whole number."""

ROUNDED = {"origin": 0.01}
"""Differences in mm, above :data:`TOLERANCE`, that a program leaves which rounds a header: the voxels are the same."""

COPY_AGAIN = "it may be cut short, copy it again"
WRITE_AGAIN = "copy it again, or write it anew if the copy is right"
NAN_OPTION = "--nan_outside_as_zero"
GO_WITHOUT = "repair it, or remove it to go without"

_LARGEST = 1e15
"""Magnitude of a voxel, above which sums of squares come near the end of 32-bit floats."""

_SHEARED = 0.01
_RIGHT_ANGLES = "resample it onto a grid of right angles, for instance with"

_MOST_VALUES = 2**15  # of labels that are counted without sorting

_THICKEST = 100  # times the edge of a pixel: slices of volumes

_ENDING = re.compile(r"(\.nii)?\.\w+$", re.IGNORECASE)
_NO_READER = re.compile("Unable to determine ImageIO|not recognized as a NIFTI")
_GZIP = b"\x1f\x8b"
"""How every gzip file begins."""

_PRINTABLE = frozenset(bytes(string.printable, "ascii"))
_NOTES = "d2net notes"
"""Key of SimpleITK's metadata under which :func:`read_sitk` keeps what is odd, a line each."""

_PLACE = "d2net place "
"""How the keys begin under which it keeps matrices that disagree, row by row."""

_CHUNK = 2**22
_PADDING = 0.1  # share of the voxels' bytes that may follow them
_LONGEST_HEADER = 540  # bytes, of NIfTI-2
_SIZES = {struct.pack(order + "i", size) for order in "<>" for size in (348, 540)}
"""How NIfTI's headers begin, and those of Analyze, which says less about the place."""
_LEAST_RANGE = 1e-6
"""Of values: nnU-Net divides by a standard deviation of 1e-8 at the least."""

_GIPL_HEADER = 256  # bytes; the magic number ends it
_GIPL_MAGIC = (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8")
_GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}  # of a voxel, by its type


class ImageError(UserError):
    """An image that cannot be used.

    Attributes:
        path: The file.
        kind: ``missing``, ``unreadable``, ``header``, ``NaN``, ``range``, ``shape``, ``geometry`` or ``labels``.
        reason: What is wrong with it.
        remedy: What to do.
    """

    def __init__(self, path: Path | str, kind: str, reason: str, remedy: str) -> None:
        super().__init__(f"{path} {reason}: {remedy}")
        self.path, self.kind, self.reason, self.remedy = Path(path), kind, reason, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.kind, self.reason, self.remedy)  # to cross processes


class Image(NamedTuple):
    """A file as read.

    Attributes:
        path: The file.
        voxels: ``(C, z, y, x)``; images of two axes have z = 1 where nnU-Net has read them.
        properties: Spacing (z, y, x) in mm under nnU-Net's readers, and whatever the reader keeps about the place.
        notes: What is odd about its header or values, each in a few words that follow the file's name.
    """

    path: Path
    voxels: NDArray[Any]
    properties: dict[str, Any]
    notes: tuple[str, ...] = ()


Reader = Callable[[str], tuple[NDArray[Any], dict[str, Any]]]
"""From a file's name to voxels ``(C, *spatial)`` and properties."""


def read_image(
    path: Path | str, reader: Reader | None = None, *, nan_outside_as_zero: bool | None = None, is_label: bool = False
) -> Image:
    """Read any image file: whole, and free of NaN and infinity.

    Args:
        path: The file.
        reader: How to decode it, such as nnU-Net's; None for SimpleITK, whose properties are ``spacing``, ``origin``
            and ``direction`` (x, y, z).
        nan_outside_as_zero: Take NaN outside the field of view, that is, in one piece with the image's border, as 0. If
            False, the refusal of such an image names the option; None is for whoever does not offer it.
        is_label: Leave the range of its values to :func:`label_counts`.

    Raises:
        ImageError: It is missing, cannot be read, or holds NaN, infinity, complex or huge numbers.
    """
    header, (voxels, properties), finite, more = _read_checked(Path(path), reader or _decode)
    zeroed = _check_finite(Path(path), header, voxels, finite=finite, option=nan_outside_as_zero)
    if zeroed:
        voxels = np.where(np.isnan(voxels), 0, voxels)
    odd = [] if is_label else odd_values(path, voxels)
    check_axes(path, properties.get("sitk_stuff", properties).get("direction", ()))
    notes = (*_notes(Path(path), header), *odd, *more)
    if header is not None:
        properties = {**properties, **second_place(header)}
    if not tells_sides(header) if header is not None else _says_unknown(notes):
        properties = {**properties, UNPLACED: True}
    return Image(Path(path), voxels, properties, (*notes, *zeroed))


def read_sitk(
    path: Path | str, *, only_nifti: bool = False, nan_outside_as_zero: bool | None = None, is_label: bool = False
) -> sitk.Image:
    """Read any image file as SimpleITK's image: whole, and free of NaN and infinity.

    Args:
        path: The file.
        only_nifti: Refuse every other format, whatever the file is called.
        nan_outside_as_zero: As :func:`read_image` has it.
        is_label: Likewise.

    Raises:
        ImageError: It is missing, cannot be read, or holds NaN, infinity, complex or huge numbers.
    """
    image_io = "NiftiImageIO" if only_nifti else ""
    header, image, finite, more = _read_checked(Path(path), lambda file: sitk.ReadImage(file, imageIO=image_io))
    check_axes(path, image.GetDirection())
    voxels = _array_of(image)
    zeroed = _check_finite(Path(path), header, voxels, finite=finite, option=nan_outside_as_zero)
    odd = [] if is_label else odd_values(path, voxels)
    if zeroed and np.isnan(voxels).any():
        several = image.GetNumberOfComponentsPerPixel() > 1
        zeros = np.nan_to_num(np.moveaxis(voxels, 0, -1) if several else voxels[0])
        whole = sitk.GetImageFromArray(zeros, isVector=several)
        whole.CopyInformation(image)
        image = whole
    note_down(image, (*_notes(Path(path), header), *odd, *more, *zeroed))
    for name, matrix in ({} if header is None else second_place(header)).items():
        image.SetMetaData(_PLACE + name, " ".join(map(repr, matrix.ravel().tolist())))
    return image


def header_lines(images: Iterable[Image]) -> list[str]:
    """Say what is odd about the headers of one case's images: a line for each oddity, however many files have it."""
    return [f"{file} {note}" for file, note in header_oddities(images)]


def header_oddities(images: Iterable[Image]) -> list[tuple[Path, str]]:
    """Return the lines of :func:`header_lines` as files, the first of those that have an oddity, and what is odd."""
    found: dict[str, list[Path]] = {}
    for image in images:
        for note in image.notes:
            found.setdefault(note, []).append(image.path)
    return [
        (files[0], note + (f" (as in {counted(len(files), 'file')} of its case)" if len(files) > 1 else ""))
        for note, files in found.items()
    ]


def note_down(image: sitk.Image, notes: Iterable[str]) -> None:
    """Keep with an image what is odd about it, each in a few words."""
    image.SetMetaData(_NOTES, "\n".join(notes))


def notes_of(image: sitk.Image) -> list[str]:
    """Return what :func:`read_sitk` has noted about an image's header."""
    return image.GetMetaData(_NOTES).splitlines() if image.HasMetaDataKey(_NOTES) else []


def _notes(path: Path, header: Nifti1Header | None) -> tuple[str, ...]:
    notes = check_text_header(_beginning(path)) if header is None else check_header(header)
    if header is not None and (places := second_place(header)):
        read = _place_read(path, places)
        notes = [f"{note}; the {read} was read" if "differ by" in note else note for note in notes]
    return tuple(notes)


def _place_read(path: Path, places: Mapping[str, NDArray[np.floating]]) -> str:
    """Name the one of two matrices (4, 4) whose axes and origin ITK has read; its voxel sizes are of pixdim."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    n_axes = reader.GetDimension()
    n = min(n_axes, 3)  # a picture has two
    to_nifti = np.array([-1, -1, 1])[:n]
    directions = np.reshape(reader.GetDirection(), (n_axes, n_axes))[:n, :n] * to_nifti[:, None]
    origin = np.array(reader.GetOrigin())[:n] * to_nifti

    def distance(name: str) -> float:
        axes = places[name][:n, :n]
        turned = np.linalg.norm(axes - directions * np.linalg.norm(axes, axis=0))
        return float(turned + np.linalg.norm(places[name][:n, 3] - origin))

    return min(places, key=distance)


def not_finite(path: Path | str) -> ImageError:
    """Say that a file holds NaN or infinity."""
    return ImageError(path, "NaN", "holds NaN or infinite voxels", GO_WITHOUT)


def _not_real(path: Path) -> ImageError:
    return ImageError(path, "shape", "holds complex numbers", "write its magnitude")


def odd_values(path: Path | str, voxels: NDArray[Any]) -> list[str]:
    """Say what is odd about the values of an image, in a few words that follow its name.

    Args:
        path: Where they come from.
        voxels: Any shape and real type; NaN is passed over.

    Raises:
        ImageError: A magnitude above 1e15, which is no signal, such as -3.4e38 for no data: the z-score of the others
            is lost. Or all differ by so little that nnU-Net's normalization cannot tell them apart.
    """
    if not voxels.size:
        return []
    low, high = (float(extreme.reduce(voxels, axis=None)) for extreme in (np.fmin, np.fmax))
    if abs(worst := max(low, high, key=abs)) > _LARGEST:
        remedy = "write 0 outside the head, and mend such voxels inside"
        raise ImageError(path, "range", f"holds a voxel of {worst:g}, which is no signal", remedy)
    if 0 < high - low < _LEAST_RANGE:
        reason = f"has values of {low:g} to {high:g}, which nnU-Net's normalization cannot tell apart"
        raise ImageError(path, "range", reason, "multiply them, or look for the scale that its header lacks")
    negated = low < 0 and high <= 0 and not is_constant(voxels)
    return ["has no value above 0, as if its scale were negative: a network sees it inverted"] if negated else []


def _check_finite(
    path: Path, header: Nifti1Header | None, voxels: NDArray[Any], *, finite: bool, option: bool | None
) -> list[str]:
    """Refuse NaN, infinity and complex numbers; note where NaN is to become 0.

    Args:
        path: The file.
        header: Of NIfTI.
        voxels: As decoded, ``(C, *spatial)``.
        finite: Whether the file holds nothing else; if not, SimpleITK has put zeros in NaN's place.
        option: See :func:`read_image`.
    """
    if np.iscomplexobj(voxels):
        raise _not_real(path)
    if finite and np.isfinite(voxels).all():
        return []
    stored = voxels if finite or header is None else _stored_voxels(path, header)
    if option is None or np.isinf(voxels).any() or not _nan_is_outside(stored):
        raise not_finite(path)
    if not option:
        remedy = f"pass {NAN_OPTION} to take it as 0, or repair it"
        raise ImageError(path, "NaN", "holds NaN outside the field of view", remedy)
    return ["has NaN outside the field of view, which is taken as 0"]


def _nan_is_outside(voxels: NDArray[Any]) -> bool:
    """Tell whether what is not finite is NaN in one piece with the border of its volume."""
    if np.isinf(voxels).any():
        return False
    for volume in voxels.reshape(-1, *voxels.shape[-3:]):
        finite = np.atleast_2d((~np.isnan(volume)).squeeze()).astype(np.uint8)
        filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(finite)))
        if not finite.any() or not np.array_equal(filled, finite):
            return False
    return True


def _stored_voxels(path: Path, header: Nifti1Header) -> NDArray[Any]:
    """Return the voxels of a NIfTI file as they are stored, the axes from slow to fast, neither scaled nor turned."""
    with _unpacked(path if _holds_voxels(header) else path.with_suffix(".img")) as stream:
        stream.seek(int(header["vox_offset"]))
        shape, kind = _shape_of(header), header.get_data_dtype()
        return np.frombuffer(stream.read(math.prod(shape) * kind.itemsize), kind).reshape(shape[::-1])


def _read_checked(path: Path, decode: Callable[[str], Any]) -> tuple[Nifti1Header | None, Any, bool, list[str]]:
    """Return a NIfTI file's header, what the decoder makes of it, whether all is finite, and notes on its length."""
    header = None
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003  # what ITK warns of is among the notes
    try:
        header = _believable_header(path)
        if header is not None and header.get_data_dtype().kind == "c":
            raise _not_real(path)
        finite, *lengths = _look_through(path)
        more = _check_length(*lengths)
        check_name(path)
        decoded = decode(str(path))
    except ImageError:
        raise
    except HeaderError as error:
        raise ImageError(path, "header", error.reason, error.remedy) from error
    except Exception as error:  # readers raise what they like
        raise _unreadable(path, header, error) from error
    return header, decoded, finite, more


def _believable_header(path: Path) -> Nifti1Header | None:
    """Read a NIfTI file's header; refuse one that leaves the place unknown, and what is no image at all."""
    if not path.is_file():
        raise ImageError(path, "missing", "is not there", "name a file that exists, or leave it out")
    head = _beginning(path)
    if head.startswith(b"version https://git-lfs"):
        reason, remedy = "cannot be read (it is a pointer of Git LFS, no image)", "fetch the image with git lfs pull"
        raise ImageError(path, "unreadable", reason, remedy)
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))  # headers of other formats are text
    if is_nifti and head and all(byte in _PRINTABLE for byte in head[:_LONGEST_HEADER]):
        is_text = "cannot be read (it is a text, no image)", "put the image there, or remove it"
        raise ImageError(path, "unreadable", *(misnamed(path, head, is_gzip=False) or is_text))
    header = _nifti_header(head)
    if header is not None:
        check_header(header)
        if min(shape := header.get_data_shape(), default=0) < 0:
            reason = f"says that it has {' x '.join(map(str, shape))} voxels"
            raise ImageError(path, "header", reason, "write it anew from its source")
    check_text_header(head if header is None else b"")
    if header is None and head[:4] in _SIZES and is_nifti:
        raise ImageError(path, "unreadable", "cannot be read (its header is no NIfTI's: the magic number)", WRITE_AGAIN)
    return header


def _beginning(path: Path) -> bytes:
    with _unpacked(path) as stream:
        return read_beginning(stream, _LONGEST_HEADER)


def check_name(path: Path | str) -> None:
    """Refuse a path at which ITK would end the whole program.

    Args:
        path: Of a file or folder that is to be read or written with SimpleITK.

    Raises:
        ImageError: It is no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ImageError(path, "unreadable", "has a name that is no UTF-8", "rename it") from error


def _unreadable(path: Path, header: Nifti1Header | None, error: Exception) -> ImageError:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, FileNotFoundError):
        remedy = "change its permissions" if isinstance(error, PermissionError) else WRITE_AGAIN
        return ImageError(path, "unreadable", f"cannot be read ({error.strerror})", remedy)
    if header is not None and "orthonormal" in str(error):
        reason = f"has a sheared sform: its axes miss right angles by {shear_of(header):.1f} degrees"
        return ImageError(path, "header", reason, f"{_RIGHT_ANGLES} nibabel.processing.resample_to_output")
    with _unpacked(path) as stream:
        is_misnamed = isinstance(stream, gzip.GzipFile) and path.suffix.lower() == ".nii"
    if header is not None and is_misnamed and not isinstance(error, EOFError):
        reason = "cannot be read (it is compressed, and its name does not say so)"
        return ImageError(path, "unreadable", reason, f"call it {path.name}.gz")
    if isinstance(header, Nifti2Header) and isinstance(error, RuntimeError):  # of ITK, which knows only NIfTI-1
        return ImageError(path, "unreadable", "is NIfTI-2", "write it as NIfTI-1")
    with _unpacked(path) as stream:
        is_gzip = isinstance(stream, gzip.GzipFile)
    lower = _ENDING.sub(lambda ending: ending[0].lower(), path.name)
    found = misnamed(path, _beginning(path), is_gzip=is_gzip) if isinstance(error, RuntimeError) else None
    if lower != path.name and not path.name.endswith((".NII", ".NII.GZ")) and _NO_READER.search(str(error)):
        found = found or ("has capitals in its ending, which ITK does not read", f"call it {lower}")
    if found:
        return ImageError(path, "unreadable", *found)
    why, remedy = last_line(error), COPY_AGAIN if isinstance(error, EOFError) else WRITE_AGAIN
    if "No such file" in why:  # what ITK says of a MetaImage that is cut short, or whose voxels' file is not there
        why = "some or all of its voxels are missing"
    return ImageError(path, "unreadable", f"cannot be read ({why})", remedy)


def _decode(file: str) -> tuple[NDArray[Any], dict[str, Any]]:
    image = sitk.ReadImage(file)
    return _array_of(image).copy(), properties_of(image)


def _array_of(image: sitk.Image) -> NDArray[Any]:
    array = sitk.GetArrayViewFromImage(image)
    return np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]


def properties_of(image: sitk.Image) -> dict[str, Any]:
    """Return where an image lies: spacing, origin and direction, in the order x, y, z; two matrices that disagree."""
    places = [key for key in image.GetMetaDataKeys() if key.startswith(_PLACE)]
    return {
        "spacing": image.GetSpacing(),
        "origin": image.GetOrigin(),
        "direction": image.GetDirection(),
        **{key[len(_PLACE) :]: np.array(image.GetMetaData(key).split(), float).reshape(4, 4) for key in places},
    }


def is_planar(spacing: Sequence[float]) -> bool:
    """Tell by its spacing, z first, whether an image has two dimensions: nnU-Net makes a third edge up, 999 or more."""
    return spacing[0] > _THICKEST * min(spacing)


def is_placed(image: sitk.Image) -> bool:
    """Tell whether the header of an image that was read says where the patient's sides are."""
    codes = [image.GetMetaData(key) for key in ("qform_code", "sform_code") if image.HasMetaDataKey(key)]
    return any(code != "0" for code in codes) if codes else not _says_unknown(notes_of(image))


def _says_unknown(notes: Iterable[str]) -> bool:
    return any(note.endswith(NOT_KNOWN) for note in notes)


def check_axes(path: Path | str, direction: Sequence[float]) -> None:
    """Refuse axes that miss right angles, for which programs make different images.

    Args:
        path: Where the image comes from.
        direction: Its axes as columns, row by row, as ITK has them, of any number of axes; none where it has no place.

    Raises:
        ImageError: They miss right angles by more than 0.6 degrees.
    """
    n = math.isqrt(len(direction))
    axes = np.reshape(direction, (n, n))
    if not (cosine := float(np.abs(axes.T @ axes - np.eye(n)).max(initial=0))) < _SHEARED:
        reason = f"is sheared: its axes miss right angles by {math.degrees(math.asin(min(1.0, cosine))):.1f} degrees"
        raise ImageError(path, "header", reason, f"{_RIGHT_ANGLES} SimpleITK.Resample")


def check_whole(path: Path) -> bool:
    """Refuse a file that was cut short or damaged, about which readers say nothing: they put zeros in its place.

    Gzip files and compressed MetaImages are unpacked to their checksum, and NIfTI and GIPL files have as many bytes as
    their header says, whatever they are called. The readers of other formats see it for themselves.

    Returns:
        Whether a NIfTI file is free of NaN and infinity; True for other formats, whose voxels arrive as they are.

    Raises:
        EOFError: The file ends too early.
        OSError: It cannot be opened, or its checksum is wrong.
        zlib.error: Its content makes no sense.
    """
    return _look_through(path)[0]


def _look_through(path: Path) -> tuple[bool, int, int]:
    """Do what :func:`check_whole` says; return also how many bytes of voxels the header states, and how many follow."""
    if path.suffix == ".img":
        path = path.with_suffix(".hdr")
    with _unpacked(path) as stream:
        head = read_beginning(stream, _LONGEST_HEADER)
        header = _nifti_header(head)
        found = _check_nifti(path, stream, header) if header else (True, *_check_others(path, stream, head))
        _bytes_left(stream)
    return found


def _bytes_left(stream: BinaryIO) -> int:
    """Count what is left of a file, of gzip to its checksum; what follows the checksum is padding."""
    n_bytes = 0
    try:
        while chunk := stream.read(_CHUNK):
            n_bytes += len(chunk)
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):
            raise
    return n_bytes


def _unpacked(path: Path) -> BinaryIO:
    with path.open("rb") as raw:
        packed = raw.read(len(_GZIP)) == _GZIP
    return cast(BinaryIO, gzip.open(path) if packed else path.open("rb"))


def _nifti_header(head: bytes) -> Nifti1Header | None:
    kinds = (kind for kind in (Nifti1Header, Nifti2Header) if kind.may_contain_header(head))
    return next((kind.from_fileobj(io.BytesIO(head), check=False) for kind in kinds), None)


def _check_nifti(path: Path, stream: BinaryIO, header: Nifti1Header) -> tuple[bool, int, int]:
    """Go through the voxels, wherever they are; old files of Analyze have them elsewhere, too, and no magic number."""
    if _holds_voxels(header):
        return _check_voxels(stream, header, int(header.sizeof_hdr))
    with _unpacked(path.with_suffix(".img")) as voxels:
        return _check_voxels(voxels, header)


def _holds_voxels(header: Nifti1Header) -> bool:
    return bytes(header["magic"].item()).startswith(b"n+")


def _check_others(path: Path, stream: BinaryIO, head: bytes) -> tuple[int, int]:
    """Refuse others that are cut or damaged; return bytes of voxels that a text header states, and how many follow."""
    if path.name.lower().endswith((".nii", ".nii.gz")) and len(head) < Nifti1Header.sizeof_hdr:
        raise EOFError("it ends within its header")
    if head[:_GIPL_HEADER].endswith(_GIPL_MAGIC):
        *dim, kind = struct.unpack_from(">5H", head)
        stream.seek(_GIPL_HEADER + math.prod(max(n, 1) for n in dim) * _GIPL_BYTES.get(kind, 0) - 1)
        if not stream.read(1):
            raise EOFError("bytes of voxels are missing")
    if (found := voxels_of(head)) is None:
        return 0, 0
    file, begin, n_bytes, n_packed = found
    with (path.parent / file).open("rb") if file else contextlib.nullcontext(stream) as voxels:
        voxels.seek(begin)
        if n_packed is None:  # too few are seen by the reader
            return n_bytes, max(0, _bytes_left(voxels) - n_bytes)
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # of zlib or gzip; a wrong checksum ITK tells nobody
        n_unpacked = len(inflate.decompress(voxels.read(n_packed)))
    if not inflate.eof or n_unpacked < n_bytes:
        raise EOFError("bytes of its compressed voxels are missing")
    return n_bytes, n_unpacked - n_bytes


def _check_voxels(stream: BinaryIO, header: Nifti1Header, begin: int = 0) -> tuple[bool, int, int]:
    """Go through the voxels, no earlier than ``begin``: whether all are finite, their bytes, and how many follow."""
    kind = header.get_data_dtype()
    missing = n_bytes = math.prod(_shape_of(header)) * kind.itemsize
    stream.seek(max(int(header["vox_offset"]), begin))
    finite = True
    while missing > 0:
        wanted = min(_CHUNK, missing)  # whole numbers, as the sizes of those that may be NaN are powers of two
        chunk = stream.read(wanted)
        if len(chunk) < wanted:
            raise EOFError(f"{missing - len(chunk)} bytes of voxels are missing")
        if finite and kind.kind in "fc":
            finite = bool(np.isfinite(np.frombuffer(chunk, kind)).all())
        missing -= wanted
    return finite, n_bytes, _bytes_left(stream)


def _check_length(n_bytes: int, n_more: int) -> list[str]:
    """Refuse a header after whose voxels as many bytes follow again, or a multiple; note where it is no padding."""
    if n_bytes and n_more and n_more % n_bytes == 0:
        what = f"holds {n_more // n_bytes + 1} times as many bytes of voxels as its header says"
        raise HeaderError(what, "write it anew from its source, with the right type and number of voxels")
    note = f"holds {n_more} bytes behind its voxels, so its header may state another type or size"
    return [note] * (n_more > _PADDING * n_bytes)


def _shape_of(header: Nifti1Header) -> list[int]:
    """Voxels along each axis (x, y, z, ...); an axis of none counts as one, as for other programs."""
    return [max(n, 1) for n in header.get_data_shape()]


def differences(one: Image, other: Image, limits: Mapping[str, float] = {}) -> list[str]:
    """Say in which ways one image lies elsewhere than the other, which was read by the same reader.

    Args:
        one: An image.
        other: Another one.
        limits: By how much some of the reader's numbers may differ, such as :data:`ROUNDED`, else by
            :data:`TOLERANCE`.

    Example:
        >>> here = Image(Path("a"), np.zeros((1, 2, 2, 2)), {"spacing": [1, 1, 1]})
        >>> there = Image(Path("b"), np.zeros((1, 2, 2, 2)), {"spacing": [1, 1, 3]})
        >>> differences(here, there)
        ['spacing (by 2)']
    """
    found = []
    if one.voxels.shape[1:] != other.voxels.shape[1:]:
        sizes = " and ".join("x".join(map(str, image.voxels.shape[1:])) for image in (one, other))
        found.append(f"shape ({sizes} voxels)")
    return found + place_differences(one.properties, other.properties, limits)


def place_differences(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    limits: Mapping[str, float] = {},
) -> list[str]:
    """Say in which of a reader's numbers two images differ by more than rounding."""
    here, there, found = _numbers(one), _numbers(other), []
    for numbers, others in ((here, there), (there, here)):
        if "sform" in numbers and "sform" not in others:  # only where they disagree, see read_image
            del numbers["qform"], numbers["sform"]
            found.append("place (qform and sform of one of them differ)")
    for what in here | there:
        if what not in here or what not in there or here[what].shape != there[what].shape:
            found.append(what)
        elif not (distance := np.abs(here[what] - there[what]).max(initial=0)) <= limits.get(what, TOLERANCE):
            found.append(f"{what} (by {distance:.4g})")
    return found


def _numbers(properties: Mapping[str, Any]) -> dict[str, NDArray[np.floating]]:
    """Every array of numbers that a reader keeps, by name."""
    numbers: dict[str, NDArray[np.floating]] = {}
    for name, value in properties.items():
        if isinstance(value, dict):
            numbers |= _numbers(value)
        elif isinstance(value, (tuple, list, np.ndarray)):
            numbers["affine matrix" if "affine" in name else name] = np.asarray(value)
    return numbers


def is_constant(voxels: NDArray[Any]) -> bool:
    """Tell whether all voxels are alike: a placeholder, which counts as absent everywhere.

    So is an image of 0 in the head and one negative value around it.
    """
    low, high = voxels.min(), voxels.max()
    return bool(low == high or (high == 0 and ((voxels == low) | (voxels == high)).all()))


def digest(voxels: NDArray[Any]) -> str:
    """Return what tells an image's voxels from others, as 32-bit floats, whatever type and file they came in."""
    return hashlib.blake2b(np.ascontiguousarray(voxels, np.float32).tobytes(), digest_size=16).hexdigest()


def label_counts(path: Path | str, voxels: NDArray[Any]) -> dict[int, int]:
    """Count the voxels of each label value, sorted by value.

    Args:
        path: Where they come from.
        voxels: Any shape and type.

    Raises:
        ImageError: A value that is no whole number.
    """
    values, counts = _unique(voxels)
    if values.dtype.kind in "fc":
        whole = np.rint(values)
        with np.errstate(invalid="ignore"):  # of infinity
            broken = values[~(np.abs(values - whole) <= TOLERANCE)]
        if len(broken):
            what = f"holds label values that are no whole numbers, such as {broken[0]:g}"
            remedy = "export it again, resampled with nearest neighbors if at all; or is it no mask?"
            raise ImageError(path, "labels", what, remedy)
        values = np.real(whole)
    totals: dict[int, int] = {}
    for value, n in zip(map(int, values.tolist()), counts.tolist(), strict=True):
        totals[value] = totals.get(value, 0) + n
    return totals


def _unique(voxels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.integer]]:
    """Values and how often each occurs; small whole ones are counted in one pass, as labels nearly always are."""
    if voxels.size and voxels.dtype.kind in "buif" and voxels.min() >= 0 and voxels.max() < _MOST_VALUES:
        whole = voxels.ravel().astype(np.intp, copy=False)
        if voxels.dtype.kind != "f" or np.array_equal(whole, voxels.ravel()):
            counts = np.bincount(whole)
            values = np.flatnonzero(counts)
            return values, counts[values]
    return np.unique(voxels, return_counts=True)


def write_sitk(image: sitk.Image, path: Path, place_of: Path | None = None) -> None:
    """Write an image compressed, whole or not at all.

    Args:
        image: The image.
        path: Where to.
        place_of: A NIfTI file of the same grid; if its header is odd, what it says about the place is kept as it is,
            for SimpleITK would write what it has made of it, and other programs read the file otherwise.

    Raises:
        UserError: It cannot be written.
    """
    check_name(path)
    with written_whole(path) as unfinished:
        sitk.WriteImage(image, str(unfinished), useCompression=True)
        check_written(unfinished)
        if place_of is not None:
            keep_place(place_of, unfinished)


def keep_place(source: Path, target: Path) -> None:
    """Let a written NIfTI file say the same about its place as another one of its grid whose header is odd.

    Args:
        source: The other one; of another format, nothing is changed.
        target: The file.
    """
    with _unpacked(source) as stream:
        theirs = _nifti_header(stream.read(_LONGEST_HEADER))
    if theirs is None or not check_header(theirs):
        return
    with _unpacked(target) as stream:
        content = stream.read()
    ours = Nifti1Header(content[: Nifti1Header.sizeof_hdr])
    for name in ours.keys():  # noqa: SIM118  # it is no dictionary
        if name.startswith(("qform", "sform", "quatern", "qoffset", "srow")):
            ours[name] = theirs[name]
    ours["pixdim"][:4], ours["xyzt_units"] = theirs["pixdim"][:4], theirs["xyzt_units"]
    content = ours.binaryblock + content[len(ours.binaryblock) :]
    target.write_bytes(gzip.compress(content, mtime=0) if target.suffix == ".gz" else content)


def check_written(path: Path) -> None:
    """Read back what was written: on a full disk ITK cuts NIfTI files short and says nothing.

    Raises:
        OSError: It was cut short.
    """
    try:
        check_whole(path)
    except EOFError as error:
        raise OSError(errno.EIO, "the file was cut short, is the disk full?") from error
