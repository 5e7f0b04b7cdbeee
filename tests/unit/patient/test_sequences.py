import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.patient.reading import read_sequences
from nnunetv2_d2net.patient.sequences import described, find_sequences
from tests.dicom_series import kept_locale, write_series

CHANNELS = ("FLAIR", "T1", "T1ce", "T2")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "patient"


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_of(found):
    return {channel: path.name for channel, path in found.images.items()}


@pytest.mark.parametrize(
    "names",
    [
        ("t2f.nii.gz", "t1n.nii.gz", "t1c.nii.gz", "t2w.nii.gz"),
        ("BraTS-GLI-1-000-t2f.nii", "BraTS-GLI-1-000-t1n.nii", "BraTS-GLI-1-000-t1c.nii", "BraTS-GLI-1-000-t2w.nii"),
        ("p 2_FLAIR.NII.GZ", "p 2_t1.nii", "p 2_T1ce.mha", "p 2_t2.nrrd"),
        ("anat/s_FLAIR.nii", "anat/s_T1w.nii", "anat/s_ce-gadolinium_T1w.nii", "anat/s_T2w.nii"),
    ],
)
def test_names_of_known_layouts(folder, names):
    touch(folder, *names, "readme.txt", "._t1.nii", ".git/t1.nii", "__MACOSX/t1.nii", ".t2.nii")
    found = find_sequences(folder, CHANNELS)
    assert names_of(found) == dict(zip(CHANNELS, (name.rpartition("/")[2] for name in names), strict=True))
    assert not found.passed_over


def test_segmentations_and_unknown_images_are_passed_over(folder):
    touch(folder, "flair.nii.gz", "seg.nii.gz", "t1_mask.nii.gz", "scan.nii.gz", "segmentation.nii.gz")
    found = find_sequences(folder, CHANNELS)
    assert names_of(found) == {"FLAIR": "flair.nii.gz"}
    assert [path.name for path in found.passed_over] == [
        "scan.nii.gz",
        "seg.nii.gz",
        "segmentation.nii.gz",
        "t1_mask.nii.gz",
    ]
    lines = described(found.images, CHANNELS)
    assert lines[0].endswith("flair.nii.gz")
    assert lines[1:] == ["T1 is absent", "T1ce is absent", "T2 is absent"]


def test_a_folder_of_its_own_names_an_image_whose_name_says_nothing(folder, drawn):
    touch(folder, "FLAIR/image.nii.gz", "T1 post/nifti/brain.nii", "T2/flair.nii.gz")
    write_series(drawn["T1"][:, :, :4], folder / "T1" / "DICOM", "1.2.1", "")
    assert set(find_sequences(folder, CHANNELS, {"FLAIR"}).images) == {"T1", "T1ce"}
    touch(folder, "T1 post/nifti/brain2.nii")  # no longer its own
    write_series(drawn["T1"][:, :, :4], folder / "T2w", "1.2.2", "Localizer")
    found = find_sequences(folder, CHANNELS, {"FLAIR"})
    assert set(found.images) == {"T1"}
    assert len(found.passed_over) == 3


@pytest.mark.parametrize("name", ["seg", "mask", "T1_map", "adc"])
def test_a_folder_makes_no_modality_of_a_mask_or_map(folder, name):
    touch(folder, f"T1/{name}.nii.gz", "t2.nii.gz")
    assert set(find_sequences(folder, CHANNELS).images) == {"T2"}


def test_two_of_one_are_asked_about_unless_one_is_named(folder):
    touch(folder, "flair.nii.gz", "new/flair.nii.gz", "t1.nii.gz")
    with pytest.raises(UserError, match=r"FLAIR may be .*flair.nii.gz or .*flair.nii.gz: say which, --FLAIR FILE$"):
        find_sequences(folder, CHANNELS)
    assert names_of(find_sequences(folder, CHANNELS, {"FLAIR"})) == {"T1": "t1.nii.gz"}


def test_a_name_that_means_two_is_asked_about_unless_both_are_named(folder):
    touch(folder, "ax_T1_FLAIR.nii.gz", "t2.nii.gz")
    with pytest.raises(UserError, match=r"ax_T1_FLAIR.nii.gz may be FLAIR or T1 by its name: .*--FLAIR FILE"):
        find_sequences(folder, CHANNELS)
    assert names_of(find_sequences(folder, CHANNELS, {"FLAIR", "T1"})) == {"T2": "t2.nii.gz"}


def test_nothing_that_is_known(folder):
    touch(folder, "scan1.nii.gz", "scan2.mha")
    with pytest.raises(UserError, match=r"nothing called like FLAIR, T1, T1ce, T2 \(there: .*scan1.*scan2.*--T2 FILE"):
        find_sequences(folder, CHANNELS)
    assert not find_sequences(folder, CHANNELS, {"FLAIR"}).images
    with pytest.raises(UserError, match=r"is no folder: .*--FLAIR FILE"):
        find_sequences(folder / "scan1.nii.gz", CHANNELS)


