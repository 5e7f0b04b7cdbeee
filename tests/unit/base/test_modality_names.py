import pytest

from nnunetv2_d2net.base.modality_names import modalities_beside, modalities_of

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
        *("T1 KM-", "T1 -KM", "T1 C-", "T1 o. KM", "T1 v. KM", "T1 ohneKM", "T1 vor KM-Gabe", "T1 nicht KM"),
        *("T1 sans injection", "T1 non injecté", "T1 sans injection de gadolinium", "T1 natif"),
        *("T1 senza mdc", "T1 senza mezzo di contrasto", "T1 sin contraste", "T1 s/ contraste", "T1 S/C"),
        *(
            "T1 prä KM",
            "T1_prae_KM",
            "T1 präkontrast",
            "T1 KM-frei",
            "T1 keine KM",
            "T1 kein Kontrastmittel",
            "T1 KM nein",
        ),
        *(
            "T1 ss gado",
            "T1 SS INJ",
            "T1 pas de gado",
            "T1 avant l'injection",
            "T1_S_CONTRASTE",
            "T1 s/gd",
            "T1 sin cte",
        ),
        *("T1 previo a contraste", "T1 s/mdc", "T1 S. MDC", "T1 privo di mdc", "T1 un-enhanced", "T1 contrast-free"),
        *("T1 contrast none", "T1 W/OUT CONTRAST", "T1 prior to contrast", "T1 (Gd-)", "T1 [Gd-]", "T1 (-Gd)"),
        *("T1_Gd_neg", "T1C-", "T1 zonder contrast", "T1 voor contrast", "T1 utan kontrast", "T1 uden kontrast"),
        *("T1 uten kontrast", "T1 før kontrast", "T1 bez kontrast", "T1 fara contrast", "T1 kontrast öncesi"),
        *("T1 not with contrast", "T1 without intravenous contrast", "T1 ohne CM", "T1 vor Gabe von KM"),
        *("T1_mpr_ns_sag_p2_iso", "3D_T1_TFE", "t1_tse_tra", "T1_SE_AX", "IXI002-Guys-0828-T1", "AX T1 WITH FAT SAT"),
        *(
            "T1W_3D_TFE_SENSE",
            "t1_fl3d_cor",
            "BraTS-MET-00001-000-t1n",
            "T1 pós-op",
            "T1 nach OP",
            "T1_1mm_brain",
            "T1_w",
        ),
        *("MNI152_T1_1mm_brain", "T1 (1)", "copy of T1", "T1_N4_bet", "T1_2019-05-01", "T1_control_01", "T1_3cm"),
        *("T1_GRE", "T1 FFE", "t1_fl2d_tra", "T1_bias", "T1_bias_field_corrected", "T1_masked", "T1_warped"),
        *(
            "sub-tumor01_T1w",
            "sub-CTV03_T1w",
            "sub-neck_T1w",
            "sub_01_T1w",
            "sub-01_ses-post_T1w",
            "study_sub-01_T1w",
            "T1_sub-01",
            "tumor_01_T1",
        ),
    ],
    "T1ce": [
        *("t1ce", "x_T1Gd", "P-t1c", "sub-01_ce-gadolinium_T1w", "t1_post", "AX T1 +C", "T1 C+", "t1_mprage KM"),
        *("t1_C+", "T1+C", "T1+K", "T1 enhanced", "pre_op_t1_gd", "T1 pre-op post contrast", "t1_vor_op_km"),
        *("no_5_t1_gd", "T1_KM", "kow_o_t1_gd", "sub-01_ses-pre_ce-gadolinium_T1w", "T1_tumor_gd"),
        *("T1 nach Gadovist", "T1 mit Kontrastmittel", "T1 Kontrast", "T1 nachKM", "T1 kontrastverstärkt", "T1 IV KM"),
        *("T1 Dotarem", "T1 Magnevist", "T1 ProHance", "T1 Omniscan", "T1 MultiHance", "T1 Clariscan", "T1_gadobutrol"),
        *("T1 injecté", "T1 injectée", "T1 avec injection", "T1 après injection", "T1 gadoliniée"),
        *("T1 con contraste", "T1 c/ contraste", "T1 con gadolinio", "T1 após contraste"),
        *("T1 con mdc", "T1 dopo mdc", "T1 con mezzo di contrasto", "T1 CIV"),
        *("T1 INJ", "T1 inj.", "T1 PDC", "T1 enh", "T1 contr", "T1_KONTR", "T1+", "T1 +", "T1 mit CM", "T1 Dotavist"),
        *("T1 Artirem", "T1 con cte", "T1 efter kontrast", "T1 met contrast", "T1 pós contraste", "T1 dopo il mdc"),
        *("sub-1_acq-highres_ce-gadolinium_T1w", "T1W_SE_GD_SENSE", "AX T1 FSE FS GD", "t1_blade_tra_KM_320"),
        *("t1_mprage_sag_iso_KM_MPR_tra", "3D_AX_T1_postcontrast", "UCSF-PDGM-0004_T1gad_bias", "T1_ss_post_gd"),
        *("T1 IV+", "t1_postGd", "T1_plus_C", "T1_c", "T1 - KM", "T1 C+ - FS", "T1post"),
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
        *("T1_Maske", "T1 masque", "T1 maschera", "T1 máscara", "flair_segmentierung", "flair_segmentazione"),
        *("flair_segmentación", "flair_lesionmask", "flair_WMH", "t1_gt", "flair_pred", "T1_pve_1", "T1_aseg"),
        *("T1_GTV", "T1_ROIs", "T1ce_tumor", "BrainExtractionMask_T1", "T1 Läsion", "sub T1w"),
        *("T1_sub", "t1_mprage_sub", "T1_sub_3mm", "T1 Subtraktion", "T1 Differenz", "T1_gd_sub", "SUB: T1 post - pre"),
        *("soustraction T1 gado", "relCBV T2", "T2 TTP", "T2_mapping", "T1 ktrans", "T2_TRACEW", "T1_bias_field"),
        *("T1_biasfield", "T1_jacobian", "T2_GRE", "T2W_FFE", "t2_fl2d", "T2 SWAN"),
        *("T1 MRA", "TOF T1", "T1 MIP", "T1 survey", "T1 loc", "T1 HWS", "T2 cervical", "T2_neck"),
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
        ("T1 vor und nach KM", {"T1", "T1ce"}),
        ("pre_T1_KM", {"T1", "T1ce"}),
        ("T1 W & W/O", {"T1", "T1ce"}),
        ("T1 con e senza mdc", {"T1", "T1ce"}),
        ("T1 c/s contraste", {"T1", "T1ce"}),
        ("T1 +/- KM", {"T1", "T1ce"}),
        ("T1-C", {"T1", "T1ce"}),
        ("T1 i.v.", {"T1", "T1ce"}),
        ("T1 contrastarm", {"T1", "T1ce"}),
        ("T1 injectx", {"T1", "T1ce"}),
        ("post_t1n", {"T1", "T1ce"}),
        *(
            (f"T1 {word}", {"T1", "T1ce"})
            for word in ("POS", "après", "nach", "mit", "CM", "W/C", "W/", "cont", "delayed")
        ),
        *(
            (f"T1 {words}", {"T1", "T1ce"})
            for words in (
                "lacking contrast",
                "baseline Gd",
                "prior contrast",
                "GD=0",
                "Gd ikke",
                "s kontrast",
                "sense gd",
            )
        ),
        ("t1_t1ce", {"T1", "T1ce"}),
        ("FLAIR post contrast", {"FLAIR"}),
    ],
)
def test_names_of_several(text, meant):
    assert modalities_of(text) == meant


@pytest.mark.parametrize(
    ("text", "beside", "agent", "meant"),
    [
        ("AX T1", ["t1_mprage_KM"], False, {"T1", "T1ce"}),
        ("AX T1", ["t1_mprage nativ"], False, {"T1"}),
        ("AX T1", ["t1ce"], False, {"T1", "T1ce"}),
        ("AX T1 KM", ["t1_mprage"], False, {"T1ce"}),
        ("AX T1 KM", ["t1_mprage nativ"], False, {"T1", "T1ce"}),
        ("AX T1", ["BRAIN W WO CONTRAST", "post", "T1 T2 FLAIR KM"], False, {"T1"}),
        ("AX T1", [""], True, {"T1", "T1ce"}),
        ("AX T1 nativ", [], True, {"T1"}),
        ("AX T1", ["t1 ohne KM"], True, {"T1"}),
        ("AX T1 KM", [], True, {"T1ce"}),
        ("FLAIR", ["T1 KM"], True, {"FLAIR"}),
        ("T1_seg", ["T1"], True, set()),
    ],
)
def test_words_beside_may_contradict(text, beside, agent, meant):
    assert modalities_beside(text, beside, agent=agent) == meant
