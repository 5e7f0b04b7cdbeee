"""Mapping files: those of the documentation, patterns, and what is refused."""

import pytest

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import read_json
from nnunetv2_d2net.data.convert.mapping import compile_pattern, read_mapping
from nnunetv2_d2net.patient.model import shipped_model
from tests.pages import DOCS, PAGES, blocks_of

GOOD = {"modalities": "{T1: '{case}_t1.nii.gz'}", "label": "'{case}_mask.nii.gz'", "labels": "{1: tumor}"}


def documented(number):
    """A mapping file of the pages, those of ``data.md`` first."""
    if not DOCS.is_dir():
        pytest.skip("an installed package has no docs")
    return [block.text for page in PAGES for block in blocks_of(page) if block.language == "yaml"][number]


@pytest.fixture
def mapping(tmp_path):
    def write(text):
        path = tmp_path / "mapping.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def with_keys(**changed):
    return "".join(f"{key}: {value}\n" for key, value in (GOOD | changed).items() if value is not None)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_example_of_the_documentation(mapping, source):
    layout = read_mapping(mapping(documented(0)))
    assert layout.modalities == ("FLAIR", "T1ce")
    assert layout.scheme.values == {0: 0, 1: 1, 2: 2, 5: 3, 6: 3}
    assert layout.scheme.described([0, 1]) == {
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3},
        "regions_class_order": [2, 1, 3],
    }
    touch(source, "north/p 1/flair.nii.gz", "north/p 1/t1_gd.nii", "north/p 1/masks/p 1.nii.gz")
    touch(source, "south/p2/t1_post.nii.gz", "south/p2/other.nii.gz")
    touch(source, "north/p3/flair.nii.gz", "south/p3/t1_post.nii.gz")
    found = layout.find(source)
    assert [(case.name, case.split, list(case.images)) for case in found.cases] == [
        ("p 1", "Tr", ["FLAIR", "T1ce"]),
        ("p2", "Ts", ["T1ce"]),
    ]
    assert found.cases[0].label == source / "north/p 1/masks/p 1.nii.gz"
    assert found.stray == [source / "south/p2/other.nii.gz"]
    assert [(problem.case, problem.kind) for problem in found.problems] == [("p3", "colliding name")]


def test_the_pediatric_example_of_the_documentation(mapping, source):
    layout = read_mapping(mapping(documented(1)))
    assert layout.scheme.values == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    described = layout.scheme.described([0])
    assert described["labels"]["tumor core"] == [1, 2, 3]
    assert described["regions_class_order"] == [4, 2, 3, 1]
    touch(source, *(f"BraTS-PED-00001-000/BraTS-PED-00001-000-{token}.nii.gz" for token in ("t1c", "t2f", "seg")))
    (case,) = layout.find(source).cases
    assert list(case.images) == ["FLAIR", "T1ce"]


def test_the_bids_example_of_the_documentation(mapping, source):
    layout = read_mapping(mapping(documented(2)))
    folder, case = "sub-01/ses-01/anat", "sub-01_ses-01"
    touch(source, *(f"{folder}/{case}_{name}.nii.gz" for name in ("FLAIR", "T1w", "ce-gadolinium_T1w", "T2w")))
    touch(source, f"derivatives/manual/{folder}/{case}_dseg.nii.gz")
    (found,) = layout.find(source).cases
    assert (found.name, sorted(found.images)) == (case, ["FLAIR", "T1", "T1ce", "T2"])
    assert found.images["T1ce"].path.name == f"{case}_ce-gadolinium_T1w.nii.gz"
    assert found.label is not None


def test_the_gliomas_for_the_model_of_the_package(mapping, source):
    layout = read_mapping(mapping(documented(3)))
    shipped = read_json(shipped_model() / "dataset.json", "")
    assert list(layout.modalities) == list(shipped["channel_names"].values())
    described = layout.scheme.described([0])
    assert described == {key: shipped[key] for key in ("labels", "regions_class_order")}
    touch(source, *(f"patient0003/{name}.nii.gz" for name in ("flair", "t1ce", "seg")))
    (case,) = layout.find(source).cases
    assert list(case.images) == ["FLAIR", "T1ce"]


