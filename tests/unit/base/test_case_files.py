import re

import pytest

from nnunetv2_d2net.base.case_files import assign_channels, find_cases
from nnunetv2_d2net.base.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def found(folder, ending=".nii.gz", n_modalities=4):
    """Cases with the channels they have, and problems."""
    files, problems = find_cases(folder, ending, n_modalities)
    channels = {case: [int(re.search(r"(\d{4})\.", file)[1]) for file in paths] for case, paths in files.items()}
    return channels, problems


def only_problem(folder, case, *parts, ending=".nii.gz"):
    """The one problem of a folder: one line that names case and file, and holds these parts."""
    files, problems = find_cases(folder, ending, 4)
    assert files == {}
    assert list(problems) == [case]
    line = problems[case]
    assert line.isprintable()
    for part in (repr(case), str(folder), *parts):
        assert part in line, line


@pytest.mark.parametrize("channels", [[0, 1, 2, 3], [1, 2, 3], [0, 1, 2], [0, 2, 3], [0, 3], [2], [3]])
def test_any_file_may_be_absent(tmp_path, channels):
    touch(tmp_path, *(f"a_{channel:04d}.nii.gz" for channel in channels))
    assert found(tmp_path) == ({"a": channels}, {})


def test_complete_cases_beside_incomplete_ones(tmp_path):
    touch(tmp_path, *(f"whole_{channel:04d}.nii.gz" for channel in (3, 1, 0, 2)))
    touch(tmp_path, "part_1_0002.nii.gz", "part_1_0001.nii.gz", "notes.txt", "dataset.json")
    assert found(tmp_path) == ({"part_1": [1, 2], "whole": [0, 1, 2, 3]}, {})


def test_files_carry_their_folder(tmp_path):
    touch(tmp_path, "a_0001.nii.gz")
    assert find_cases(tmp_path, ".nii.gz", 2).files == {"a": [str(tmp_path / "a_0001.nii.gz")]}


def test_an_unusable_case_leaves_the_others(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b_0004.nii.gz", "b_0000.nii.gz", "c_0003.nii.gz")
    cases, problems = found(tmp_path)
    assert cases == {"a": [0], "c": [3]}
    assert list(problems) == ["b"]


def test_an_unknown_channel_number(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0004.nii.gz")
    only_problem(tmp_path, "a", "a_0004.nii.gz", "unknown channel number 0004", "0000 to 0003", "rename or remove")


@pytest.mark.parametrize("twin", ["a_0001.nii", "a_0001.nrrd", "a_0001.mha"])
def test_two_files_for_one_modality(tmp_path, twin):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", twin)
    only_problem(tmp_path, "a", "a_0001.nii.gz", twin, "remove one")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    touch(tmp_path, "a_0000.nii.gz")
    (tmp_path / "a_0001.nii.gz").mkdir()
    only_problem(tmp_path, "a", "a_0001.nii.gz is a folder", "put the image there, or remove it")


def test_a_broken_link(tmp_path):
    (tmp_path / "a_0000.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    only_problem(tmp_path, "a", "a_0000.nii.gz is no file (a broken link?)", "remove it")


@pytest.mark.parametrize("name", ["a", "a_1", "a_00001", "a_0000x", "a-0000", "_0000"])
def test_a_name_without_channel_number(tmp_path, name):
    touch(tmp_path, f"{name}.nii.gz")
    only_problem(tmp_path, name, f"{name}.nii.gz has no channel number", "_0000")


def test_a_picture_of_something_else(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "overview.png")
    found = find_cases(tmp_path, ".nii.gz", 2)
    assert list(found.files) == ["a"]
    assert not found.problems


def test_another_ending_only(tmp_path):
    touch(tmp_path, "a_0000.nii", "a_0001.nii")
    only_problem(tmp_path, "a", "a_0000.nii does not end in .nii.gz", "convert it")


def test_the_models_own_ending_may_be_an_unusual_one(tmp_path):
    touch(tmp_path, "a_0000.npy", "a_0001.npy")
    assert found(tmp_path, ending=".npy") == ({"a": [0, 1]}, {})


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "escape\x1b[31m"])
def test_a_name_that_cannot_be_printed(tmp_path, name):
    touch(tmp_path, f"{name}_0000.nii.gz")
    files, problems = find_cases(tmp_path, ".nii.gz", 4)
    assert files == {}
    assert problems[name].isprintable()
    assert repr(name) in problems[name]
    assert "rename it" in problems[name]


@pytest.mark.parametrize(
    "name",
    ["with space", "Müller", "脳", "(1)", "a+b", "-leading", ".hidden", "v1.2.3", "a_0001", "a.nii", "[x]*", "%s"],
)
def test_odd_names_are_fine(tmp_path, name):
    touch(tmp_path, f"{name}_0000.nii.gz", f"{name}_0002.nii.gz")
    files, problems = find_cases(tmp_path, ".nii.gz", 4)
    assert problems == {}
    assert files == {name: [str(tmp_path / f"{name}_{channel:04d}.nii.gz") for channel in (0, 2)]}


def test_a_folder_without_images(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match="holds no image") as error:
        find_cases(tmp_path, ".nii.gz", 4)
    assert str(tmp_path) in str(error.value)
    assert "CASE_0000.nii.gz" in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    touch(tmp_path, "file")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(UserError, match="cannot be read") as error:
            find_cases(path, ".nii.gz", 4)
        assert str(path) in str(error.value)
        assert "pass a folder of images" in str(error.value)


def test_all_files_of_a_case_may_have_any_name():
    assert assign_channels(["late.nii.gz", "x_0000.nii.gz", "y"], 3) == [0, 1, 2]


def test_fewer_files_say_their_channel():
    assert assign_channels(["f/a_0002.nii.gz", "f/a_0000.nii.gz"], 3) == [2, 0]
    assert assign_channels(["a_0001.png"], 3) == [1]
    assert assign_channels([], 3) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["flair.nii.gz"], "flair.nii.gz does not say which modality it is: name it CASE_XXXX, or pass all 3"),
        (["a_0000.nii.gz", "a_0003.nii.gz"], "a_0003.nii.gz has an unknown channel number: this model knows 0000 to 0"),
        (["a_0001.nii.gz", "a_0001.nii"], "a_0001.nii.gz, a_0001.nii: several files for one modality: keep one"),
        ([f"a_000{i}.nii.gz" for i in range(4)], "a_0003.nii.gz has an unknown channel number"),
    ],
)
def test_files_that_make_no_case(files, message):
    with pytest.raises(UserError) as error:
        assign_channels(files, 3)
    assert message in str(error.value)


def test_numbers_count_where_all_files_of_a_case_have_one():
    assert assign_channels(["x/a_0001.nii.gz", "x/a_0000.nii.gz"], 2) == [1, 0]
    assert assign_channels(["x/a_0001.nii.gz", "x/b_0000.nii.gz"], 2) == [0, 1]  # other names: the order counts
    with pytest.raises(UserError, match="unknown channel number"):
        assign_channels(["x/a_0000.nii.gz", "x/a_0009.nii.gz"], 2)
