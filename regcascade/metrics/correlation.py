"""Correlation of two images, which is also the papers' similarity loss."""

from regcascade.types import Image, Scalars
from regcascade.utils.precision import full_precision


def correlation_coefficient(a: Image, b: Image, epsilon: float = 1e-6) -> Scalars:
    """Compute the correlation coefficient of each pair of images, in -1..1 (DR-Net, Eqs. 7 and 8).

    Means are subtracted first, since the sums of Eq. 8 lose digits. RCN's program adds `epsilon` to each variance too.

    Args:
        a: `(B, 1, X, Y, Z)`.
        b: the same.
        epsilon: added to both variances, in squared intensities: a constant image has correlation and gradient 0.

    >>> import torch
    >>> ramp = torch.arange(8.0).view(1, 1, 2, 2, 2)
    >>> correlation_coefficient(ramp, 3 - 2 * ramp)
    tensor([-1.0000])
    """
    with full_precision(a, b) as (a, b):
        a = a.flatten(1) - a.flatten(1).mean(1, keepdim=True)
        b = b.flatten(1) - b.flatten(1).mean(1, keepdim=True)
        covariance = (a * b).mean(1)
        return covariance / ((a.square().mean(1) + epsilon) * (b.square().mean(1) + epsilon)).sqrt()
