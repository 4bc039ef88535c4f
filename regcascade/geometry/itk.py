"""Displacements and affine maps as ITK's transforms: mm in LPS there, mm in RAS here."""

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk

from regcascade.geometry.displacement import Vectors
from regcascade.geometry.grid import Geometry
from regcascade.geometry.orientation import LPS_TO_RAS

TO_LPS = np.diag(LPS_TO_RAS)[:3].astype(np.float32)  # of vectors; its own inverse


def field_image(fixed: Geometry, parts: Iterable[tuple[slice, Vectors]]) -> sitk.Image:
    """A displacement (mm, RAS) as ITK's vector image (mm, LPS), float32.

    Args:
        fixed: its grid.
        parts: planes along the first axis, and the displacement there; together all of them.
    """
    vectors = np.empty((*fixed.shape[::-1], 3), np.float32)
    for rows, part in parts:
        vectors[:, :, rows] = np.moveaxis(part, (0, 1, 2), (2, 1, 0)) * TO_LPS
    return fixed.as_itk(np.moveaxis(vectors, (0, 1, 2), (2, 1, 0)))


def composite(fixed: Geometry, affine: np.ndarray, displacement: Vectors) -> sitk.CompositeTransform:
    """ITK's transform of the field and then the affine map; ITK applies what was added last first."""
    turned = LPS_TO_RAS @ affine @ LPS_TO_RAS
    linear = sitk.AffineTransform(turned[:3, :3].flatten().tolist(), turned[:3, 3].tolist())
    result = sitk.CompositeTransform(3)
    result.AddTransform(linear)
    field = field_image(fixed, [(slice(None), displacement)])
    result.AddTransform(sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64)))
    return result
