"""A drawn patient and an untrained model."""

import pytest
import SimpleITK as sitk

from tests.one_patient import draw_patient, write_model


@pytest.fixture(scope="session")
def drawn():
    return draw_patient()


@pytest.fixture
def patient(drawn):
    """The sequences, in 32-bit floats, which a test may change."""
    return {name: sitk.Cast(image, sitk.sitkFloat32) for name, image in drawn.items()}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))
