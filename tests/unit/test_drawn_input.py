"""Input that nobody thought of is drawn: headers, JSON, names, orders; it is taken as it is or refused in one line.

``D2NET_EXAMPLES=2000`` draws more, and other ones each time.
"""

import gzip
import json
import math
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header

from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json, read_json_value
from nnunetv2_d2net.base.images import ImageError, label_counts, read_image, read_sitk
from nnunetv2_d2net.data.convert.mapping import read_mapping
from nnunetv2_d2net.data.convert.record import read_record
from nnunetv2_d2net.plugin.planning.plans import read_plans
from nnunetv2_d2net.plugin.training.splits import check_fold
from nnunetv2_d2net.study.scores.comparison import mean_interval, permutation_p
from tests.unit.conftest import whole_plans

EXAMPLES = int(os.environ.get("D2NET_EXAMPLES", "0"))
drawn = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def assert_is_one_line(error, path):
    """What is refused is told in one line, which names the file."""
    assert str(path) in str(error)
    assert "\n" not in str(error)


# --- headers

KINDS = {2: np.uint8, 4: np.int16, 8: np.int32, 16: np.float32, 64: np.float64, 256: np.int8, 512: np.uint16}
KINDS |= {768: np.uint32, 1024: np.int64, 1280: np.uint64}
HEADER_SIZE, VOXELS_AT = 348, 352
odd_numbers = st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf, 1e-30, 1e30])


def mostly(usual, odd):
    """Draw something usual nine times in ten, so that not every file has everything wrong."""
    return st.integers(0, 9).flatmap(lambda n: odd if n == 0 else usual)


@st.composite
def headers(draw):
    """Fields of a NIfTI header, most of them in order."""
    n_axes = draw(mostly(st.sampled_from([3, 3, 3, 2, 4]), st.integers(-1, 9)))
    sizes = draw(st.lists(st.integers(1, 5), min_size=3, max_size=3)) + [1] * 4
    if n_axes == 4:
        sizes[3] = draw(st.integers(1, 3))
    if n_axes == 2:
        sizes[2] = 1
    edges = draw(st.lists(mostly(st.sampled_from([0.5, 1.0, 3.0]), odd_numbers), min_size=3, max_size=3))
    kind = draw(mostly(st.sampled_from(list(KINDS)), st.sampled_from([0, 1, 32, 128, 1536, 1792, 2304, 77])))
    bits = np.dtype(KINDS[kind]).itemsize * 8 if kind in KINDS else 16
    turns = draw(st.sampled_from([(0, 0, 0), (0, 0, 1), (1, 0, 0), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3), (0.9, 0.9, 0.9)]))
    shift = draw(st.lists(st.sampled_from([0.0, -12.5, 80.0]), min_size=3, max_size=3))
    return {
        "dim": [n_axes, *sizes],
        "datatype": kind,
        "bitpix": draw(mostly(st.just(bits), st.sampled_from([0, 8, 16, 64]))),
        "pixdim": [draw(mostly(st.sampled_from([1, -1]), st.sampled_from([0, math.nan]))), *edges, 1, 0, 0, 0],
        "qform_code": draw(mostly(st.sampled_from([0, 1, 2]), st.sampled_from([-3, 4, 9]))),
        "sform_code": draw(mostly(st.sampled_from([0, 1, 2]), st.sampled_from([-3, 4, 9]))),
        **dict(zip(("quatern_b", "quatern_c", "quatern_d"), turns, strict=True)),
        **dict(zip(("qoffset_x", "qoffset_y", "qoffset_z"), shift, strict=True)),
        "rows": draw(st.sampled_from(["same", "same", "moved", "sheared", "scaled", "zero", "nan"])),
        "scl_slope": draw(mostly(st.sampled_from([0.0, 1.0, 2.5]), odd_numbers)),
        "scl_inter": draw(mostly(st.sampled_from([0.0, 3.0]), odd_numbers)),
        "xyzt_units": draw(mostly(st.sampled_from([2, 10]), st.sampled_from([0, 1, 3, 7]))),
        "vox_offset": draw(mostly(st.just(VOXELS_AT), st.sampled_from([0, -16, 100, 368, 1e6]))),
        "magic": draw(mostly(st.just(b"n+1"), st.sampled_from([b"ni1", b"n+2", b"xyz"]))),
    }


