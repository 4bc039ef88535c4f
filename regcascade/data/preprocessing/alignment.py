"""Affine alignment of scans by SimpleITK, computed once and kept with them (`affine=precomputed`)."""

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import voxel_sizes

from regcascade.data.io.transforms import matrix_of
from regcascade.geometry.grid import LPS_TO_RAS

LEVELS = ((4, 4.0), (2, 2.0), (1, 0.0))  # shrink factor and smoothing in mm, coarse to fine
SMALLEST = 16  # voxels an axis keeps at the coarsest level
LARGEST = 2_000_000  # voxels of the finest level: a map of twelve numbers gains nothing from more
SAMPLED, MOST_SAMPLES = 0.25, 100_000  # fraction of a level's voxels that the correlation looks at, and at most so many
STEPS = 200  # at most, on each level


def align(fixed: MetaTensor, moving: MetaTensor) -> np.ndarray:
    """Find the affine map, `4 x 4` in mm, RAS, from a place in the fixed scan to the same tissue in the moving one.

    It starts at the centres of gravity, then finds a rigid and an affine map by the correlation of the images, coarse
    to fine. One thread and samples on a grid make it deterministic.

    Args:
        fixed, moving: `(1, X, Y, Z)` images in 0..1, on any grids, their affines in RAS.

    Raises:
        ValueError: if the scans have too little in common.
    """
    images = as_itk(fixed), as_itk(moving)
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    try:
        start = sitk.CenteredTransformInitializer(*images, sitk.Euler3DTransform(), moments)
        rigid = sitk.Euler3DTransform(_optimised(*images, start))
        start = sitk.AffineTransform(rigid.GetMatrix(), rigid.GetTranslation(), rigid.GetCenter())
        affine = _optimised(*images, start)
    except RuntimeError as error:
        raise ValueError(f"the affine alignment failed: {str(error).strip().splitlines()[-1]}") from error
    return LPS_TO_RAS @ matrix_of(affine) @ LPS_TO_RAS


def as_itk(scan: MetaTensor) -> sitk.Image:
    """Turn a scan into an ITK image, its world from RAS to LPS; its grid may be sheared."""
    affine = LPS_TO_RAS @ np.asarray(scan.affine, dtype=float)
    spacing = voxel_sizes(affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan[0].numpy().T.astype(np.float32)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).flatten().tolist())
    return image


def _optimised(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Transform:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=STEPS, relaxationFactor=0.7, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    levels = [(shrink, smooth) for shrink, smooth in LEVELS if _fits(shrink, fixed)]
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in levels])
    method.SetSmoothingSigmasPerLevel([smooth for _, smooth in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    voxels = fixed.GetNumberOfPixels()
    fractions = [min(SAMPLED, MOST_SAMPLES * shrink**3 / voxels) for shrink, _ in levels]
    method.SetMetricSamplingPercentagePerLevel(fractions, seed=1)  # a seed of 0 is the clock
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    # ITK may wrap the result in a composite of one if the program has several threads.
    return found.GetNthTransform(0) if isinstance(found, sitk.CompositeTransform) else found


def _fits(shrink: int, image: sitk.Image) -> bool:
    """Tell whether a level is neither too coarse for a small scan nor too fine for a large one."""
    thick = min(image.GetSize()) // max(shrink, 2) >= SMALLEST
    return thick if shrink > 1 else not thick or image.GetNumberOfPixels() <= LARGEST