def test_the_gliomas_of_the_page_of_real_patients(mapping, source):
    layout = read_mapping(mapping(documented(4)))
    assert layout.modalities == ("FLAIR", "T1ce")
    assert layout.scheme.values == {0: 0, 1: 1, 2: 2, 3: 1, 4: 3}
    assert layout.scheme.described([0, 1])["labels"]["tumor core"] == [1, 3]
    touch(source, *(f"patient0003/{name}.nii.gz" for name in ("flair", "t1ce", "seg")))
    (case,) = layout.find(source).cases
    assert (case.name, list(case.images), case.split) == ("patient0003", ["FLAIR", "T1ce"], "Tr")


def test_the_lesions_of_the_page_of_real_patients(mapping, source):
    layout = read_mapping(mapping(documented(5)))
    assert layout.scheme.described([0]) == {"labels": {"background": 0, "lesion": 1}}
    touch(source, *(f"patient07/{name}.nii.gz" for name in ("flair", "t1", "t1_post", "t2", "lesions")))
    (case,) = layout.find(source).cases
    assert [path.path.name for path in case.images.values()] == [
        "flair.nii.gz",
        "t1.nii.gz",
        "t1_post.nii.gz",
        "t2.nii.gz",
    ]
    assert case.label is not None


def test_without_label_and_regions(mapping, source):
    layout = read_mapping(mapping(with_keys(label=None, labels="{1: tumor, 3: ignore}")))
    assert layout.scheme.described([0]) == {"labels": {"background": 0, "tumor": 1, "ignore": 2}}
    touch(source, "a_t1.nii.gz", "a_mask.nii.gz")
    assert [case.split for case in layout.find(source).cases] == ["Ts"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modalities: [", "is no YAML in line"),
        ("!!python/object/apply:os.system ['true']", "is no YAML in line 1"),
        ("", "holds no keys"),
        ("- a", "holds no keys"),
        (with_keys(extra="1"), "unknown key 'extra'"),
        (with_keys(labels=None), "missing key 'labels'"),
        (with_keys(modalities="T1"), "modalities must map"),
        (with_keys(modalities="{T1: 5}"), "T1 needs a pattern"),
        (with_keys(modalities="{a/b: '{case}.nii'}"), "modality 'a/b' cannot name a folder"),
        (with_keys(modalities="{T1: 't1.nii'}"), r"pattern 't1.nii' has no \{case\}"),
        (with_keys(modalities="{T1: '{case}.mha'}"), "other formats are not read"),
        (with_keys(modalities="{T1: '{case}*.nii'}"), r"wildcard beside \{case\}"),
        (with_keys(modalities="{T1: '{case}_{id}.nii'}"), "braces that are not"),
        (with_keys(labels="tumor"), "labels must map"),
        (with_keys(labels="{tumor: 1}"), "is not a whole number and a name"),
        (with_keys(labels="{1.5: tumor}"), "is not a whole number and a name"),
        (with_keys(labels="{1: 2}"), "is not a whole number and a name"),
        (with_keys(labels="{0: tumor}"), "0 is always the background"),
        (with_keys(regions="[tumor]"), "regions must map"),
        (with_keys(regions="{all: tumor}"), "regions must map"),
        (with_keys(regions="{all: [tumr]}"), "region 'all' holds 'tumr'"),
    ],
)
def test_what_a_mapping_file_may_not_say(mapping, text, message):
    path = mapping(text)
    with pytest.raises(UserError, match=message) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_mapping_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="pass a known layout or a mapping file"):
        read_mapping(tmp_path / "brats2019")


def test_a_file_that_fits_two_modalities(mapping, source):
    layout = read_mapping(mapping(with_keys(modalities="{A: '{case}_t1.nii.gz', B: '{case}_?1.nii.gz'}")))
    touch(source, "a_t1.nii.gz")
    with pytest.raises(UserError, match=r"a_t1\.nii\.gz fits the patterns of A and B"):
        layout.find(source)


