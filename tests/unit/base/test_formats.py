import bz2
import gzip
import lzma

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_d2net.base.images import ImageError, read_sitk

VOXELS = np.arange(8000, dtype=np.int16).reshape(20, 20, 20)


@pytest.fixture
def content(tmp_path):
    """The bytes of one image in each format."""
    found = {}
    for ending in (".nii", ".nrrd", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(tmp_path / f"whole{ending}"))
        found[ending] = (tmp_path / f"whole{ending}").read_bytes()
    nib.save(nib.MGHImage(VOXELS.astype(np.float32), np.eye(4)), tmp_path / "whole.mgz")
    return found | {".mgz": (tmp_path / "whole.mgz").read_bytes()}


@pytest.mark.parametrize("only_nifti", [True, False])
@pytest.mark.parametrize(("pack", "program"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_other_packers(tmp_path, content, pack, program, only_nifti):
    (tmp_path / "a.nii.gz").write_bytes(pack(content[".nii"]))
    with pytest.raises(ImageError) as error:
        read_sitk(tmp_path / "a.nii.gz", only_nifti=only_nifti)
    remedy = f"unpack it ({program} -dc < a.nii.gz | gzip > whole.nii.gz), and put that in its place"
    assert str(error.value) == f"{tmp_path / 'a.nii.gz'} cannot be read (it is packed with {program}): {remedy}"


def test_gzip_twice(tmp_path, content):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(gzip.compress(content[".nii"])))
    with pytest.raises(ImageError, match=r"packed with gzip twice\): unpack it \(gzip -dc < a.nii.gz > whole.nii.gz\)"):
        read_sitk(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("ending", "name", "what"),
    [
        (".nii", "a.mha", "NIfTI"),
        (".nii", "a.nrrd", "NIfTI"),
        (".nrrd", "a.nii.gz", "NRRD"),
        (".nrrd", "a.mha", "NRRD"),
        (".mha", "a.nii", "a MetaImage"),
        (".mha", "a.b.nrrd", "a MetaImage"),
        (".mgz", "a.nii.gz", "FreeSurfer's MGH"),
    ],
)
def test_formats_under_another_name(tmp_path, content, ending, name, what):
    (tmp_path / name).write_bytes(content[ending])
    with pytest.raises(ImageError) as error:
        read_sitk(tmp_path / name)
    right = name.removesuffix(".nii.gz").removesuffix(".nii").removesuffix(".mha").removesuffix(".nrrd") + ending
    then = "" if ending == ".nii" else ", and convert it to NIfTI where only that is read"
    reason = f"cannot be read (it is {what}, and its name does not say so)"
    assert str(error.value) == f"{tmp_path / name} {reason}: call it {right}{then}"
    if ending != ".mgz":
        assert np.array_equal(sitk.GetArrayFromImage(read_sitk((tmp_path / name).rename(tmp_path / right))), VOXELS)
