"""Sampling, flows, grids and transforms; nothing here reads a file.

`warp` and its relatives need torch alone. What needs SimpleITK or nibabel (`grid`, `itk`, `resample`, `displacement`,
`transform`) is imported from its own module.
"""

from regcascade.geometry.warp import compose, integrate, jacobian_det, resize_flow, warp, warp_labels, warp_points

__all__ = ["compose", "integrate", "jacobian_det", "resize_flow", "warp", "warp_labels", "warp_points"]
