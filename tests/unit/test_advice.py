"""Every command line and option that a message advises exists, and a test runs it in the situation that it is for."""

import argparse
import ast
import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pytest
import SimpleITK as sitk
from nnunetv2.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert_entry_point

import nnunetv2_d2net
from nnunetv2_d2net.base.dataset import Dataset
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.cli._commands import COMMANDS
from nnunetv2_d2net.cli._nnunet_arguments import ARGUMENTS
from nnunetv2_d2net.data.convert.layouts import layout_of
from tests.conftest import nnunet_environment

PACKAGE = Path(nnunetv2_d2net.__file__).parent
TESTS = Path(__file__).parents[1]
WORD = r"(?: (?:--?[a-z]\w*|[A-Z]{2,}\w*|\{\}|\d\w*|D2Net\w+|Dataset\w+))"
COMMAND = re.compile(rf"\b(?:d2net (?:[a-z_]+|\{{\}})|nnUNetv2_\w+){WORD}+")
OPTION = re.compile(r"(?<![\w-])--?[a-z]{2}\w*")
NNUNET = {
    "train": "nnunetv2.run.run_training:run_training_entry",
    "predict": "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
    **{
        name: f"nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:{entry}"
        for name, entry in {
            "plan": "plan_experiment_entry",
            "preprocess": "preprocess_entry",
            "extract_fingerprint": "extract_fingerprint_entry",
            "plan_and_preprocess": "plan_and_preprocess_entry",
        }.items()
    },
}
CONVERT, STEPS = "unit/cli/test_convert.py", "integration/test_steps_one_by_one.py"
RUN_BY = {
    "d2net pretrain -o FOLDER": ("integration/test_pretrain.py", "test_from_nothing_to_a_model_and_again"),
    "d2net benchmark -d ID -c CONFIG": (
        "integration/test_benchmark_command.py",
        "test_killed_then_resumed_then_nothing_to_do",
    ),
    "d2net inspect -d ID": ("unit/cli/test_inspect.py", "test_tables_and_pictures"),
    "d2net {} --help": ("unit/cli/test_main.py", "test_every_command_has_help"),
    "d2net convert SOURCE -d ID --name NAME": (CONVERT, "test_check_then_convert_then_back"),
    "d2net convert {}": ("integration/test_convert.py", "test_nnunet_accepts_a_complete_cohort"),
    "d2net evaluate -i PREDICTIONS -r REFERENCES": ("unit/cli/test_evaluate.py", "test_tables_are_printed_and_written"),
    "d2net extract_fingerprint -d {} --clean": (STEPS, "test_a_fingerprint_of_other_data_is_refused_and_stays"),
    "d2net plan -d {}": (STEPS, "test_the_remedy_for_plans_that_are_not_there"),
    "d2net plan_and_preprocess -d {}": (STEPS, "test_the_remedy_before_any_planning"),
    "d2net preprocess -d {} -plans_name {} -c {}": (
        STEPS,
        "test_the_remedy_for_plans_that_are_there_plans_nothing_anew",
    ),
    "d2net predict --all_subsets": ("integration/test_any_subset.py", "test_all_subsets_equal_separate_calls"),
    "d2net segment FOLDER -o OUT": ("integration/test_segment.py", "test_with_no_variable_set"),
    "d2net train --start_from": ("integration/test_companion.py", "test_it_started_from_the_stock_models_weights"),
    "d2net train 7 3d_fullres 0": ("integration/test_cycles.py", "test_a_finished_training_leaves_nnunets_files"),
    "d2net train {} {} 0": ("integration/test_cycles.py", "test_a_finished_training_leaves_nnunets_files"),
    "d2net train {} {} {}": ("integration/test_cycles.py", "test_a_finished_training_leaves_nnunets_files"),
    "nnUNetv2_convert_old_nnUNet_dataset {} DatasetXXX_NAME": (
        "unit/test_advice.py",
        "test_a_data_set_of_nnunet_v1_is_converted_by_the_command_that_is_named",
    ),
    "nnUNetv2_plan_experiment -pl D2NetPlanner": (
        "integration/test_discovery.py",
        "test_registered_classes_are_found_with_no_variable_set",
    ),
    "nnUNetv2_train -tr D2NetTrainer": (
        "integration/test_discovery.py",
        "test_registered_classes_are_found_with_no_variable_set",
    ),
    "d2net predict -i FOLDER -o FOLDER -d ID -c CONFIGURATION": (
        "integration/test_cycles.py",
        "test_prediction_has_the_images_geometry_and_legal_labels",
    ),
    **{
        f"d2net {command} -d ID": (STEPS, "test_each_way_is_right_or_one_line") for command in ("{}", *list(NNUNET)[2:])
    },
    "d2net train ID CONFIGURATION FOLD": (
        "integration/test_cycles.py",
        "test_a_finished_training_leaves_nnunets_files",
    ),
    # what a command says to do next: each is read by the parsers where it is told, and run by the test of the command
    **dict.fromkeys(
        (
            "d2net preprocess -d {} -plans_name {}",
            "d2net predict -i {} -o {} -d {} -c {} -f {}",
            "d2net evaluate -i {} -r {}",
            "d2net segment {} -m {} -o {}",
            "d2net benchmark {}",
            "d2net repeats {}",
            "d2net figures {} -i {} -o {}",
            "d2net inspect -d {}",
        ),
        ("unit/cli/test_next.py", "test_the_next_step_is_told"),
    ),
    # options that a refusal names
    "--resample": (CONVERT, "test_resample_is_told"),
    "--labels": (CONVERT, "test_labels_of_another_year_are_asked_about_before_anything_is_written"),
    "--nan_outside_as_zero": ("unit/cli/test_predict.py", "test_nan_may_be_taken_as_zero"),
    "--label_header_from_images": (
        "unit/data/convert/test_one_case.py",
        "test_a_segmentation_whose_header_was_lost_takes_the_images_grid_where_asked_for",
    ),
    "--continue_prediction": (
        "integration/test_any_subset.py",
        "test_an_interrupted_run_goes_on_and_leaves_nothing_half_written",
    ),
    "--subsets_per_pass": ("unit/plugin/prediction/test_all_subsets.py", "test_subsets_per_pass_bounds_the_batch"),
}