@pytest.mark.parametrize(
    ("pattern", "path", "case", "place"),
    [
        ("{case}.nii.gz", "a b.nii.gz", "a b", ()),
        ("{case}.nii.gz", "x/a.nii.gz", None, None),
        ("{case}_t1.nii*", "a_t1.nii", "a", ()),
        ("{case}_t1.nii*", "A_T1.nii", None, None),
        ("**/{case}/{case}_t1.nii", "a/a_t1.nii", "a", ("",)),
        ("**/{case}/{case}_t1.nii", "x/y/a/a_t1.nii", "a", ("x/y/",)),
        ("**/{case}/{case}_t1.nii", "x/b/a_t1.nii", None, None),
        ("c?/s*/{case}/t1_*.nii", "c1/sub/a/t1_2020.nii", "a", ("1", "ub")),
        ("images/x_{case}.nii", "images/x_a.nii", "a", ()),
        ("images/*_{case}.nii", "images/x_a.nii", "a", ()),
        ("*_{case}.nii", "x_a.nii", "a", ()),
        ("[a]+/{case}.nii", "[a]+/b.nii", "b", ()),
        ("[a]+/{case}.nii", "aa/b.nii", None, None),
    ],
)
def test_patterns(pattern, path, case, place):
    match = compile_pattern(pattern).fullmatch(path)
    assert (match and match["case"], match and match.groups()[:-1]) == (case, place)


def test_the_pattern_with_the_shorter_case_says_more(mapping, source):
    keys = "{T1: 'anat/{case}_T1w.nii.gz', T1ce: 'anat/{case}_ce-gadolinium_T1w.nii.gz'}"
    layout = read_mapping(mapping(with_keys(modalities=keys)))
    for name in ("sub-1_T1w", "sub-1_ce-gadolinium_T1w"):
        touch(source, f"anat/{name}.nii.gz")
    (case,) = layout.find(source).cases
    assert (case.name, case.images["T1"].path.name) == ("sub-1", "sub-1_T1w.nii.gz")
    assert case.images["T1ce"].path.name == "sub-1_ce-gadolinium_T1w.nii.gz"


def test_files_from_windows_are_told(mapping, tmp_path):
    with pytest.raises(UserError, match="has a backslash: write / between folders"):
        read_mapping(mapping(with_keys(modalities=r"{A: '{case}\t1.nii.gz'}")))
    (tmp_path / "utf16.yaml").write_text("modalities: {}", encoding="utf-16")
    with pytest.raises(UserError, match=r"UTF-16.*save it as UTF-8"):
        read_mapping(tmp_path / "utf16.yaml")


def test_one_mask_per_class_is_no_duplicate(mapping, source):
    layout = read_mapping(mapping(with_keys(label="['{case}/core.nii.gz', '{case}/edema.nii.gz']")))
    for name in ("t1", "core", "edema"):
        touch(source, f"a/{name}.nii.gz")
    (problem,) = layout.find(source).problems
    assert problem.line.endswith(": put all classes into one file, with a value for each")


def test_what_stands_in_the_place_of_an_image(mapping, source):
    touch(source, "a_t1.NII.gz.part", "b_t1.nii.gz/t1.nii.gz", "c_t1.nii.gz/c_t1.nii.gz")
    layout = read_mapping(mapping(with_keys(modalities="{T1: ['{case}_t1.nii.gz', '*/{case}_t1.nii.gz']}", label=None)))
    found = layout.find(source)
    assert [case.name for case in found.cases] == ["c"]
    assert [problem.kind for problem in found.problems] == ["unreadable"] * 2
    assert found.problems[0].line.endswith("so that it is called a_t1.NII.gz")
    assert found.problems[1].line == f"{source / 'b_t1.nii.gz'} is a folder: put the image there, or remove it"


def test_endings_may_be_in_upper_case(mapping, source):
    touch(source, "a_t1.NII.GZ", "a_mask.nii.GZ")
    (case,) = read_mapping(mapping(with_keys())).find(source).cases
    assert (case.images["T1"].path.name, case.label) == ("a_t1.NII.GZ", source / "a_mask.nii.GZ")
