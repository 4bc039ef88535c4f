"""Affine alignment of scans by SimpleITK, computed once and kept with them (`affine=precomputed`)."""

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import voxel_sizes

from regcascade.data.io.images import LPS_TO_RAS

SHRINK, SMOOTH_MM = (4, 2, 1), (4.0, 2.0, 0.0)  # of the pyramid's levels, coarse to fine
SMALLEST = 16  # voxels an axis keeps at the coarsest level
LARGEST = 2_000_000  # voxels of the finest level: a map of twelve numbers gains nothing from more
SAMPLED, MOST_SAMPLES = 0.25, 100_000  # fraction of a level's voxels that the correlation looks at, and at most so many
STEPS = 200  # at most, on each level


def align(fixed: MetaTensor, moving: MetaTensor) -> np.ndarray:
    """The affine map that takes a place of the fixed scan to the same tissue in the moving one.

    Centres of gravity first, then a rigid and an affine map, each by the correlation of the images from coarse to
    fine, as suits scans of one kind. It runs on one thread and samples on a grid, so that it always gives the same.

    Args:
        fixed, moving: `(1, X, Y, Z)` images in 0..1, on whatever grids, their affines in RAS.

    Returns:
        `4 x 4`, from mm to mm, in RAS.

    Raises:
        ValueError: if the scans have too little in common for it to work.
    """
    images = as_itk(fixed), as_itk(moving)
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    try:
        start = sitk.CenteredTransformInitializer(*images, sitk.Euler3DTransform(), moments)
        rigid = sitk.Euler3DTransform(_optimised(*images, start))
        affine = sitk.AffineTransform(3)
        affine.SetCenter(rigid.GetCenter())
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
        affine = sitk.AffineTransform(_optimised(*images, affine))
    except RuntimeError as error:
        raise ValueError(f"the affine alignment failed: {str(error).strip().splitlines()[-1]}") from error
    return LPS_TO_RAS @ _homogeneous(affine) @ LPS_TO_RAS


def as_itk(scan: MetaTensor) -> sitk.Image:
    """A scan as an ITK image, its world turned from RAS to LPS."""
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
    levels = [(shrink, smooth) for shrink, smooth in zip(SHRINK, SMOOTH_MM, strict=True) if _fits(shrink, fixed)]
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in levels])
    method.SetSmoothingSigmasPerLevel([smooth for _, smooth in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetMetricSamplingPercentagePerLevel(
        [_sampled(shrink, fixed) for shrink, _ in levels], seed=1
    )  # 0: the clock
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    # Several threads of a program may wrap the result in a composite of one.
    return found.GetNthTransform(0) if isinstance(found, sitk.CompositeTransform) else found


def _fits(shrink: int, image: sitk.Image) -> bool:
    """Whether a level is one of the pyramid: not too coarse for a small scan, nor too fine for a large one."""
    thick = min(image.GetSize()) // max(shrink, 2) >= SMALLEST
    return thick if shrink > 1 else not thick or image.GetNumberOfPixels() <= LARGEST


def _sampled(shrink: int, image: sitk.Image) -> float:
    """Twelve numbers need no more samples in a larger scan, and every one costs time."""
    return min(SAMPLED, MOST_SAMPLES * shrink**3 / image.GetNumberOfPixels())


def _homogeneous(affine: sitk.AffineTransform) -> np.ndarray:
    matrix = np.array(affine.GetMatrix()).reshape(3, 3)
    centre = np.array(affine.GetCenter())
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = np.array(affine.GetTranslation()) + centre - matrix @ centre
    return result
