import codecs
import json
from copy import deepcopy

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.planning.plans import check_networks, preprocessed_folder, read_plans
from nnunetv2_d2net.plugin.training.dropping import nnUNetTrainerModalityDropout
from nnunetv2_d2net.plugin.training.trainer import D2NetTrainer
from tests.unit.conftest import whole_plans
from tests.unit.plugin.preprocessing.conftest import architecture, build_plans

UNETS = "dynamic_network_architectures.architectures.unet"
OLD = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 8,
    "n_conv_per_stage_encoder": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "num_pool_per_axis": [1, 1, 1],
    "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
    "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "plans.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def changed(keys, value):
    """Whole plans with one value replaced, or without it."""
    plans = whole_plans()
    inside = plans
    for key in keys[:-1]:
        inside = inside[key]
    if value is KeyError:
        del inside[keys[-1]]
    else:
        inside[keys[-1]] = value
    return plans


IN = ("configurations", "3d_fullres")


def paths_of(content, keys=()):
    """The way to every value of which nnU-Net takes the type for granted."""
    for key, value in content.items():
        yield (*keys, key)
        if isinstance(value, dict) and key not in ("arch_kwargs",) and not key.endswith("_kwargs"):
            yield from paths_of(value, (*keys, key))


@pytest.mark.parametrize("keys", [k for k in paths_of(whole_plans()) if k not in (IN, ("label_manager",))])
@pytest.mark.parametrize("value", [KeyError, None, 3.5])
def test_a_value_that_is_missing_or_of_another_type_is_named(write, keys, value):
    path = write(changed(keys, value))
    with pytest.raises(UserError, match=f'"{keys[-1]}".*: do so') as error:
        read_plans(path, "do so")
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "value", "part"),
    [
        ((*IN, "patch_size"), [8, "8", 8], r'"patch_size\[1\]" is a text'),
        ((*IN, "normalization_schemes"), [None], r'"normalization_schemes\[0\]" is null'),
        (IN, "tiny", '"3d_fullres" is a text'),
        (IN, {"inherits_from": "2d"}, '"configurations" lacks "2d"'),
        (IN, {"inherits_from": "3d_fullres"}, "3d_fullres inherits from itself"),
        (IN, {"inherits_from": 3}, '"inherits_from" is a whole number'),
        (("configurations",), [], '"configurations" is a list'),
        (("label_manager",), 5, '"label_manager" is a whole number'),
        (("dataset_name",), "/home/me/Dataset001_X", "dataset_name.*no name of a data set like Dataset007_Name"),
        (("dataset_name",), "../../Dataset001_X", "dataset_name"),
        (("d2net_orientation",), "LPX", "\"d2net_orientation\" is 'LPX', no orientation such as LPS"),
        (("d2net_orientation",), ["LPS"], '"d2net_orientation" is a list'),
        (("plans_name",), "../escaped", "plans_name.*another folder"),
        ((*IN, "data_identifier"), "..", "data_identifier.*another folder"),
        ((*IN, "data_identifier"), "/etc", "data_identifier.*another folder"),
    ],
)
def test_other_contradictions(write, keys, value, part):
    with pytest.raises(UserError, match=part):
        read_plans(write(changed(keys, value)))


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"5",
        b'{"dataset_name": "Data',
        json.dumps(whole_plans()).encode("utf-16"),
        codecs.BOM_UTF8 + json.dumps(whole_plans()).encode(),
        json.dumps(whole_plans(name="Müller"), ensure_ascii=False).encode("latin-1"),
    ],
)
def test_what_is_no_object_in_utf_8_is_refused(write, content):
    """As nnU-Net does, which cannot read it either."""
    with pytest.raises(UserError, match=r"plans\.json .*: copy it from nnUNet_preprocessed") as error:
        read_plans(write(content))
    assert "\n" not in str(error.value)


def test_an_heir_has_its_parents_data(write):
    path = write(whole_plans({"2d": {"data_identifier": "Plans_2d"}, "heir": {"inherits_from": "2d"}}))
    assert preprocessed_folder(path, "heir", "") == path.parent / "Plans_2d"


HARMLESS = [
    (UNETS + ".PlainConvUNet", "torch.nn.modules.conv.Conv3d"),
    (UNETS + ".ResidualEncoderUNet", "torch.nn.LeakyReLU"),
    ("dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet", "torch.nn.Conv2d"),
    (UNETS + ".ResidualUNet", "dynamic_network_architectures.building_blocks.residual.BasicBlockD"),
]
HOSTILE_NETWORKS = [
    "torch.hub.load",
    "torch.nn.Conv3d",
    UNETS + ".torch.hub.load",
    UNETS + ".nn.Module",
    UNETS + ".Union",
    UNETS + ".PlainConvUNet.mro",
    UNETS + ".PlainConvUNet.__init__.__globals__",
    "dynamic_network_architectures.architectures.abstract_arch.test_submodules_loadable",
    "PlainConvUNet",
    "os.PlainConvUNet",
    "",
]
HOSTILE_LAYERS = [
    "os.system",
    "builtins.exec",
    "torch.nn.modules.module.torch.os.system",
    "torch.nn.functional.relu",
    "torch.nn.functional.torch.hub.load",
    "torch.nn.modules.module.OrderedDict",
    "torch.nn.Parameter",
    "torch.nn.Module.apply",
    "torch.nn.init.calculate_gain",
    "torch.nn...os.system",
    "torch.nnx.LeakyReLU",
    "torch.nn.NoSuchLayer",
    "torch.nn",
    5,
    ["torch.nn.Conv3d"],
]


