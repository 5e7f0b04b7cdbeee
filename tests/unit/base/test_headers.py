"""What NIfTI headers say: exact words for what is odd, and refusals of what leaves the place unknown."""

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header

from nnunetv2_d2net.base.headers import HeaderError, check_header, second_place, shear_of, tells_sides

SIZES = (1.0, 2.0, 3.0)


def header(*, shape=(4, 5, 6), sizes=SIZES, qform=None, sform=None, unit=2, kind=Nifti1Header, **fields):
    """A header of a volume (x, y, z), with the matrices that are given; written as it is, whatever it says."""
    made = kind()
    made.set_data_shape(shape)
    for number, (name, form) in enumerate((("qform", qform), ("sform", sform)), start=1):
        if form is not None:
            getattr(made, f"set_{name}")(form, code=number)
    made["pixdim"][1:4], made["xyzt_units"] = sizes, unit + 8  # of times: seconds
    for name, value in ({"vox_offset": made.single_vox_offset if made.is_single else 0} | fields).items():
        made[name] = value
    return made


def place(*edges, **shifts):
    """A matrix (4, 4) of these voxel sizes; ``x=3`` moves it by 3 mm along x."""
    matrix = np.diag([*edges, 1.0])
    for axis, shift in shifts.items():
        matrix["xyz".index(axis), 3] = shift
    return matrix


def refusal(**said):
    with pytest.raises(HeaderError) as error:
        check_header(header(**said))
    assert str(error.value) == error.value.reason
    return f"{error.value.reason}: {error.value.remedy}"


