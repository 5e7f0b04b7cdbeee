import os
from collections import OrderedDict

import numpy as np
import pytest
import torch

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.checkpoints import read_checkpoint, read_folds

CODE = "more than weights and numbers"
NONE = "is no checkpoint of nnU-Net's"


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def content(**changes):
    weights = {"encoder.w": torch.ones(3), "teacher.w": torch.ones(2)}
    whole = {"network_weights": weights, "trainer_name": "T", "init_args": {"configuration": "2d"}, "current_epoch": 3}
    return whole | changes


@pytest.fixture
def write(tmp_path):
    def write(what, name="checkpoint.pth", **settings):
        torch.save(what, tmp_path / name, **settings)
        return tmp_path / name

    return write


def refused(path, *parts, read=read_checkpoint):
    with pytest.raises(UserError) as error:
        read(path)
    assert "\n" not in str(error.value)
    for part in ("checkpoint", *parts):
        assert part in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_nnunet_writes_is_read(write, legacy):
    logging = {"dice": [np.float32(0.5), np.float64(0.25), np.int64(3)], "device": torch.device("cuda")}
    path = write(content(logging=logging), _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(path)["logging"] == logging


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_run(write, tmp_path, legacy):
    path = write(content(more=Hostile(tmp_path / "RAN")), _use_new_zipfile_serialization=not legacy)
    refused(path, NONE if legacy else CODE)
    assert not (tmp_path / "RAN").exists()


def test_the_remedy_follows_from_the_cause(write, tmp_path):
    path = write(content(network_weights={"w": torch.ones(5000)}))
    whole = path.read_bytes()
    for n_bytes in (len(whole) // 2, 2, 0):
        path.write_bytes(whole[:n_bytes])
        refused(path, "is cut short or damaged: copy it again")
    for other in (b"version https://git-lfs.github.com/spec/v1\n", b"\x1f\x8b" * 50, b"\x80\x02}q\x00."):
        path.write_bytes(other)
        refused(path, NONE, "pass one that a training has written")
    refused(tmp_path / "checkpoint_no.pth", "cannot be read", "No such file")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    refused(path, CODE)


@pytest.mark.parametrize("other", [[], 5, torch.ones(2), {"model": {}}, {"state_dict": {"w": torch.ones(1)}}])
def test_another_files_content(write, other):
    refused(write(other), NONE)


@pytest.mark.parametrize(
    "changes",
    [
        {"network_weights": None},
        {"network_weights": []},
        {"network_weights": {}},
        {"network_weights": {"w": 1.0}},
        {"network_weights": {1: torch.ones(1)}},
        {"trainer_name": 5},
        {"init_args": None},
        {"inference_allowed_mirroring_axes": 5},
        {"inference_allowed_mirroring_axes": ["x"]},
    ],
)
def test_values_of_another_type_are_named(write, changes):
    refused(write(content(**changes)), f'"{next(iter(changes))}"')


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers(write, value, dtype):
    weights = OrderedDict(a=torch.ones(1), b=torch.tensor([1, value], dtype=dtype))
    path = write(content(network_weights=weights))
    refused(path, "NaN or infinite", "(b)", "checkpoint_best.pth", read=lambda path: read_folds([path]))
    weights = {"encoder.w": torch.ones(1), "teacher.w": torch.tensor(value)}  # which prediction does not need
    assert len(read_folds([write(content(network_weights=weights))])) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"network_weights": {"encoder.w": torch.ones(4)}},
        {"network_weights": {"other.w": torch.ones(3)}},
        {"trainer_name": "Other"},
        {"init_args": {"configuration": "3d_fullres"}},
    ],
)
def test_folds_of_another_model(write, changes):
    paths = [write(content()), write(content(**changes), "checkpoint_1.pth")]
    refused(paths, "checkpoint_1.pth is of another model than", "leave it out", read=read_folds)
    without = write(content(network_weights={"encoder.w": torch.zeros(3)}), "checkpoint_2.pth")
    assert len(read_folds([paths[0], without])) == 2


@pytest.mark.parametrize("init_args", [{}, {"configuration": 2}])
def test_a_model_says_its_configuration(write, init_args):
    refused(write(content(init_args=init_args)), '"configuration"', read=lambda path: read_folds([path]))