def bytes_of(fields, endianness, seed):
    """Write a header and voxels; return them as they are in the file, and the voxels as they should be read."""
    header = Nifti1Header(endianness=endianness)
    for name, value in fields.items():
        if name != "rows":
            header[name] = value
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        header_of_forms(header, fields["rows"])
    shape = fields["dim"][1:5]
    kind = np.dtype(KINDS.get(fields["datatype"], np.int16)).newbyteorder(endianness)
    voxels = np.random.default_rng(seed).integers(0, 100, shape).astype(kind)
    begin = int(fields["vox_offset"]) if 352 <= fields["vox_offset"] < 1000 else VOXELS_AT
    content = header.binaryblock.ljust(begin, b"\0") + voxels.tobytes(order="F")
    slope, inter = fields["scl_slope"], fields["scl_inter"]
    expected = voxels.astype(float)
    if math.isfinite(slope) and slope != 0:
        expected = expected * np.float32(slope) + np.float32(inter)
    return header, content, expected.T.ravel()


def header_of_forms(header, rows):
    """Let the sform be the qform, or something else."""
    edges = np.abs(header["pixdim"][1:4])
    quaternion = np.array([header[f"quatern_{letter}"] for letter in "bcd"], float)
    rotation = np.eye(3)
    if (quaternion**2).sum() <= 1:
        copy = header.copy()
        copy["pixdim"][1:4], copy["pixdim"][0] = 1, -1 if header["pixdim"][0] < 0 else 1
        rotation = copy.get_qform()[:3, :3]
    matrix = np.column_stack([rotation * edges, [header[f"qoffset_{axis}"] for axis in "xyz"]])
    change = {"moved": lambda m: m + [[0, 0, 0, 12]] * 3, "scaled": lambda m: m * [2, 2, 2, 1]}
    change |= {"sheared": lambda m: m + [[0, 0.4, 0, 0]] * 3, "zero": lambda m: m * 0, "nan": lambda m: m * math.nan}
    matrix = change.get(rows, lambda m: m)(matrix)
    for axis, row in zip("xyz", matrix, strict=True):
        header[f"srow_{axis}"] = row