class TestNotes:
    @pytest.mark.parametrize("forms", [{"qform"}, {"sform"}, {"qform", "sform"}])
    def test_a_clear_header_has_none(self, forms):
        assert check_header(header(**dict.fromkeys(forms, place(*SIZES, y=7)))) == []

    def test_neither_matrix(self):
        assert check_header(header()) == [
            "has neither qform nor sform: where left, right, front and back are is not known"
        ]
        assert check_header(header(shape=(4, 5))) == check_header(header(shape=(4, 5, 1))) == []  # as of any picture

    def test_matrices_that_disagree_differ_by_where_they_put_the_farthest_corner(self):
        turned = np.array([[0, -2.0, 0, 0], [1, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
        # the corner (3, 4, z) lies at (3, 8) by the one and at (-8, 3) by the other
        notes = check_header(header(qform=place(*SIZES), sform=turned))
        assert notes == [f"has a qform and an sform that differ by {np.hypot(11, 5):.3g} mm"]
        # and here the corner that both share is the last one, and the first one is the farthest
        mirrored = place(-1, 2, 3, x=3)
        assert check_header(header(qform=place(*SIZES), sform=mirrored)) == [
            "has a qform and an sform that differ by 3 mm"
        ]

    def test_an_axis_of_one_voxel_has_no_other_end(self):
        other = place(*SIZES)
        other[:, 2] = 0, 0.6, 0.8, 0
        assert check_header(header(shape=(4, 5, 1), qform=place(*SIZES), sform=other)) == []
        empty = header(shape=(4, 5), qform=place(*SIZES), sform=other)
        empty["dim"][3] = 0
        assert check_header(empty) == []

    @pytest.mark.parametrize(("shift", "n_notes"), [(0.0099, 0), (0.0101, 1)])
    def test_rounding_is_no_disagreement(self, shift, n_notes):
        assert len(check_header(header(qform=place(*SIZES), sform=place(*SIZES, x=shift)))) == n_notes

    def test_voxel_sizes_beside_an_sform(self):
        wide = "has voxels of 1 x 2 x 3 mm by pixdim, which is read, and 1 x 2 x 3.04 mm by its sform"
        assert check_header(header(sform=place(1, 2, 3.04))) == [wide]
        assert check_header(header(sform=place(1, 2, 3.02))) == []  # less than a percent
        assert check_header(header(sform=place(1.0199, 2, 3.02))) != []
        assert check_header(header(shape=(4, 5, 1), sform=place(1, 2, 9))) == []
        # a qform takes the sizes of pixdim, whatever they are
        (note,) = check_header(header(qform=place(*SIZES), sform=place(1, 2, 3.04)))
        assert note == "has a qform and an sform that differ by 0.2 mm"

    @pytest.mark.parametrize(
        ("sizes", "words"),
        [
            ((0.05, 20, 1), None),
            ((1, 1, 20.5), "1 x 1 x 20.5"),
            ((0.04, 1, 1), "0.04 x 1 x 1"),
            ((1, 1, 1234.56789), "1 x 1 x 1234.57"),
            ((1, 0.00123456, 1), "1 x 0.0012 x 1"),
        ],
    )
    def test_voxels_that_no_patient_has(self, sizes, words):
        sizes = np.float32(sizes)
        sizes[0] = np.nextafter(sizes[0], np.float32(1))  # 0.05 as it is stored may lie below
        expected = [f"has voxels of {words} mm, as no patient's image has"] if words else []
        assert check_header(header(sizes=sizes, sform=place(*sizes))) == expected
        assert check_header(header(shape=(4, 5), sizes=sizes, sform=place(*sizes))) == []

    def test_the_size_is_that_of_the_matrix(self):
        sizes = np.array([1, 2, 21.0])
        assert check_header(header(sform=place(*sizes))) == [
            "has voxels of 1 x 2 x 3 mm by pixdim, which is read, and 1 x 2 x 21 mm by its sform",
            "has voxels of 1 x 2 x 21 mm, as no patient's image has",
        ]

    def test_an_edge_is_that_of_an_axis_of_the_voxels(self):
        turned = np.array([[0, 30.0, 0, 0], [1, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
        assert check_header(header(sizes=(1, 30, 3), sform=turned)) == [
            "has voxels of 1 x 30 x 3 mm, as no patient's image has"
        ]

    def test_oblique_images_are_as_good_as_any(self):
        turned = np.array([[0.8, -1.2, 0, 5], [0.6, 1.6, 0, 6], [0, 0, -3, 7], [0, 0, 0, 1]])
        for forms in ({"qform": turned}, {"sform": turned}, {"qform": turned, "sform": turned}):
            assert check_header(header(**forms)) == []


class TestUnits:
    @pytest.mark.parametrize(
        ("unit", "sizes", "told"),
        [(1, (0.001, 0.002, 0.003), None), (3, (1000, 2000, 3000), None), (0, SIZES, None), (2, SIZES, None)],
    )
    def test_sizes_that_fit_their_unit(self, unit, sizes, told):
        assert check_header(header(sizes=sizes, qform=place(*sizes), unit=unit)) == []

    @pytest.mark.parametrize(
        ("unit", "words"),
        [
            (1, "has voxels of 1000 x 2000 x 3000 mm, because its unit is the meter"),
            (3, "has voxels of 0.001 x 0.002 x 0.003 mm, because its unit is the micrometer"),
        ],
    )
    def test_sizes_in_millimeters_whatever_the_unit_says(self, unit, words):
        assert refusal(qform=place(*SIZES), unit=unit) == f"{words}: set its unit to millimeters (xyzt_units 2)"


class TestEncoding:
    @pytest.mark.parametrize(
        ("slope", "inter"), [(0, 0), (np.nan, 0), (0, np.nan), (np.inf, 0), (1, 0), (2, -3), (-np.inf, np.nan)]
    )
    def test_scales_that_all_programs_read_alike(self, slope, inter):
        assert check_header(header(qform=place(*SIZES), scl_slope=slope, scl_inter=inter)) == []

    @pytest.mark.parametrize(
        ("slope", "inter"), [(0, 5), (np.nan, 5), (np.inf, 1), (2, np.nan), (1, -np.inf), (0, np.inf)]
    )
    def test_scales_that_they_do_not(self, slope, inter):
        assert refusal(qform=place(*SIZES), scl_slope=slope, scl_inter=inter) == (
            f"has an scl_slope of {slope:g} and an scl_inter of {inter:g}, of which programs make different voxels: "
            "write it anew from its source"
        )

    @pytest.mark.parametrize(("kind", "first"), [(Nifti1Header, 352), (Nifti2Header, 544)])
    def test_voxels_begin_behind_the_header(self, kind, first):
        clear = {"kind": kind, "qform": place(*SIZES)}
        assert check_header(header(**clear, vox_offset=first)) == check_header(header(**clear, vox_offset=1000)) == []
        for within in (first - 1, 0):
            assert refusal(**clear, vox_offset=within) == (
                f"says that its voxels begin at byte {within}, within its header, of which programs make different "
                "voxels: write it anew from its source"
            )
        assert "begin at byte nan, within" in refusal(qform=place(*SIZES), vox_offset=np.nan)
        assert check_header(header(kind=Nifti1PairHeader, qform=place(*SIZES))) == []  # in a file of their own


class TestPlaceThatIsLost:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_of_a_matrix(self, value):
        sform = place(*SIZES)
        sform[1, 3] = value
        lost = "that holds NaN or infinity, so its place is lost: write it anew"
        assert refusal(sform=sform) == refusal(qform=place(*SIZES), sform=sform) == f"has a sform {lost}"
        assert refusal(qform=place(*SIZES), qoffset_z=value) == f"has a qform {lost}"

    @pytest.mark.parametrize(("edge", "word"), [(0, "0"), (np.nan, "nan"), (np.inf, "inf")])
    def test_sizes(self, edge, word):
        remedy = "so its spacing is lost: write the right spacing into its header"
        assert refusal(sizes=(1, edge, 3)) == f"has voxels of 1 x {word} x 3 mm and neither qform nor sform, {remedy}"
        assert "so its spacing is lost" in refusal(shape=(2, 5, 6), sizes=(edge, 2, 3))
        assert "so its spacing is lost" in refusal(shape=(2, 5, 6), sizes=(1, 2, edge))
        if edge == 0:
            (note,) = check_header(header(sizes=(0, 2, 3), sform=place(*SIZES)))
            assert note.startswith("has voxels of 0 x 2 x 3 mm by pixdim, which is read, and 1 x 2 x 3 mm by its")
            assert refusal(sform=place(1, 0, 3)) == f"has voxels of 1 x 0 x 3 mm, {remedy}"
        assert check_header(header(shape=(4, 5), sizes=(1, 2, edge))) == []

    def test_negative_sizes(self):
        told = (
            "has negative voxel sizes (1 x -2 x 3 mm), for which some programs mirror the image: write it anew with "
            "nibabel, which takes them as positive (nibabel.load(...).to_filename(...))"
        )
        for forms in ({}, {"sform": place(*SIZES)}, {"qform": place(*SIZES)}):
            assert refusal(sizes=(1, -2, 3), **forms) == told
        assert check_header(header(shape=(4, 5, 1), sizes=(1, 2, -3), sform=place(*SIZES))) == []
        assert check_header(header(shape=(4, 5, 1), sizes=(1, 2, -3), qform=place(*SIZES))) == []


class TestMatrices:
    def test_whether_it_tells_the_sides(self):
        assert not tells_sides(header())
        assert tells_sides(header(qform=place(*SIZES)))
        assert tells_sides(header(sform=place(*SIZES)))

    def test_those_that_disagree_are_both_given(self):
        one, other = place(*SIZES), place(*SIZES, x=5)
        found = second_place(header(qform=one, sform=other))
        assert list(found) == ["qform", "sform"]
        np.testing.assert_allclose(found["qform"], one, atol=1e-6)
        np.testing.assert_allclose(found["sform"], other, atol=1e-6)
        for forms in ({}, {"qform": one}, {"sform": one}, {"qform": one, "sform": one}):
            assert second_place(header(**forms)) == {}
        assert second_place(header(qform=one, sform=place(*SIZES, x=0.0099))) == {}

    @pytest.mark.parametrize(("first", "side"), [(1, 1), (0, 1), (-1, -1)])
    def test_a_qform_is_mirrored_where_its_first_size_is_negative(self, first, side):
        """Files of older programs have 0 there."""
        made = header(qform=place(*SIZES), sform=place(1, 2, -3, z=40))
        made["pixdim"][0] = first
        np.testing.assert_allclose(second_place(made)["qform"], place(1, 2, 3 * side), atol=1e-6)

    def test_shear_is_in_degrees(self):
        def slanted(degrees, axis, sizes=SIZES):
            matrix = place(*sizes)
            matrix[axis - 1, axis] = matrix[axis, axis] * np.tan(np.deg2rad(degrees))
            return matrix

        assert shear_of(header()) == 0
        assert shear_of(header(qform=place(*SIZES), sform=place(*SIZES))) == pytest.approx(0, abs=1e-4)
        assert shear_of(header(sform=slanted(7, 1))) == pytest.approx(7, abs=1e-4)
        assert shear_of(header(sform=slanted(7, 1, (0.3, 0.4, 0.5)))) == pytest.approx(7, abs=1e-4)
        assert shear_of(header(sform=slanted(-12, 2))) == pytest.approx(12, abs=1e-4)
        assert shear_of(header(qform=place(*SIZES), sform=slanted(7, 1))) == pytest.approx(7, abs=1e-4)

    def test_axes_that_are_one_miss_all_of_a_right_angle(self):
        assert shear_of(header(sform=np.ones((4, 4)))) == 90
        assert shear_of(header(sform=place(1, 0, 3))) == 90
