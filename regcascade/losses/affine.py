"""Penalties on an affine map that is far from a rotation."""

import torch
from torch import Tensor

from regcascade.types import Matrix

EPSILON = 1e-5  # added to A'A so that it can be inverted


def affine_losses(matrix: Matrix) -> dict[str, Tensor]:
    """Compute the determinant and orthogonality losses of the affine part `A = W + I`, averaged over the batch.

    >>> losses = affine_losses(torch.diag(torch.tensor([2.0, 1.0, 1.0]))[None])  # one axis stretched to twice
    >>> {name: round(float(loss), 3) for name, loss in losses.items()}
    {'det': 0.5, 'ortho': 2.25}

    - `det` is `0.5 (det A - 1)^2`.
    - `ortho` sums `k + (1 + eps)^2 / k - 2 (1 + eps)` over the eigenvalues k of `C = A'A + eps I`: 0 for a rotation,
      more as an axis is stretched or squeezed. The sum of k is the trace `s1`, and the sum of 1/k is `s2 / s3`, the
      second over the third elementary symmetric polynomial: the gradient of an eigen-decomposition is infinite where
      eigenvalues meet, as they do at the identity.

    Computation is in float64. A singular matrix gives a large finite value.

    Args:
        matrix: `(B, 3, 3)`; linear part A of the map `p -> A (p - c) + b + c` in voxels.
    """
    result = matrix.dtype if matrix.dtype == torch.float64 else torch.float32
    working = torch.float32 if matrix.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    with torch.autocast(matrix.device.type, enabled=False):
        a = matrix.to(working)  # s3 of a nearly singular matrix has no digits in float32
        det = 0.5 * (_det(a) - 1).square()
        unit = 1 + EPSILON
        c = a.transpose(1, 2) @ a + EPSILON * torch.eye(3, dtype=a.dtype, device=a.device)
        s1 = c.diagonal(dim1=1, dim2=2).sum(1)
        s2 = (s1.square() - (c @ c).diagonal(dim1=1, dim2=2).sum(1)) / 2
        s3 = _det(c).clamp(min=EPSILON**3)  # no eigenvalue is below epsilon, whatever the rounding
        ortho = s1 + unit**2 * s2 / s3 - 6 * unit
        return {"det": det.mean().to(result), "ortho": ortho.mean().to(result)}


def _det(matrices: Tensor) -> Tensor:
    """Compute determinants as triple products: unlike LU's, their gradient is right at singular matrices."""
    first, second, third = matrices.unbind(1)
    return (first * torch.linalg.cross(second, third)).sum(1)