def test_channels_of_another_model(folder):
    touch(folder, "p_adc.nii.gz", "p_t2.nii.gz", "p_high_b_value.nii.gz", "p_b_value.nii.gz")
    found = find_sequences(folder, ("T2w", "ADC", "high b-value"))
    assert names_of(found) == {"T2w": "p_t2.nii.gz", "ADC": "p_adc.nii.gz", "high b-value": "p_high_b_value.nii.gz"}


def test_series_by_their_descriptions(folder, drawn):
    for number, text in enumerate(("t2_tirm_tra_dark-fluid", "t1_mprage_sag KM", "localizer", "ep2d_diff T2")):
        write_series(drawn["T1"][:, :, :4], folder / "DICOM", f"1.2.{number}", text)
    found = find_sequences(folder, CHANNELS)
    assert {channel: series.uid for channel, series in found.images.items()} == {"FLAIR": "1.2.0", "T1ce": "1.2.1"}
    assert sorted(series.description for series in found.passed_over) == ["ep2d_diff T2", "localizer"]
    write_series(drawn["T1"][:, :, :4], folder / "again", "1.2.9", "FLAIR ax")
    with pytest.raises(
        UserError, match=r"FLAIR may be .*\(t2_tirm_tra_dark-fluid, 4 files\) or .*\(FLAIR ax, 4 files\)"
    ):
        find_sequences(folder, CHANNELS)


@kept_locale()
def tag(files, **tags):
    """Set tags of DICOM files, such as ``PatientID``."""
    numbers = {"PatientID": "0010|0020", "PatientName": "0010|0010", "PatientBirthDate": "0010|0030"}
    numbers |= {"StudyDate": "0008|0020", "StudyInstanceUID": "0020|000d"}
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    for file in files:
        image = sitk.ReadImage(str(file), imageIO="GDCMImageIO")
        for name, value in tags.items():
            image.SetMetaData(numbers[name], value)
        writer.SetFileName(str(file))
        writer.Execute(image)


def read(folder):
    return read_sequences(find_sequences(folder, CHANNELS).images)[0]


@pytest.fixture
def t1_and_t2(folder, drawn):
    """The files of two series in one folder."""
    return [write_series(drawn["T1"][:, :, :4], folder, f"1.2.{n}", f"T{n}") for n in (1, 2)]


def test_series_of_two_patients_are_refused(folder, t1_and_t2):
    t1, t2 = t1_and_t2
    tag(t1, PatientID="A7")
    assert set(read(folder)) == {"T1", "T2"}  # one does not say
    tag(t2, PatientID="B8")
    for images in (find_sequences(folder, CHANNELS).images, {"T1": t1[0], "T2": str(t2[0])}):
        with pytest.raises(UserError) as error:
            read_sequences(images)
        assert str(error.value) == (
            f"different patients: {t1[0]} (T1, 4 files) is of PatientID A7 and {t2[0]} (T2, 4 files) is of PatientID "
            "B8: pass images of one patient; if they are of one, convert them to NIfTI and pass the files"
        )
    assert set(read_sequences({"T1": t1[0]})[0]) == {"T1"}


def test_series_of_one_id_and_two_names_or_birth_dates_are_refused(folder, t1_and_t2):
    t1, t2 = t1_and_t2
    tag(t1, PatientID="0", PatientName="DOE^JANE", PatientBirthDate="19500101")
    tag(t2, PatientID="0", PatientName="Doe^Jane^", PatientBirthDate="19500101")
    assert set(read(folder)) == {"T1", "T2"}
    tag(t2, PatientBirthDate="19800101")
    with pytest.raises(UserError, match=r"is of PatientBirthDate 19500101 and .* is of PatientBirthDate 19800101: "):
        read(folder)
    tag(t2, PatientBirthDate="", PatientName="SMITH^JOHN")
    with pytest.raises(UserError, match=r"is of PatientName DOE\^JANE and .* is of PatientName SMITH\^JOHN: "):
        read(folder)


def test_series_of_two_studies_are_told(folder, t1_and_t2, caplog):
    t1, t2 = t1_and_t2
    for files in t1_and_t2:
        tag(files, PatientID="A7", StudyDate="20200101")
    read(folder)
    assert not caplog.records
    for uid, date in (("1.2.9", "20200101"), ("1.2.826.0.1", "20210202")):
        tag(t2, StudyInstanceUID=uid, StudyDate=date)
        read(folder)
        assert [record.getMessage() for record in caplog.records] == [
            f"the series are of different studies, {t1[0]} (T1, 4 files) of 20200101, {t2[0]} (T2, 4 files) of {date}: "
            "see that they belong together"
        ]
        caplog.clear()


def test_images_in_different_folders_are_told(folder, caplog):
    touch(folder, "2019/flair.nii.gz", "2021/t1.nii.gz", "2021/t2.nii.gz", "old/scan.nii.gz")
    find_sequences(folder, CHANNELS)
    assert [record.getMessage() for record in caplog.records] == [
        f"the images lie in different folders, {folder / '2019'}, {folder / '2021'}: see that they belong together"
    ]
    caplog.clear()
    find_sequences(folder, CHANNELS, {"FLAIR"})
    assert not caplog.records


