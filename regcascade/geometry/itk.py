"""Displacements and affine maps as ITK's transforms: mm in LPS there, mm in RAS here."""

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk

from regcascade.geometry.displacement import Vectors
from regcascade.geometry.grid import LPS_TO_RAS, Geometry

TO_LPS = np.diag(LPS_TO_RAS)[:3].astype(np.float32)  # multiplies vectors; its own inverse


def affine_transform(affine: np.ndarray) -> sitk.AffineTransform:
    """An affine map of mm in RAS as ITK's, of mm in LPS.

    >>> matrix = np.eye(4)
    >>> matrix[0, 3] = 5  # mm to the right
    >>> affine_transform(matrix).GetTranslation()
    (-5.0, 0.0, 0.0)
    """
    turned = LPS_TO_RAS @ affine @ LPS_TO_RAS
    return sitk.AffineTransform(turned[:3, :3].flatten().tolist(), turned[:3, 3].tolist())


def field_image(fixed: Geometry, parts: Iterable[tuple[slice, Vectors]]) -> sitk.Image:
    """A displacement (mm, RAS) on the grid `fixed` as ITK's vector image (mm, LPS), float32.

    `parts` are slices of planes along the first axis, each with the displacement there; together the whole grid.
    """
    vectors = np.empty((*fixed.shape[::-1], 3), np.float32)
    for rows, part in parts:
        vectors[:, :, rows] = np.moveaxis(part, (0, 1, 2), (2, 1, 0)) * TO_LPS
    return fixed.as_itk(np.moveaxis(vectors, (0, 1, 2), (2, 1, 0)))


def composite(fixed: Geometry, affine: np.ndarray, displacement: Vectors) -> sitk.CompositeTransform:
    """ITK's composite of the displacement and then the affine map; ITK applies the last in its list first."""
    field = sitk.Cast(field_image(fixed, [(slice(None), displacement)]), sitk.sitkVectorFloat64)
    return sitk.CompositeTransform([affine_transform(affine), sitk.DisplacementFieldTransform(field)])
