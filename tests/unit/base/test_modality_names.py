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
    "T1": [
        *("t1", "P-1-t1n", "sub-01_T1w", "t1_mprage_sag", "T1 pre contrast", "T1 without gadolinium", "T1 native km"),
        *("AX T1 W/O CONTRAST", "T1 W/O GD", "T1W/O gd", "ax_t1_w_o_gd", "T1 ohne KM", "t1 vor KM", "T1 SANS GADO"),
        *("T1 avant gado", "T1 minus contrast", "T1 unenhanced", "T1 non-enhanced"),
        *("post_op_t1", "T1 post-op", "T1 post RT", "t1_post_treatment", "T1 post op without gd"),
    ],
    "T1ce": [
        *("t1ce", "x_T1Gd", "P-t1c", "sub-01_ce-gadolinium_T1w", "t1_post", "AX T1 +C", "T1 C+", "t1_mprage KM"),
        *("t1_C+", "T1+C", "T1+K", "T1 enhanced", "pre_op_t1_gd", "T1 pre-op post contrast", "t1_vor_op_km"),
        *("no_5_t1_gd", "T1_KM", "kow_o_t1_gd"),
    ],
    "T2": ["t2", "P-1-t2w", "sub-01_T2w", "t2_tse_tra", "T2 2D", "t2_starvibe"],
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
        *("AX T2* GRE", "3-pl T2* FGRE S", "T2 star", "t2_fl2d_tra_hemo", "BOLD T2", "ep2d T2"),
        *("T2 c-spine", "T1 C+ SPINE"),
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