@pytest.mark.parametrize(
    ("description", "protocol", "tags", "found"),
    [
        ("AX T1", "", {"0018|0010": "GADOVIST"}, ["T1", "T1ce"]),
        ("AX T1", "", {"0018|0010": "NONE"}, ["T1"]),
        ("AX T1", "t1_mprage nativ", {"0018|0010": "GADOVIST"}, ["T1"]),
        ("AX T1 KM", "", {"0018|0010": "10 ml"}, ["T1ce"]),
        ("AX T1", "t1_mprage_KM", {}, ["T1", "T1ce"]),
        ("AX T1 KM", "t1_mprage", {}, ["T1ce"]),
        ("AX T1 KM", "", {"0008|0008": r"DERIVED\SECONDARY\SUBTRACTION"}, []),
        ("AX T1 KM", "", {"0008|0008": r"DERIVED\PRIMARY\SUB\NORM"}, []),
        ("T1 KM", "", {"0008|0008": r"DERIVED\SECONDARY\PROJECTION IMAGE\MIP"}, []),
        ("T2", "", {"0008|0008": r"DERIVED\PRIMARY\DIFFUSION\ADC"}, []),
        ("AX T1 KM", "", {"0008|0008": r"DERIVED\SECONDARY\MPR"}, ["T1ce"]),
        ("T1 planning", "", {"0008|0060": "CT"}, []),
    ],
)
def test_what_dicom_states_beside_the_description(folder, drawn, description, protocol, tags, found):
    write_series(drawn["T1"][:, :, :4], folder / "1", "1.2.3", description, protocol=protocol, tags=tags)
    write_series(drawn["FLAIR"][:, :, :4], folder / "2", "1.2.4", "FLAIR")
    if len(found) > 1:
        with pytest.raises(UserError, match="may be T1 or T1ce by its description, protocol and contrast agent: say"):
            find_sequences(folder, CHANNELS)
        named = {"T1ce": folder / "1"}  # as that line says
        assert set(find_sequences(folder, CHANNELS, named).images) == {"FLAIR"}
        return
    sequences = find_sequences(folder, CHANNELS)
    assert set(sequences.images) == {"FLAIR", *found}
    assert [series.description for series in sequences.passed_over] == ([] if found else [description])


def test_an_image_may_be_what_the_model_does_not_know(folder):
    touch(folder, "T1 vor und nach KM.nii", "t2.nii")
    with pytest.raises(
        UserError, match=r"may be T1 or T1ce by its name: say which image is which, --T1 FILE --T2 FILE"
    ):
        find_sequences(folder, ("T1", "T2"))
    assert set(find_sequences(folder, ("FLAIR", "T2")).images) == {"T2"}


def test_the_folder_of_a_file_may_contradict(folder):
    touch(folder, "T1_post_KM/T1.nii.gz", "x/FLAIR.nii.gz")
    with pytest.raises(UserError, match=r"T1.nii.gz may be T1 or T1ce by its name: "):
        find_sequences(folder, CHANNELS)
    given = {"T1ce": folder / "T1_post_KM" / "T1.nii.gz"}
    assert set(find_sequences(folder, CHANNELS, given).images) == {"FLAIR"}
    assert set(find_sequences(folder / "T1_post_KM", CHANNELS).images) == {"T1"}
    touch(folder / "b", "brain_tumor_t1_seg/T1.nii.gz", "p-t1ce.nii/p_t1ce.nii", "post/FLAIR.nii.gz", "post/T2.nii.gz")
    assert set(find_sequences(folder / "b", CHANNELS).images) == set(CHANNELS)


def test_files_of_other_formats_are_told(folder, caplog):
    touch(folder, "flair.nii.gz", "t1ce.hdr", "t1ce.img", "t1.mgz", "t2.PAR", "t2.nii.zip", "._t2.mgz", "notes.txt")
    find_sequences(folder, CHANNELS)
    named = ", ".join(str(folder / name) for name in ("t1.mgz", "t1ce.hdr", "t2.PAR", "t2.nii.zip"))
    assert [record.getMessage() for record in caplog.records] == [
        f"not read: {named}: convert to NIfTI what is of this patient"
    ]
    caplog.clear()
    touch(folder, "t1.mgz.part", "t1.nii (1).gz", "flair.nii.gz.part", "flair.nii.gz.json")
    find_sequences(folder, CHANNELS)
    assert f"{folder / 't1.nii (1).gz'}, {folder / 't1ce.hdr'}" in caplog.text
    assert "finish the download, unpack or rename, or convert to NIfTI what is of this patient" in caplog.text
    assert "flair.nii.gz" not in caplog.text
    (folder / "flair.nii.gz").unlink()
    with pytest.raises(
        UserError, match=r"\(there: .*t1.mgz.*\): finish .*, or convert to NIfTI, or say which image is which, --FLAIR"
    ):
        find_sequences(folder, CHANNELS)
