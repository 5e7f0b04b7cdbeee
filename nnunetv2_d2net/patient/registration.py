"""Rigid registration of two sequences of one patient."""

import math

import numpy as np
import SimpleITK as sitk

_SEED = 20220516
_EDGE = 2.0
"""In mm: finer voxels are averaged first."""

_LEVELS = (2, 1)
"""By how much each level is coarser than that."""

_SAMPLES = 50_000
"""Voxels that the metric looks at, on each level."""

_ITERATIONS = 100


def register(moving: sitk.Image, fixed: sitk.Image) -> sitk.Transform:
    """Find where an image has to be turned and moved to, by mutual information, from coarse to fine.

    It begins where the headers put the images, or with the heads' centers of mass on each other: what fits better.

    Args:
        moving: 32-bit floats.
        fixed: Likewise.

    Returns:
        From points of the fixed image to those of the moving one; the same every time on the same machine.
    """
    fixed, moving = _averaged(fixed), _averaged(moving)
    shares = [min(1.0, _SAMPLES * level**3 / fixed.GetNumberOfPixels()) for level in _LEVELS]
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(shares, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, _ITERATIONS, gradientMagnitudeTolerance=1e-5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_LEVELS)
    method.SetSmoothingSigmasPerLevel([_EDGE * (level - 1) for level in _LEVELS])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(_best_start(method, moving, fixed), inPlace=True)
    return method.Execute(fixed, moving)


def _averaged(image: sitk.Image) -> sitk.Image:
    return sitk.BinShrink(image, [max(1, int(_EDGE / edge + 0.5)) for edge in image.GetSpacing()])


def describe(transform: sitk.Transform, at: sitk.Image) -> str:
    """Say how far a rigid transform turns and moves what lies in the middle of an image."""
    middle = np.array(at.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in at.GetSize()]))
    moved = np.array(transform.TransformPoint(middle.tolist())) - middle
    turned = np.array([np.subtract(transform.TransformPoint((middle + e).tolist()), middle + moved) for e in np.eye(3)])
    angle = math.degrees(math.acos(float(np.clip((np.trace(turned) - 1) / 2, -1, 1))))
    return f"turned by {angle:.1f} degrees and moved by {np.linalg.norm(moved):.1f} mm"


def _best_start(method: sitk.ImageRegistrationMethod, moving: sitk.Image, fixed: sitk.Image) -> sitk.Transform:
    by_mass = sitk.CenteredTransformInitializerFilter.MOMENTS
    centered = sitk.Euler3DTransform(sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), by_mass))
    as_placed = sitk.Euler3DTransform(centered)
    as_placed.SetTranslation((0.0, 0.0, 0.0))
    fits = {}
    for name, start in (("placed", as_placed), ("centered", centered)):
        method.SetInitialTransform(start)
        try:
            fits[name] = method.MetricEvaluate(fixed, moving)
        except RuntimeError:  # they do not overlap
            fits[name] = math.inf
    return as_placed if fits["placed"] <= fits["centered"] else centered