def with_names(network=HARMLESS[0][0], layer=HARMLESS[0][1]):
    parts = {"network_class_name": network, "arch_kwargs": {"op": layer}, "_kw_requires_import": ["op"]}
    return whole_plans({"2d": {}, "3d_fullres": {"architecture": parts}, "heir": {"inherits_from": "2d"}})


@pytest.mark.parametrize("names", HARMLESS)
def test_networks_and_layers_of_plans_that_are_harmless(write, names):
    assert check_networks(write(with_names(*names))) == with_names(*names)


@pytest.mark.parametrize(
    "plans", [with_names(n) for n in HOSTILE_NETWORKS] + [with_names(layer=n) for n in HOSTILE_LAYERS]
)
def test_code_from_elsewhere_is_refused(write, plans):
    with pytest.raises(UserError, match=r"plans\.json: configuration 3d_fullres names code from elsewhere"):
        check_networks(write(plans))


def test_nothing_that_is_named_is_imported(write, tmp_path, monkeypatch):
    for name in ("evil", "torch_nn"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').close()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for plans in (with_names("evil.Net"), with_names(layer="evil.Layer"), with_names(layer="torch_nn.Layer")):
        with pytest.raises(UserError, match="code from elsewhere"):
            check_networks(write(plans))
    assert not (tmp_path / "RAN").exists()


def test_an_argument_that_is_to_be_imported_is_there(write):
    plans = with_names()
    plans["configurations"]["3d_fullres"]["architecture"]["_kw_requires_import"] = ["other"]
    with pytest.raises(UserError, match='"arch_kwargs" lacks "other"'):
        check_networks(write(plans))


@pytest.mark.parametrize("name", ["recursive_find_python_class", "os", "join", "NoSuchThing", "np.load", "os.system"])
@pytest.mark.parametrize(
    "keys",
    [
        ("image_reader_writer",),
        ("label_manager",),
        (*IN, "preprocessor_name"),
        (*IN, "normalization_schemes"),
        (*IN, "resampling_fn_data"),
        (*IN, "resampling_fn_seg"),
        (*IN, "resampling_fn_probabilities"),
    ],
)
def test_names_that_nnunet_searches_for_are_its_own(write, keys, name):
    with pytest.raises(UserError, match=rf'"{keys[-1]}" names {name}, .* plan again'):
        check_networks(write(changed(keys, [name] if keys[-1].endswith("schemes") else name)))


@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_old_plans_without_architecture(write, network):
    plans = whole_plans()
    configuration = plans["configurations"]["3d_fullres"] | OLD | {"UNet_class_name": network}
    del configuration["architecture"]
    plans["configurations"] = {"3d_fullres": configuration}
    assert check_networks(write(plans)) == plans
    manager = PlansManager(deepcopy(plans))
    for trainer in (D2NetTrainer, nnUNetTrainerModalityDropout):
        built = trainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 2, 2)
        assert sum(p.numel() for p in built.parameters())
    plans["configurations"]["3d_fullres"]["UNet_class_name"] = "os.system"
    with pytest.raises(UserError, match=r"elsewhere, os\.system"):
        check_networks(write(plans))


@pytest.mark.parametrize("trainer", [D2NetTrainer, nnUNetTrainerModalityDropout])
@pytest.mark.parametrize("what", ["layer", "network"])
def test_our_trainers_build_no_network_from_elsewhere(trainer, what, tmp_path):
    plans, parts = build_plans(["ZScoreNormalization"] * 2), architecture(3)
    command = f"touch '{tmp_path / 'RAN'}'"
    if what == "layer":
        parts["arch_kwargs"] |= {"dropout_op": "torch.nn.modules.module.torch.os.system"}
        parts["arch_kwargs"]["dropout_op_kwargs"] = {"command": command}
    else:
        parts = {"network_class_name": f"{UNETS}.torch.os.system", "arch_kwargs": {}, "_kw_requires_import": []}
    plans.plans["configurations"]["tiny"]["architecture"] = parts
    with pytest.raises(UserError, match="plans TinyPlans names code from elsewhere"):
        trainer.build_network_architecture(plans, plans.get_configuration("tiny"), 2, 3)
    assert not (tmp_path / "RAN").exists()