def place_of(properties):
    """The matrix (4, 4) of an image of three axes, in NIfTI's directions."""
    n = len(properties["spacing"])
    direction = np.array(properties["direction"]).reshape(n, n)[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([-1, -1, 1]) @ direction @ np.diag(properties["spacing"][:3])
    matrix[:3, 3] = np.array(properties["origin"][:3]) * (-1, -1, 1)
    return matrix


def corners_of(sizes):
    """Indices of an image's corners, ``(4, n)``."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in sizes), indexing="ij")).reshape(3, -1)
    return np.vstack([corners, np.ones(corners.shape[1])])


def declared_forms(header):
    """The matrices that the header declares."""
    forms = []
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])  # of an axis of one voxel it may be anything
    if header["qform_code"] > 0:
        header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
        forms.append(header.get_qform())
    if header["sform_code"] > 0:
        forms.append(header.get_sform())
    return forms


@drawn
@given(headers(), st.sampled_from("<>"), st.integers(0, 9), st.sampled_from([".nii", ".nii.gz", ".nii.gz"]), st.data())
def test_a_header_is_read_as_it_says_or_refused(fields, endianness, seed, ending, data):
    header, content, expected = bytes_of(fields, endianness, seed)
    cut = data.draw(mostly(st.none(), st.integers(0, len(content) - 1)), "cut")
    content = content if cut is None else content[:cut]
    packed = data.draw(mostly(st.just(ending == ".nii.gz"), st.booleans()), "packed")
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"image{ending}"
        path.write_bytes(gzip.compress(content, 1) if packed else content)
        try:
            image = read_image(path)
            again = read_sitk(path)
        except ImageError as error:
            assert_is_one_line(error, path)
            return
        assert cut is None
        if fields["datatype"] not in KINDS:
            return  # such as complex numbers; the readers know more kinds than this test
        found = image.voxels.astype(float)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.ravel(), expected[: found.size], rtol=1e-5, atol=1e-30)
        assert again.GetSpacing() == image.properties["spacing"]
        if image.notes or len(image.properties["spacing"]) < 3:
            return  # what is odd is told
        corners = corners_of(fields["dim"][1:4])
        for form in declared_forms(header):
            np.testing.assert_allclose(place_of(image.properties) @ corners, form @ corners, atol=0.02)


@drawn
@given(st.binary(max_size=600), st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha", ".gipl", ".png", ".tif"]))
def test_bytes_that_are_no_image_are_refused(content, ending):
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"image{ending}"
        path.write_bytes(content)
        with pytest.raises(ImageError):
            read_image(path)


@drawn
@given(st.lists(st.floats(width=64), min_size=1, max_size=6))
def test_labels_are_whole_numbers_or_refused(values):
    try:
        counts = label_counts("file", np.array(values))
    except ImageError:
        assert any(abs(v - round(v)) > 1e-3 for v in values if math.isfinite(v)) or not all(map(math.isfinite, values))
        return
    assert sum(counts.values()) == len(values)
    assert set(counts) == {round(v) for v in values}


# --- JSON

keys = st.sampled_from(["0", "1", "T1", "background", "label", "train", "val", "ä", "", "\ud83e\udde0", "_"])
scalars = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=True) | st.text(max_size=5)
values = st.recursive(
    scalars | st.sampled_from(["0", "1.5", "T1", [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw, original):
    """A JSON value in which up to three places hold something else, or are missing, or hold more."""
    content = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        content = _changed_once(draw, content)
    return content


def _changed_once(draw, content, depth=0):
    if isinstance(content, (dict, list)) and content and draw(st.integers(0, 3 + depth)) > depth:
        places = list(content) if isinstance(content, dict) else list(range(len(content)))
        place = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["inside", "inside", "inside", "missing", "added"]))
        if what == "missing":
            del content[place]
        elif what == "inside":
            content[place] = _changed_once(draw, content[place], depth + 1)
        elif isinstance(content, dict):
            content[draw(keys)] = draw(values)
        else:
            content.insert(place, draw(values))
        return content
    return draw(values)


def used_or_refused(use, content):
    """Use a file of this content; what it raises is one line that names the file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        try:
            return use(path)
        except UserError as error:
            assert_is_one_line(error, path)
    return None


DATASET = {
    "channel_names": {"0": "FLAIR", "1": "T1", "2": "T2"},
    "labels": {"background": 0, "whole tumor": [1, 2], "core": 1, "ignore": 3},
    "regions_class_order": [2, 1],
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
LISTED = DATASET | {"dataset": {"a": {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}}}


def use_dataset(path):
    dataset = Dataset.read(path)
    assert all(isinstance(value, int) for value in dataset.known_values)
    assert all(isinstance(channel, str) for channel in dataset.channels)
    dataset.available()
    dataset.training_cases(path.parent)
    dataset.assign_channels([f"a_{c:04d}{dataset.file_ending}" for c in range(len(dataset.channels))])
    assert dataset.complete or dataset.channels
    return dataset


@drawn
@given(changed(DATASET) | changed(LISTED))
def test_dataset_json(content):
    used_or_refused(use_dataset, content)


@drawn
@given(changed(whole_plans({"3d_fullres": {}, "3d_lowres": {"inherits_from": "3d_fullres"}})))
def test_plans_json(content):
    used_or_refused(read_plans, content)


@drawn
@given(changed([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]), st.sampled_from("01"))
def test_splits(content, fold):
    used_or_refused(lambda path: check_fold(path, fold, ["a", "b", "c"]), content)


@drawn
@given(changed({"format": 1, "cases": {"a": {"label": None, "voxels": {"0": 3}}}}))
def test_a_record_of_a_conversion(content):
    used_or_refused(read_record, content)


MAPPING = {
    "modalities": {"FLAIR": "{case}/{case}_flair.nii.gz", "T1": ["{case}/t1_{case}.nii"]},
    "label": "{case}/{case}_seg.nii.gz",
    "labels": {0: "background", 1: "edema", 4: "core"},
    "regions": {"whole": ["edema", "core"], "core": ["core"]},
}


@drawn
@given(changed(MAPPING) | st.text(max_size=40))
def test_a_mapping_file(content):
    def use(path):
        if not isinstance(content, str):
            labels = content.get("labels") if isinstance(content, dict) else None
            if isinstance(labels, dict):
                content["labels"] = {int(k) if k.isdecimal() and len(k) < 5 else k: v for k, v in labels.items()}
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return read_mapping(path)

    used_or_refused(use, None)


@drawn
@given(st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode()))
def test_bytes_read_as_json(content):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_bytes(content)
        for read in (read_json, read_json_value):
            try:
                read(path, "write it anew")
            except UserError as error:
                assert_is_one_line(error, path)


# --- names and orders

ENDINGS = (".nii.gz", ".nrrd", ".png")
case_names = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), min_size=1, max_size=12)
case_names |= st.sampled_from(
    ["sub_0000", "2021", "P-1_2023", "a_00001", "Ünal", "x.nii", "BraTS_0003_T1", "case_0000_0001"]
)


