"""The map that lays the moving scan over the fixed one before the networks, and what is done where it goes astray."""

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor

from regcascade.data.io.images import LPS_TO_RAS
from regcascade.data.preprocessing.alignment import align, as_itk
from regcascade.geometry.grid import Geometry

MOST_STRETCH = 2.0  # by which two scans of one kind may differ in size along any direction, or its inverse
LESS_ALIKE = 0.02  # of the correlation coefficient, by which an alignment may be worse than a plain start, for borders
COARSE = 64  # voxels along each axis, on which starts are compared


class Start(NamedTuple):
    """How the moving scan lies over the fixed one before the networks.

    Attributes:
        name: what it was found by.
        affine: `4 x 4`, from mm of the fixed to mm of the moving scan, RAS.
        warning: why it was not found as asked for; empty where it was.
    """

    name: str
    affine: np.ndarray
    warning: str = ""


def find_start(initial: str, fixed: MetaTensor, moving: MetaTensor, grids: tuple[Geometry, Geometry]) -> Start:
    """The start that is asked for; where an affine alignment goes astray, the plain one that is most alike.

    An alignment has gone astray where it mirrors, stretches or shrinks by more than 2 along any direction, or leaves
    the scans less alike than a plain start does (correlation over the whole fixed scan, nothing beyond the moving
    one: what the alignment itself maximises is of the overlap alone, however small).

    Args:
        initial: `none`, `centres`, `moments` or `affine`.
        fixed, moving: all that the scans show, in 0..1.
        grids: of the scans as they are.

    Raises:
        ValueError: if there is none, as one of the scans is black.
    """
    if initial != "affine":
        return Start(initial, _plain(initial, fixed, moving, grids))
    plain = {"none": np.eye(4), "centres": _plain("centres", fixed, moving, grids)}
    plain["moments"] = _plain("moments", fixed, moving, grids)
    alike = {name: _alike(fixed, moving, affine) for name, affine in plain.items()}
    best = max(alike, key=lambda name: alike[name])
    try:
        affine = align(fixed, moving)
        why = _astray(affine) or _less_alike(_alike(fixed, moving, affine), best, alike[best])
    except ValueError as error:
        why = str(error)
    if not why:
        return Start("affine", affine)
    return Start(
        best,
        plain[best],
        f"The affine alignment went astray ({why}), and --initial {best} took its place (CC {alike[best]:.3f}). Look "
        "at the picture; where that start is wrong too, align the scans beforehand and give --initial none.",
    )


def _plain(initial: str, fixed: MetaTensor, moving: MetaTensor, grids: tuple[Geometry, Geometry]) -> np.ndarray:
    affine = np.eye(4)
    if initial == "centres":
        affine[:3, 3] = _centre(grids[1]) - _centre(grids[0])
    elif initial == "moments":
        moments = sitk.CenteredTransformInitializerFilter.MOMENTS
        images = as_itk(fixed), as_itk(moving)
        try:
            found = sitk.CenteredTransformInitializer(*images, sitk.Euler3DTransform(), moments)
        except RuntimeError as error:
            raise ValueError("one of them is all black, without a centre.") from error
        affine[:3, 3] = LPS_TO_RAS[:3, :3] @ np.array(sitk.Euler3DTransform(found).GetTranslation())
    return affine


def _centre(geometry: Geometry) -> np.ndarray:
    return geometry.to_world((np.array(geometry.shape)[None] - 1) / 2)[0]


def _astray(affine: np.ndarray) -> str:
    """What makes a map impossible between scans of one kind; nothing where it may be right."""
    if np.linalg.det(affine[:3, :3]) <= 0:
        return "it mirrors the scan"
    stretches = np.linalg.svd(affine[:3, :3], compute_uv=False)
    worst = max(stretches, key=lambda stretch: abs(np.log(stretch)))
    within = 1 / MOST_STRETCH <= worst <= MOST_STRETCH
    return "" if within else f"it changes lengths by a factor of {worst:.3g}"


def _less_alike(aligned: float, best: str, alike: float) -> str:
    if aligned >= alike - LESS_ALIKE:
        return ""
    return f"CC {aligned:.3f}, and {alike:.3f} by {best}"


def _alike(fixed: MetaTensor, moving: MetaTensor, affine: np.ndarray) -> float:
    """Correlation over the fixed scan; -1 where the moving one shows nothing there."""
    whole = as_itk(fixed)
    target = sitk.Shrink(whole, [max(1, side // COARSE) for side in whole.GetSize()])
    x = sitk.GetArrayFromImage(target).ravel()
    y = sitk.GetArrayFromImage(sitk.Resample(as_itk(moving), target, itk_affine(affine), sitk.sitkLinear, 0.0)).ravel()
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else -1.0


def itk_affine(affine: np.ndarray) -> sitk.AffineTransform:
    """An affine map of RAS mm as ITK's, of LPS mm."""
    turned = LPS_TO_RAS @ affine @ LPS_TO_RAS
    return sitk.AffineTransform(turned[:3, :3].flatten().tolist(), turned[:3, 3].tolist())
