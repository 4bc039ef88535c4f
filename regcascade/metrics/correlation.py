"""Correlation of two images; also the papers' similarity."""

from regcascade.types import Image, Scalars
from regcascade.utils.precision import full_precision


def correlation_coefficient(a: Image, b: Image, epsilon: float = 1e-6) -> Scalars:
    """Correlation coefficient of each pair of images, in -1..1 (Eqs. 7 and 8 of the second paper).

    The covariances are those of Eq. 8, but of the images less their means: the difference of two large sums
    that is printed loses the digits that matter. `epsilon` is added to each variance, as the first paper's
    program does, so that a constant image correlates 0 with anything and has a finite gradient.

    Args:
        a: `(B, 1, X, Y, Z)`.
        b: `(B, 1, X, Y, Z)`.
        epsilon: added to both variances, in squared intensities.
    """
    with full_precision(a, b) as (a, b):
        a = a.flatten(1) - a.flatten(1).mean(1, keepdim=True)
        b = b.flatten(1) - b.flatten(1).mean(1, keepdim=True)
        covariance = (a * b).mean(1)
        return covariance / ((a.square().mean(1) + epsilon) * (b.square().mean(1) + epsilon)).sqrt()