@drawn
@given(
    st.dictionaries(case_names, st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=3),
    st.sampled_from(ENDINGS),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_names_are_split_as_they_were_made(cases, ending, upper, random):
    assume(not any(name.startswith(".") for name in cases))
    dataset = Dataset.of(DATASET | {"channel_names": {str(c): f"m{c}" for c in range(4)}, "file_ending": ending})
    written = ending.upper() if upper else ending
    with TemporaryDirectory() as folder:
        files = [(f"{case}_{channel:04d}{written}", case) for case, channels in cases.items() for channel in channels]
        random.shuffle(files)
        for name, _ in files:
            (Path(folder) / name).touch()
        try:
            found = dataset.find_cases(Path(folder))
        except UserError as error:
            pytest.fail(str(error))
        assert not found.problems
        assert {case: dataset.assign_channels(names) for case, names in found.files.items()} == {
            case: sorted(channels) for case, channels in cases.items()
        }


@drawn
@given(st.permutations(range(12)), st.integers(1, 12), st.booleans())
def test_the_order_of_channel_names_does_not_matter(order, n, as_modality):
    names = {str(c): f"m{c}" for c in order if c < n}
    content = {key: value for key, value in DATASET.items() if key != "channel_names"}
    dataset = Dataset.of(content | {"modality" if as_modality else "channel_names": names})
    assert dataset.channels == tuple(f"m{c}" for c in range(n))


@drawn
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), st.sampled_from(ENDINGS))
def test_files_in_any_order_are_the_same_channels(channels, ending):
    dataset = Dataset.of(DATASET | {"channel_names": {str(c): f"m{c}" for c in range(4)}, "file_ending": ending})
    assert dataset.assign_channels([f"in/a_{c:04d}{ending}" for c in channels]) == channels


# --- statistics

differences_of_cases = st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=1, max_size=14)


@drawn
@given(differences_of_cases, st.randoms(use_true_random=False))
def test_swapped_arms_have_the_same_p_and_the_mirrored_interval(numbers, random):
    ours = np.array(numbers)
    p = permutation_p(ours)
    assert 0 < p <= 1
    assert permutation_p(-ours) == pytest.approx(p)
    shuffled = numbers.copy()
    random.shuffle(shuffled)
    assert permutation_p(np.array(shuffled)) == pytest.approx(p)
    assert permutation_p(np.append(ours, 0)) == pytest.approx(p)  # a case in which both are alike says nothing
    low, high = mean_interval(ours, resamples=99)
    if len(numbers) == 1:
        assert math.isnan(low)
        return
    assert low <= ours.mean() + 1e-9
    assert high >= ours.mean() - 1e-9
    assert mean_interval(-ours, resamples=99) == pytest.approx((-high, -low), abs=1e-9)
