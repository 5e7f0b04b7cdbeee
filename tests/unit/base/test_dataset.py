import itertools
import pickle
import re
from pathlib import Path

import pytest

from nnunetv2_d2net.base.dataset import (
    CaseFiles,
    Dataset,
    assign_channels,
    available_from_names,
    can_name_folder,
    channels_of,
    dataset_folder_name,
    dataset_number,
    folder_of,
    refuse_taken_number,
    subset_name,
)
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import write_json

LABELS = {"background": 0, "edema": 1, "core": 2}


def content(n_modalities=4, ending=".nii.gz", **more):
    names = {str(number): f"M{number}" for number in range(n_modalities)}
    return {"channel_names": names, "labels": LABELS, "file_ending": ending} | more


def dataset(n_modalities=4, ending=".nii.gz", **more):
    return Dataset.of(content(n_modalities, ending, **more))


def one_line(call, *arguments):
    """What a refusal says."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert str(error.value).isprintable()
    return str(error.value)


class TestContent:
    @pytest.mark.parametrize(
        ("channels", "names"),
        [
            ({"0": "FLAIR", "1": "T1"}, ("FLAIR", "T1")),
            ({"10": "K", "2": "C", "0": "A"}, ("A", "C", "K")),
            ({str(i): f"M{i}" for i in (11, 3, 7, 0, 10, 2, 1)}, ("M0", "M1", "M2", "M3", "M7", "M10", "M11")),
            ({0: "of Python", 1: "not of JSON"}, ("of Python", "not of JSON")),
            ({"0": "T1", "1": "T1"}, ("T1", "T1")),
            ({"0": 1, "1": "T1 (native)"}, ("1", "T1 (native)")),
        ],
    )
    def test_channels_follow_their_numbers(self, channels, names):
        assert Dataset.of(content() | {"channel_names": channels}).channels == names
        assert channels_of({"modality": channels}) == names
        assert channels_of({"channel_names": channels, "modality": dict.fromkeys(channels, "old")}) == names

    @pytest.mark.parametrize(
        ("channels", "part"),
        [
            (None, "is null, not an object"),
            (["FLAIR", "T1"], "is a list, not an object"),
            ("T1", "is a text, not an object"),
            (5, "is a whole number, not an object"),
            ({}, "names no channel"),
            ({"FLAIR": "T1"}, "has keys that are no numbers of channels"),
            ({"0.5": "T1"}, "has keys that are no numbers of channels"),
            ({"0": "T1", "00": "T2"}, "has a number twice"),
            ({"0": "T1", "-1": "T2"}, "has keys that are no numbers of channels"),
            ({"0": None}, ': "0" is null, not a text or a whole number or a number'),
            ({"0": "T1", "1": ["T2"]}, ': "1" is a list, not a text or a whole number or a number'),
        ],
    )
    def test_channels_of_another_form(self, channels, part):
        for key in ("channel_names", "modality"):
            line = one_line(channels_of, {key: channels}, "x.json")
            assert line.startswith(f'x.json: "{key}"')
            assert f'{part}: write it as {{"0": "FLAIR", "1": "T1"}}' in line
        assert one_line(channels_of, {}, "x.json") == (
            'x.json lacks "channel_names" such as {"0": "FLAIR", "1": "T1"}: add it'
        )

    def test_a_list_of_cases_of_another_form(self):
        for other in (5, [], None):
            line = one_line(Dataset.of, content(dataset=other), "x.json", "do this")
            assert re.fullmatch('x.json: "dataset" is .*, not an object: do this', line)

    @pytest.mark.parametrize("channels", [{"FLAIR": 0, "T1": 1}, {"FLAIR": "0"}])
    def test_names_and_numbers_swapped(self, channels):
        assert "names and numbers swapped: write" in one_line(channels_of, {"channel_names": channels}, "x.json")

    @pytest.mark.parametrize(
        ("labels", "regions", "ignore", "known"),
        [
            ({"background": 0, "a": 1, "b": 2}, {"a": (1,), "b": (2,)}, None, (0, 1, 2)),
            ({"b": 2, "a": 1, "background": 0}, {"b": (2,), "a": (1,)}, None, (0, 1, 2)),
            ({"background": 0, "a": [1, 2, 4], "b": (4, 2)}, {"a": (1, 2, 4), "b": (4, 2)}, None, (0, 1, 2, 4)),
            ({"background": 0, "a": [1], "ignore": 2}, {"a": (1,)}, 2, (0, 1, 2)),
            ({"background": 0, "ignore": 1}, {}, 1, (0, 1)),
            ({"background": 0}, {}, None, (0,)),
        ],
    )
    def test_labels(self, labels, regions, ignore, known):
        data = dataset(labels=labels, regions_class_order=[2, 4])
        assert (data.regions, data.ignore, data.known_values) == (regions, ignore, known)
        assert list(data.regions) == list(regions)

    @pytest.mark.parametrize(
        ("labels", "part"),
        [
            ({"a": "1"}, "label 'a' is '1', not a whole number or a list of them"),
            ({"1": "edema"}, "label '1' is 'edema', not"),  # the Decathlon's form
            ({"a": 1.5}, "label 'a' is 1.5, not"),
            ({"a": None}, "label 'a' is None, not"),
            ({"a": True}, "label 'a' is True, not"),
            ({"a": []}, "label 'a' is [], not"),
            ({"a": [1, "2"]}, "label 'a' is [1, '2'], not"),
            ({"a": [[1]]}, "label 'a' is [[1]], not"),
            ({"a": {"b": 1}}, "label 'a' is {'b': 1}, not"),
            ({"ignore": [3]}, "label 'ignore' is [3], not a whole number"),
            ({"background": 0, "a": -1}, "label 'a' is -1, not"),
            ({"a": 1}, '"labels" has no "background" that is 0'),
            ({"background": [0], "a": 1}, '"labels" has no "background" that is 0'),
            ({"background": 1, "a": 0}, '"labels" has no "background" that is 0'),
            ({"background": 0, "a": 1, "ignore": 1}, "label 'ignore' is not the one after the largest other"),
            ({"background": 0, "a": 1, "ignore": 3}, "label 'ignore' is not the one after the largest other"),
            ([], '"labels" is a list, not an object'),
            (None, '"labels" is null, not an object'),
        ],
    )
    def test_labels_of_another_form(self, labels, part):
        line = one_line(Dataset.of, content(labels=labels), "x.json", "do this")
        assert re.match(f'x.json: ("labels": )?{re.escape(part)}', line)
        assert line.endswith(": do this")

    def test_classes_that_leave_a_value_out(self):
        labels = {"background": 0, "a": 1, "b": 2, "c": 4}
        line = one_line(Dataset.of, content(labels=labels), "x.json", "do this")
        said = '"labels" are not numbered from 0 without gaps (0, 1, 2, 4), which is to be so in the segmentations, too'
        assert line == f"x.json: {said}: do this"
        assert Dataset.of(content(labels=labels), only_labels=True).regions["c"] == (4,)
        regions = {"background": 0, "whole": [1, 2, 4], "core": [1, 4]}
        assert Dataset.of(content(labels=regions) | {"regions_class_order": [2, 1]}).regions["core"] == (1, 4)

    @pytest.mark.parametrize("order", [None, 5, {}, [], [1], [1, "2"], [1, 2, 3]])
    def test_regions_without_the_order_in_which_they_are_written(self, order):
        labels = {"background": 0, "whole": [1, 2], "core": 2}
        line = one_line(Dataset.of, content(labels=labels, regions_class_order=order), "x.json", "do this")
        assert line == 'x.json: "regions_class_order" is not a list of 2 whole numbers, one for each region: do this'

    def test_an_order_of_regions_that_also_ignore_voxels(self):
        labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
        assert dataset(labels=labels, regions_class_order=[1, 2]).ignore == 3
        line = one_line(Dataset.of, content(labels=labels, regions_class_order=[1, 2, 3]))
        assert "not a list of 2 whole numbers" in line

    @pytest.mark.parametrize("channels", [{}, {"modality": {"1": "T2", "0": "T1"}}, {"channel_names": {"0": "T1"}}])
    def test_segmentations_alone_need_neither_channels_nor_an_order_of_regions(self, channels):
        rest = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "file_ending": ".nii.gz"}
        data = Dataset.of(channels | rest, only_labels=True)
        assert data.channels == {0: (), 1: ("T1",), 2: ("T1", "T2")}[len(next(iter(channels.values()), ()))]
        assert data.numbers == tuple(range(len(data.channels)))
        assert data.regions == {"whole": (1, 2), "core": (2,)}
        for wrong in ({"labels": {"a": 1}}, {"channel_names": {}}):
            one_line(lambda wrong: Dataset.of(channels | rest | wrong, only_labels=True), wrong)

    @pytest.mark.parametrize("modality", [None, 4, {"0": "T1"}])
    def test_two_counts_of_channels(self, modality):
        line = one_line(Dataset.of, content(modality=modality), "x.json")
        assert line == 'x.json: "channel_names" and "modality" differ: remove "modality"'

    @pytest.mark.parametrize("ending", [None, 1, [".nii.gz"], {}])
    def test_an_ending_of_another_type(self, ending):
        line = one_line(Dataset.of, content(file_ending=ending), "x.json", "do this")
        assert re.fullmatch('x.json: "file_ending" is .*, not a text: do this', line)

    @pytest.mark.parametrize("key", ["channel_names", "labels", "file_ending"])
    def test_what_is_absent_is_named(self, key):
        left = {name: value for name, value in content().items() if name != key}
        assert one_line(Dataset.of, left, "x.json").startswith(f'x.json lacks "{key}"')

    def test_the_file(self, tmp_path):
        path = tmp_path / "dataset.json"
        write_json(path, content(2, numTraining=3))
        data = Dataset.read(path)
        assert (data.channels, data.file_ending, data.source) == (("M0", "M1"), ".nii.gz", str(path))
        assert data.content["numTraining"] == 3
        assert data.complete == data.subset_name([True, True]) == "M0+M1"
        assert pickle.loads(pickle.dumps(data)) == data
        write_json(path, content() | {"labels": 1})
        assert one_line(Dataset.read, path, "mend it") == (
            f'{path}: "labels" is a whole number, not an object: mend it'
        )
        path.unlink()
        assert one_line(Dataset.read, path, "mend it") == f"{path} cannot be read (No such file or directory): mend it"
        assert one_line(Dataset.read, path).endswith(": a data set of nnU-Net needs it")

    def test_what_is_said_where_nothing_is_known_of_the_file(self):
        assert one_line(Dataset.of, content() | {"labels": None}) == (
            'dataset.json: "labels" is null, not an object: add it as nnU-Net\'s format says'
        )
        assert dataset().source == "dataset.json"
        assert one_line(channels_of, {}).startswith("dataset.json lacks")


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def found(folder, ending=".nii.gz", n_modalities=4):
    """Cases with the channels they have, and problems."""
    files, problems = dataset(n_modalities, ending).find_cases(folder)
    channels = {case: [int(re.search(r"(\d{4})\.", file)[1]) for file in paths] for case, paths in files.items()}
    return channels, problems


def only_problem(folder, case, *parts, ending=".nii.gz"):
    """The one problem of a folder: one line that names case and file, and holds these parts."""
    files, problems = dataset(4, ending).find_cases(folder)
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
    assert dataset(2).find_cases(tmp_path).files == {"a": [str(tmp_path / "a_0001.nii.gz")]}


def test_an_unusable_case_leaves_the_others(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b_0004.nii.gz", "b_0000.nii.gz", "c_0003.nii.gz")
    cases, problems = found(tmp_path)
    assert cases == {"a": [0], "c": [3]}
    assert list(problems) == ["b"]


def test_an_unknown_channel_number(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0004.nii.gz")
    only_problem(tmp_path, "a", "a_0004.nii.gz", "unknown channel number 0004", "0000 to 0003", "take this file out")


def test_a_number_that_may_be_the_patients(tmp_path):
    touch(tmp_path, *(f"sub_{patient:04d}.nii.gz" for patient in range(6)))
    only_problem(tmp_path, "sub", "if it is the patient's number", "as sub_0004_0000.nii.gz for the first modality")


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii.gz", ".nii.GZ"])
def test_endings_in_any_case(tmp_path, ending):
    touch(tmp_path, f"a_0000{ending}", "a_0002.nii.gz", f"b_0003{ending}")
    files, problems = dataset().find_cases(tmp_path)
    assert problems == {}
    assert files == {
        "a": [str(tmp_path / f"a_0000{ending}"), str(tmp_path / "a_0002.nii.gz")],
        "b": [str(tmp_path / f"b_0003{ending}")],
    }
    assert assign_channels(files["a"], 4) == [0, 2]
    assert dataset().segmentations(tmp_path)["b_0003"] == tmp_path / f"b_0003{ending}"


@pytest.mark.parametrize("twin", ["a_0001.nii", "a_0001.nrrd", "a_0001.mha", "a_0001.NII.GZ"])
def test_two_files_for_one_modality(tmp_path, twin):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", twin)
    only_problem(tmp_path, "a", "a_0001.nii.gz", twin, "remove one")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    touch(tmp_path, "a_0000.nii.gz")
    (tmp_path / "a_0001.nii.gz").mkdir()
    only_problem(tmp_path, "a", "a_0001.nii.gz is a folder", "put the image there, or remove it")


def test_a_file_with_something_behind_its_ending(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0000.nii.gz.bak", "a_0001.nii.gz.part", "notes.nii.gz.txt", "a_0003.nii.gz.md5")
    only_problem(tmp_path, "a", "a_0001.nii.gz.part does not end as an image", "it is called a_0001.nii.gz")


def test_a_broken_link(tmp_path):
    (tmp_path / "a_0000.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    only_problem(tmp_path, "a", "a_0000.nii.gz is no file (a broken link?)", "remove it")


@pytest.mark.parametrize("name", ["a", "a_1", "a_00001", "a_0000x", "a-0000", "_0000"])
def test_a_name_without_channel_number(tmp_path, name):
    touch(tmp_path, f"{name}.nii.gz")
    only_problem(tmp_path, name, f"{name}.nii.gz has no channel number", "_0000")


def test_a_picture_of_something_else(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "overview.png", "0.png")
    found = dataset(2).find_cases(tmp_path)
    assert list(found.files) == ["a"]
    assert not found.problems


def test_another_ending_only(tmp_path):
    touch(tmp_path, "a_0000.nii", "a_0001.nii")
    only_problem(tmp_path, "a", "a_0000.nii does not end in .nii.gz", "convert it")


def test_the_models_own_ending_may_be_an_unusual_one(tmp_path):
    touch(tmp_path, "a_0000.npy", "a_0001.npy")
    assert found(tmp_path, ending=".npy") == ({"a": [0, 1]}, {})


def test_the_longest_ending_counts(tmp_path):
    touch(tmp_path, "a_0000.brain.nii.gz", "a_0001.brain.nii.gz")
    assert list(dataset(2, ".brain.nii.gz").find_cases(tmp_path).files) == ["a"]
    assert dataset(2, ".brain.nii.gz").assign_channels(["a_0001.brain.nii.gz"]) == [1]
    assert dataset(2).assign_channels(["a_0001"]) == [1]  # and none is none


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "escape\x1b[31m"])
def test_a_name_that_cannot_be_printed(tmp_path, name):
    touch(tmp_path, f"{name}_0000.nii.gz")
    files, problems = dataset().find_cases(tmp_path)
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
    files, problems = dataset().find_cases(tmp_path)
    assert problems == {}
    assert files == {name: [str(tmp_path / f"{name}_{channel:04d}.nii.gz") for channel in (0, 2)]}


def test_a_folder_without_images(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match="holds no image") as error:
        dataset().find_cases(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "CASE_0000.nii.gz" in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    touch(tmp_path, "file")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(UserError, match="cannot be read") as error:
            dataset().find_cases(path)
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


def test_an_unusual_ending_of_the_data_set_is_known():
    assert dataset(3, ".npy").assign_channels(["f/a_0002.npy", "f/a_0000.npy"]) == [2, 0]


def with_gaps():
    return dataset(channel_names={"7": "T2", "1": "T1", "5": "T1ce"})


def test_numbers_of_a_data_set_may_have_gaps():
    assert with_gaps().numbers == (1, 5, 7)
    assert with_gaps().assign_channels(["a_0007.nii.gz", "a_0001.nii.gz"]) == [2, 0]
    assert with_gaps().assign_channels(["seven", "one", "five"]) == [0, 1, 2]
    whole = ["a_0002.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz"]  # nnU-Net takes files by their order alone
    assert with_gaps().assign_channels(whole) == [2, 1, 0]
    line = one_line(with_gaps().assign_channels, ["a_0002.nii.gz"])
    assert line == "a_0002.nii.gz has an unknown channel number: this model knows 0001, 0005, 0007"
    assert dataset(channel_names={"3": "T2"}).assign_channels(["a_0003.nii.gz"]) == [0]


@pytest.mark.parametrize(
    ("numbers", "known"),
    [([0], "0000"), ([3], "0003"), ([0, 1], "0000 to 0001"), ([2, 3, 4], "0002 to 0004"), ([0, 3], "0000, 0003")],
)
def test_the_numbers_that_are_known_are_said(numbers, known):
    data = dataset(channel_names={str(number): f"M{number}" for number in numbers})
    line = one_line(data.assign_channels, ["a_0009.nii.gz"])
    assert line == f"a_0009.nii.gz has an unknown channel number: this model knows {known}"


def test_which_file_is_taken_for_which_modality_is_said():
    cases = {f"c{i}": [f"in/c{i}_0007.nii.gz", f"in/c{i}_0001.nii.gz"][: 1 + i % 2] for i in range(9)}
    lines = with_gaps().reading_of(cases)
    assert lines == [
        "9 cases: T1 (_0001) of 4, T1ce (_0005) of 0, T2 (_0007) of 9",
        *(f"case 'c{i}': T2 = c{i}_0007.nii.gz" + (f", T1 = c{i}_0001.nii.gz" if i % 2 else "") for i in range(8)),
    ]
    assert with_gaps().reading_of(cases, 1) == lines[:2]


def test_a_data_set_says_what_is_available():
    data = with_gaps()
    assert data.available() == (True, True, True)
    assert data.available(keep=["t2", "T1"], drop=["T1"]) == data.available(["T2"]) == (False, False, True)
    assert data.subset_name([True, False, True]) == "T1+T2"


def test_numbers_count_where_all_files_of_a_case_have_one():
    assert assign_channels(["x/a_0001.nii.gz", "x/a_0000.nii.gz"], 2) == [1, 0]
    assert assign_channels(["x/a_0001.nii.gz", "x/b_0000.nii.gz"], 2) == [0, 1]  # other names: the order counts
    with pytest.raises(UserError, match="unknown channel number"):
        assign_channels(["x/a_0000.nii.gz", "x/a_0009.nii.gz"], 2)


@pytest.mark.parametrize(
    ("keep", "drop", "available"),
    [
        (None, None, (True, True, True)),
        (["t2", "FLAIR"], None, (True, False, True)),
        (None, ["T1"], (True, False, True)),
        (["T1", "T2"], ["T2"], (False, True, False)),
        (["T1", "t1"], None, (False, True, False)),
        (None, [], (True, True, True)),
    ],
)
def test_names_say_what_is_available(keep, drop, available):
    assert available_from_names(["FLAIR", "T1", "T2"], keep, drop) == available


def test_names_in_their_own_case_win():
    assert available_from_names(["T1", "t1", "T2"], keep=["t1"]) == (False, True, False)


@pytest.mark.parametrize(
    ("names", "keep", "drop", "part"),
    [
        (["A", "B"], ["C"], None, "^C is no modality of this model: dataset.json's channel_names are A, B$"),
        (["A", "B"], None, ["C"], "C is no modality"),
        (["A", "B"], None, ["b", "a"], "every modality is dropped"),
        (["A", "B"], ["A"], ["A"], "every modality is dropped"),
        (["A", "B"], [], None, "every modality is dropped"),
        (["noNorm", "noNorm"], ["noNorm"], None, "^noNorm names several channels of this model: dataset.json's"),
        (["T1", "t1"], ["T1", "tI"], None, "tI is no modality"),
    ],
)
def test_names_that_make_no_sense(names, keep, drop, part):
    with pytest.raises(UserError, match=part) as error:
        available_from_names(names, keep, drop)
    assert ", ".join(names) in str(error.value)


def test_a_subset_is_named_by_its_modalities():
    assert subset_name([True, True], ["T1", "T2"]) == "T1+T2"
    assert subset_name([False, True], ["T1", "T2 (axial)"]) == "T2 (axial)"


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a+b", "..", ".a", ""])
def test_a_name_that_cannot_be_a_folder(name):
    assert not can_name_folder(name)
    with pytest.raises(UserError, match="cannot name a folder") as error:
        subset_name([True, False], ["T1", name])
    assert repr(name) in str(error.value)


class TestCases:
    def test_images_labels_and_problems_in_one_list(self, tmp_path):
        for folder in ("imagesTr", "labelsTr", "imagesTs"):
            (tmp_path / folder).mkdir()
        touch(
            tmp_path / "imagesTr", "b_0001.nii.gz", "b_0000.nii.gz", "a_0001.nii.gz", "c_0009.nii.gz", "d_0000.nii.gz"
        )
        touch(tmp_path / "labelsTr", "a.nii.gz", "b.nii.gz", "c.nii.gz", "e.nii.gz", ".a.nii.gz", "f.nii", "notes.txt")
        (tmp_path / "labelsTr" / "g.nii.gz").mkdir()
        touch(tmp_path / "imagesTs", "t_0001.nii.gz")
        data, images, labels = dataset(2), tmp_path / "imagesTr", tmp_path / "labelsTr"
        cases = data.cases(tmp_path, "Tr")
        assert list(cases) == ["a", "b", "c", "d", "e"]
        assert cases["a"] == CaseFiles((str(images / "a_0001.nii.gz"),), str(labels / "a.nii.gz"))
        assert cases["b"].images == (str(images / "b_0000.nii.gz"), str(images / "b_0001.nii.gz"))
        assert (cases["c"].images, cases["c"].label) == ((), str(labels / "c.nii.gz"))
        assert "unknown channel number 0009" in cases["c"].problem
        assert cases["d"] == CaseFiles((str(images / "d_0000.nii.gz"),))
        assert cases["e"] == CaseFiles((), str(labels / "e.nii.gz"))
        assert data.training_cases(tmp_path) == ["a", "b", "c", "e"]
        assert data.cases(tmp_path, "Ts") == {"t": CaseFiles((str(tmp_path / "imagesTs" / "t_0001.nii.gz"),))}
        assert data.segmentations(tmp_path / "nowhere") == {}

    def test_names_of_segmentations(self, tmp_path):
        names = ["with space", "a.nii", "v1.2.3", "a.nii.gz", "Müller", "[x]*", "a_0000"]
        touch(tmp_path, *(f"{name}.nii.gz" for name in names))
        assert dataset().segmentations(tmp_path) == {name: tmp_path / f"{name}.nii.gz" for name in names}

    def test_a_folder_that_is_closed(self, tmp_path, monkeypatch):
        def fail(_path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "iterdir", fail)
        for call in (dataset().segmentations, dataset().find_cases):
            assert one_line(call, tmp_path).startswith(f"{tmp_path} cannot be read (Permission denied): ")

    @pytest.mark.parametrize("listed", [False, True])
    def test_the_files_are_those_of_nnunet(self, tmp_path, monkeypatch, listed):
        """Whole cases: incomplete ones are what nnU-Net cannot have."""
        from multiprocessing.pool import ThreadPool

        from nnunetv2.utilities import utils

        monkeypatch.setattr(utils, "Pool", ThreadPool)
        monkeypatch.setenv("IMAGES_OF_A_TEST", str(tmp_path / "elsewhere"))
        for folder in ("imagesTr", "labelsTr"):
            (tmp_path / "raw" / folder).mkdir(parents=True)
        for case, channel in itertools.product(("b", "a_0001", "c d"), range(2)):
            touch(tmp_path / "raw" / "imagesTr", f"{case}_{channel:04d}.nii.gz")
            touch(tmp_path / "raw" / "labelsTr", *([] if channel else [f"{case}.nii.gz"]))
        files = {
            "z": {
                "images": ["imagesTr/b_0000.nii.gz", "./../raw//imagesTr/b_0001.nii.gz"],
                "label": "labelsTr/b.nii.gz",
            },
            "y": {
                "images": ["$IMAGES_OF_A_TEST/1.nii.gz", "${IMAGES_OF_A_TEST}/../2.nii.gz"],
                "label": "$NO_SUCH/l.nii",
            },
            "x": {"images": [f"{tmp_path}/a/../b//c.nii.gz", "~/d.nii.gz"], "label": "/l.nii.gz"},
        }
        data = dataset(2, **({"dataset": files} if listed else {}))
        theirs = utils.get_filenames_of_train_images_and_targets(
            str(tmp_path / "raw"), pickle.loads(pickle.dumps(data.content))
        )
        ours = data.cases(tmp_path / "raw", "Tr")
        assert len(theirs) == 3
        assert {case: (list(files.images), files.label) for case, files in ours.items()} == {
            str(case): (files["images"], files["label"]) for case, files in theirs.items()
        }
        assert data.training_cases(tmp_path / "raw") == list(ours) == sorted(map(str, theirs))

    def test_a_relative_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        data = dataset(1, dataset={"a": {"images": ["i.nii.gz"], "label": "l.nii.gz"}})
        assert data.cases(Path("raw"), "Tr")["a"] == CaseFiles(
            (str(tmp_path / "raw" / "i.nii.gz"),), str(tmp_path / "raw" / "l.nii.gz")
        )

    @pytest.mark.parametrize(
        ("files", "part"),
        [
            ({"a": 1}, "case 'a' in \"dataset\" is no object"),
            ({"a": {"label": "l"}}, 'case \'a\' in "dataset" lacks "images"'),
            ({"a": {"images": ["i"]}}, 'case \'a\' in "dataset" lacks "label"'),
            ({"a": {"images": "i", "label": "l"}}, '"images" is a text, not a list'),
            ({"a": {"images": ["i"], "label": ["l"]}}, '"label" is a list, not a text'),
        ],
    )
    def test_lists_of_another_form(self, tmp_path, files, part):
        data = dataset(1, dataset=files)
        for call in (lambda: data.cases(tmp_path, "Tr"), lambda: data.training_cases(tmp_path)):
            line = one_line(call)
            assert line.startswith("dataset.json")
            assert part in line
            assert line.endswith('it lists "images" and a "label" for each case')

    def test_a_list_does_not_count_for_test_cases(self, tmp_path):
        (tmp_path / "imagesTs").mkdir()
        touch(tmp_path / "imagesTs", "t_0000.nii.gz")
        assert list(dataset(1, dataset={}).cases(tmp_path, "Ts")) == ["t"]
        assert dataset(1, dataset={}).cases(tmp_path, "Tr") == {}


class TestFolderNames:
    @pytest.mark.parametrize(("number", "name"), [(1, "a"), (999, "A-b_9"), (42, "_")])
    def test_there_and_back(self, number, name):
        assert dataset_folder_name(number, name) == f"Dataset{number:03d}_{name}"
        assert dataset_number(dataset_folder_name(number, name)) == number

    @pytest.mark.parametrize("number", [0, -1, 1000])
    def test_a_number_out_of_range(self, number):
        assert "choose -d between 1 and 999" in one_line(dataset_folder_name, number, "a")

    @pytest.mark.parametrize("name", ["", " ", "a/b", "..", "a b", "ä", "a\n", "a.b"])
    def test_a_name_that_is_no_folder(self, name):
        assert "choose --name of letters, digits, - and _" in one_line(dataset_folder_name, 1, name)

    def test_a_number_belongs_to_one_data_set(self, tmp_path):
        one, other = tmp_path / "raw", tmp_path / "preprocessed"
        for folder in (one / "Dataset007_A", other / "Dataset007_A", other / "Dataset008_B", one / "Dataset0077_C"):
            folder.mkdir(parents=True)
        (one / "Dataset009_D.zip").touch()
        roots = [one, other, tmp_path / "nowhere"]
        for free in ("Dataset007_A", "Dataset008_B", "Dataset009_D", "Dataset077_C"):
            refuse_taken_number(roots, free)
        line = one_line(refuse_taken_number, roots, "Dataset008_A")
        assert line == f"{other / 'Dataset008_B'} has the number 8 already: choose another -d, or remove it"

    @pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
    def test_nor_to_one_that_is_elsewhere(self, tmp_path, monkeypatch, variable):
        for name in ("nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / "Dataset008_B").mkdir()
        refuse_taken_number([], "Dataset008_A")
        monkeypatch.setenv(variable, str(tmp_path))
        assert "has the number 8 already" in one_line(refuse_taken_number, [], "Dataset008_A")

    @pytest.mark.parametrize("value", [None, ""])
    def test_a_variable_of_nnunet_that_is_not_set(self, tmp_path, monkeypatch, value):
        monkeypatch.setenv("nnUNet_raw", str(tmp_path))
        assert folder_of("nnUNet_raw") == tmp_path
        monkeypatch.delenv("nnUNet_raw") if value is None else monkeypatch.setenv("nnUNet_raw", value)
        assert one_line(folder_of, "nnUNet_raw") == (
            "nnUNet_raw is not set: export nnUNet_raw=/path/to/nnUNet_raw (it holds the data sets)"
        )
