"""What nnU-Net's commands take, in a line each: our commands hand it on, and list it in their help.

nnU-Net's parsers exist only within its entry points, whose import takes seconds; a test compares the names.
"""

_DEVICE = ("-device", "NAME", "cuda, cpu or mps")
_TRAINER = ("-tr", "TRAINER", "trainer (D2NetTrainer)")
_PLANS = ("-p", "PLANS", "plans (D2NetPlans)")
_DATASETS = ("-d", "ID ...", "data sets, by number or name")
_VERBOSE = ("--verbose", "", "print more")
_NO_BAR = ("--no_pbar", "", "no progress bars")
_CLEAN = ("--clean", "", "extract the fingerprint anew")
_INTEGRITY = ("--verify_dataset_integrity", "", "look at every case first, as we always do")
_FINGERPRINT = ("-fpe", "CLASS", "fingerprint extractor")
_PLANNER = ("-pl", "PLANNER", "planner (D2NetPlanner)")
_PLANNING = (
    _PLANNER,
    ("-gpu_memory_target", "GB", "plan for this much memory of a GPU"),
    ("-preprocessor_name", "CLASS", "preprocessor"),
    ("-overwrite_target_spacing", "MM ...", "three numbers, for the full resolution"),
    ("-overwrite_plans_name", "NAME", "name of the plans, for -p of later commands"),
)
_CONFIGURATIONS = ("-c", "CONFIG ...", "configurations, such as 3d_fullres (2d 3d_fullres 3d_lowres)")
_PROCESSES_OF_EACH = ("-np", "N ...", "processes, one number or one for each configuration")

ARGUMENTS = {
    "nnUNetv2_train": (
        _TRAINER,
        _PLANS,
        ("-pretrained_weights", "FILE", "checkpoint to start from"),
        ("-num_gpus", "N", "GPUs to train on"),
        ("--npz", "", "keep the probabilities of the final validation, for ensembles"),
        ("--c", "", "go on from the last checkpoint"),
        ("--val", "", "only the final validation, of a finished training"),
        ("--val_best", "", "that with checkpoint_best"),
        ("--disable_checkpointing", "", "write no checkpoints"),
        _DEVICE,
    ),
    "nnUNetv2_predict": (
        ("-i", "FOLDER", "images"),
        ("-o", "FOLDER", "for the segmentations"),
        ("-d", "ID", "data set that the model was trained on"),
        _PLANS,
        _TRAINER,
        ("-c", "CONFIG", "configuration, such as 3d_fullres"),
        ("-f", "FOLD ...", "folds that predict together (0 1 2 3 4)"),
        ("-step_size", "SHARE", "of a tile, from one tile to the next (0.5)"),
        ("--disable_tta", "", "predict without mirroring, several times faster"),
        _VERBOSE,
        ("--save_probabilities", "", "keep them, for ensembles of configurations"),
        ("--continue_prediction", "", "go on with what an earlier call left"),
        ("-chk", "NAME", "checkpoint (checkpoint_final.pth)"),
        ("-npp", "N", "processes that preprocess (3)"),
        ("-nps", "N", "processes that write (3)"),
        ("-prev_stage_predictions", "FOLDER", "refused: a cascade's first stage is no modality"),
        ("-num_parts", "N", "split the cases into so many calls (1)"),
        ("-part_id", "K", "which of them this is, from 0"),
        _DEVICE,
        ("--disable_progress_bar", "", "no progress bar"),
        ("--not_on_device", "", "keep the probabilities in main memory"),
    ),
    "nnUNetv2_plan_and_preprocess": (
        _DATASETS,
        _FINGERPRINT,
        ("-npfp", "N", "processes that extract the fingerprint (8)"),
        _INTEGRITY,
        ("--no_pp", "", "plan only"),
        _CLEAN,
        *_PLANNING,
        _CONFIGURATIONS,
        _PROCESSES_OF_EACH,
        _VERBOSE,
        _NO_BAR,
    ),
    "nnUNetv2_extract_fingerprint": (
        _DATASETS,
        _FINGERPRINT,
        ("-np", "N", "processes (8)"),
        _INTEGRITY,
        _CLEAN,
        _VERBOSE,
        _NO_BAR,
    ),
    "nnUNetv2_plan_experiment": (_DATASETS, *_PLANNING),
    "nnUNetv2_preprocess": (
        _DATASETS,
        ("-plans_name", "PLANS", "plans (D2NetPlans)"),
        _CONFIGURATIONS,
        _PROCESSES_OF_EACH,
        _VERBOSE,
        _NO_BAR,
    ),
}
