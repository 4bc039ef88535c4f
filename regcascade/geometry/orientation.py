"""ITK's frame of the world (LPS) and nibabel's (RAS)."""

import numpy as np
import SimpleITK as sitk

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def itk_affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """The affine from voxel indices to RAS mm of an ITK image or header; the identity below three axes."""
    axes = image.GetDimension()
    if axes < 3:
        return np.eye(4)
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine
