"""Sampling, flows, grids and transforms; nothing here reads a file, and what needs SimpleITK has its own module."""

from regcascade.geometry.warp import compose, integrate, jacobian_det, resize_flow, warp, warp_labels, warp_points

__all__ = ["compose", "integrate", "jacobian_det", "resize_flow", "warp", "warp_labels", "warp_points"]
