"""Every command: what it is for, examples, the page to read on, and the command of nnU-Net that gets its other words.

The page is one of docs/, which the package brings; ``d2net help PAGE`` prints it.
"""

from typing import NamedTuple


class Command(NamedTuple):
    """One command.

    Attributes:
        summary: What it is for, in a line.
        page: Name of the page that says more, without ending.
        examples: Calls that make sense.
        nnunet: nnU-Net's command that gets the words that ours does not know; empty where there is none.
    """

    summary: str
    page: str
    examples: tuple[str, str]
    nnunet: str = ""


GROUPS = {
    "one patient": {
        "segment": Command(
            "segment one patient from FLAIR, T1, T1ce, T2 or any of them: files, a folder or DICOM, on a GPU or a CPU",
            "segment",
            ("d2net segment patient -o out", "d2net segment --FLAIR flair.nii.gz --T1ce t1ce.nii.gz -o out"),
        ),
    },
    "data": {
        "convert": Command(
            "turn BraTS folders, or your own, into a raw data set of nnU-Net; cases may lack modalities",
            "data",
            ("d2net convert BraTS2020 -d 4 --name BraTS2020", "d2net convert exams --check"),
        ),
        "convert_back": Command(
            "give predictions the label values of the folders that were converted",
            "data",
            (
                "d2net convert_back -i predictions -o brats -d 4",
                "d2net convert_back -i predictions -o brats --mapping exams.yaml",
            ),
        ),
        "inspect": Command(
            "look at a raw data set: who has which modality, volumes, intensities, cases that look wrong",
            "inspect",
            ("d2net inspect -d 4", "d2net inspect -d 4 --split Ts -o report"),
        ),
        "phantom": Command(
            "write a data set of simulated brain MRI with gliomas",
            "phantom",
            ("d2net phantom -d 901", "d2net phantom -d 901 --train 50 --test 32 --kind varied --seed 1"),
        ),
    },
    "train": {
        "plan_and_preprocess": Command(
            "plan for D2-Net's memory and preprocess: nnUNetv2_plan_and_preprocess with our planner",
            "usage",
            ("d2net plan_and_preprocess -d 4", "d2net plan_and_preprocess -d 4 -c 3d_fullres -np 4"),
            "nnUNetv2_plan_and_preprocess",
        ),
        "extract_fingerprint": Command(
            "the first of its steps alone: check every training case and describe the cohort",
            "usage",
            ("d2net extract_fingerprint -d 4", "d2net extract_fingerprint -d 4 --clean"),
            "nnUNetv2_extract_fingerprint",
        ),
        "plan": Command(
            "the second step alone",
            "usage",
            ("d2net plan -d 4", "d2net plan -d 4 -pl D2NetSmallPlanner"),
            "nnUNetv2_plan_experiment",
        ),
        "preprocess": Command(
            "the third step alone: with plans that are there, also edited ones or those of another data set",
            "usage",
            ("d2net preprocess -d 4 -c 3d_fullres", "d2net preprocess -d 4 -plans_name nnUNetPlans -c 3d_fullres"),
            "nnUNetv2_preprocess",
        ),
        "train": Command(
            "train D2-Net: nnUNetv2_train with our trainer and plans",
            "usage",
            ("d2net train 4 3d_fullres 0", "d2net train 4 3d_fullres 0 --start_from nnUNetTrainer"),
            "nnUNetv2_train",
        ),
        "pretrain": Command(
            "a model for real patients from simulated ones alone: hours on 2 CPU cores",
            "pretrained",
            ("d2net pretrain -o pretrained", "d2net pretrain -o pretrained --cases 500 --epochs 50 -device cuda"),
        ),
    },
    "predict": {
        "predict": Command(
            "predict with any subset of the modalities: nnUNetv2_predict, and --modalities, --drop, --all_subsets",
            "prediction",
            (
                "d2net predict -i imagesTs -o predictions -d 4 -c 3d_fullres -f 0",
                "d2net predict -i imagesTs -o predictions -d 4 -c 3d_fullres -f 0 --all_subsets",
            ),
            "nnUNetv2_predict",
        ),
        "export": Command(
            "write a trained model for prediction alone",
            "prediction",
            ("d2net export MODEL -o model.zip", "d2net export MODEL -o model.zip -f 0 1 2 --half"),
        ),
    },
    "judge": {
        "evaluate": Command(
            "score predictions: Dice, HD95, ASSD and surface Dice by subset and region",
            "metrics",
            ("d2net evaluate -i predictions -r labelsTs", "d2net evaluate -i predictions -r labelsTs --tolerance 2"),
        ),
        "benchmark": Command(
            "train several trainers alike, predict every subset, and compare",
            "benchmark",
            (
                "d2net benchmark -d 4 -c 3d_fullres",
                "d2net benchmark -d 4 -c 3d_fullres --start_from nnUNetTrainer_500epochs",
            ),
        ),
        "report": Command(
            "make one HTML page of a benchmark, with cases to look at",
            "report",
            (
                "d2net report d2net_benchmark_Dataset004_3d_fullres",
                "d2net report OUT -o page.html --cases 12",
            ),
        ),
        "repeats": Command(
            "compare benchmarks that were trained anew: what is more than chance",
            "benchmark",
            (
                "d2net repeats bench_1 bench_2 bench_3",
                "d2net repeats bench_1 bench_2 --against nnUNetTrainer -o page.md",
            ),
        ),
        "study": Command(
            "measure the tables of the paper: train the rows, predict every subset, lay it beside what is printed",
            "paper_tables",
            ("d2net study --list", "d2net study IV -d 4 --epochs 100"),
        ),
        "figures": Command(
            "draw the paper's figures of a trained model: patterns of absence, codes and tumor features",
            "paper_tables",
            ("d2net figures MODEL -i imagesTs -o figures", "d2net figures MODEL -i imagesTs -o figures --before OTHER"),
        ),
    },
    "set up": {
        "demo": Command(
            "all of it, once, on phantom data: about 6 minutes on 2 CPU cores",
            "usage",
            ("d2net demo", "d2net demo -o elsewhere"),
        ),
        "completion": Command(
            "print a script that completes the words of d2net in bash, zsh or tcsh",
            "usage",
            ('eval "$(d2net completion bash)"', "d2net completion zsh > ~/.zfunc/_d2net"),
        ),
        "trainers": Command(
            "print the folder for nnUNet_extTrainer",
            "usage",
            ("d2net trainers", 'export nnUNet_extTrainer="$(d2net trainers)"'),
        ),
        "register": Command(
            "let nnUNetv2_* commands find our trainers and planners with no variable set",
            "usage",
            ("d2net register", "d2net register && nnUNetv2_train 4 3d_fullres 0 -tr D2NetTrainer"),
        ),
        "unregister": Command("take 'd2net register' back", "usage", ("d2net unregister", "d2net register")),
    },
}

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