def messages():
    """Every text of the package with its file, ``{}`` for what it takes from elsewhere; no docstring, no usage."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree, passed = ast.parse(path.read_text(encoding="utf-8")), set[ast.AST]()
        for node in ast.walk(tree):
            if node in passed:
                passed.update(ast.iter_child_nodes(node))
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                passed.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                passed.update(node.values)
                parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                yield path, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path, node.value


def advised():
    """Command lines in messages; those in help are examples, which another test parses."""
    texts = [text for path, text in messages() if path.name not in ("_commands.py", "_help.py")]
    return {match[0] for text in texts for match in COMMAND.finditer(text)}


def options_of(command):
    """Every option that a command knows, nnU-Net's included."""
    parser = argparse.ArgumentParser(add_help=False)
    import_module(f"nnunetv2_d2net.cli.{command}").add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    known.update(
        re.findall(r"['\"](--?[a-z]\w*)['\"]", inspect.getsource(import_module(f"nnunetv2_d2net.cli.{command}")))
    )
    if command in NNUNET:
        module, _, entry = NNUNET[command].partition(":")
        source = inspect.getsource(getattr(import_module(module), entry))
        known.update(re.findall(r"['\"](--?[a-zA-Z]\w*)['\"]", source))
    return known


def test_commands_that_are_advised_exist_with_their_options():
    for line in advised():
        _, command, *words = line.split()
        if line.startswith("d2net") and command != "{}":
            assert command in COMMANDS, line
            unknown = {word for word in words if word.startswith("-")} - options_of(command)
            assert not unknown, line


def test_options_that_are_named_exist():
    known = set().union(*map(options_of, COMMANDS)) | {
        "--help",
        "--version",
        "--nproc",
        "-dc",
    }  # some of other programs
    known |= {flag for taken in ARGUMENTS.values() for flag, _, _ in taken}
    pages = ("study/report", "data/phantom")  # their styles and names of files look like options
    texts = [(path, text) for path, text in messages() if not str(path.relative_to(PACKAGE)).startswith(pages)]
    named = {match[0]: path for path, text in texts for match in OPTION.finditer(text)}
    assert not named.keys() - known, {option: named[option] for option in named.keys() - known}


def test_a_test_runs_every_command_that_is_advised():
    assert advised() == {line for line in RUN_BY if not line.startswith("-")}
    for line, (file, name) in RUN_BY.items():
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE), (line, name)


def test_a_data_set_of_nnunet_v1_is_converted_by_the_command_that_is_named(tmp_path, monkeypatch):
    source = tmp_path / "Task007_Old"
    for folder in ("imagesTr", "labelsTr"):
        (source / folder).mkdir(parents=True)
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a"):
        sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(source / f"{name}.nii.gz"))
    content = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "lesion"}, "training": [{}]}
    content |= {"name": "Old", "numTraining": 1, "numTest": 0, "test": [], "tensorImageSize": "3D"}
    content |= dict.fromkeys(("description", "reference", "licence", "release"), "")
    (source / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as error:
        layout_of(source)
    words = re.search(r"nnUNetv2_convert_old_nnUNet_dataset .*$", str(error.value))[0].split()
    with nnunet_environment(tmp_path) as root:
        monkeypatch.setattr("sys.argv", [*words[:-1], words[-1].replace("DatasetXXX_NAME", "Dataset007_New")])
        convert_entry_point()
        dataset = Dataset.read(root / "raw" / "Dataset007_New" / "dataset.json")
        assert dataset.channels == ("T1", "T2")
        assert list(dataset.cases(root / "raw" / "Dataset007_New", "Tr")) == ["a"]
