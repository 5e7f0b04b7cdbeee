import pytest

from nnunetv2_d2net.base.modality_names import modalities_of

CLEAR = {
    "FLAIR": [
        "flair",
        "BraTS19_x_1_flair",
        "Case-1-t2f",
        "T2_FLAIR",
        "ax 3D FLAIR fs",
        "t2_tirm_tra_dark-fluid",
        "3DFLAIR",
    ],
    "T1": ["t1", "P-1-t1n", "sub-01_T1w", "t1_mprage_sag", "T1 pre contrast", "T1 without gadolinium", "T1 native km"],
    "T1ce": ["t1ce", "x_T1Gd", "P-t1c", "sub-01_ce-gadolinium_T1w", "t1_post", "AX T1 +C", "T1 C+", "t1_mprage KM"],
    "T2": ["t2", "P-1-t2w", "sub-01_T2w", "t2_tse_tra", "T2 2D"],
}


@pytest.mark.parametrize(("modality", "text"), [(m, text) for m, texts in CLEAR.items() for text in texts])
def test_clear_names(modality, text):
    assert modalities_of(text) == {modality}
    assert modalities_of(text.upper()) == {modality}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scan",
        "seg",
        "t1_seg",
        "flair_lesions",
        "T2 localizer",
        "T1 map",
        "DWI T2 trace",
        "P1T1",
        "segmentation",
        "C+",
    ],
)
def test_names_of_no_modality(text):
    assert modalities_of(text) == set()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("T1 FLAIR", {"T1", "FLAIR"}),
        ("T1 T2 TSE", {"T1", "T2"}),
        ("T1 pre and post gd", {"T1", "T1ce"}),
        ("t1_t1ce", {"T1", "T1ce"}),
        ("FLAIR post contrast", {"FLAIR"}),
    ],
)
def test_names_of_several(text, meant):
    assert modalities_of(text) == meant
