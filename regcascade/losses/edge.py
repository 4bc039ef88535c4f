"""Edge loss of DR-Net: compare where two images have their edges."""

import torch.nn.functional as F
from torch import Tensor

from regcascade.types import Image
from regcascade.utils.precision import full_precision
from regcascade.utils.registry import check_choice

# The literal Eq. 12 on DR-Net's data (0..255, |Omega| = 128^3) over the root mean square on 0..1.
RMS_FACTOR = 255 / 128**1.5

_ROOT_EPSILON = 1e-12  # under the outer root: equal edges would otherwise have an infinite gradient


def sobel_magnitude(image: Image, epsilon: float = 1e-6) -> Image:
    """Compute the length of the 3D Sobel gradient at each voxel: `S(I)` of DR-Net, Eq. 11.

    The 3x3x3 kernels, [-1, 0, 1] along one axis and [1, 2, 1] along the other two, are not normalised: a ramp of 1 per
    voxel gives 32. Beyond the border the image continues with its edge values.

    `epsilon` is added under the root for a finite gradient: a flat region is `sqrt(epsilon)`.
    """
    with full_precision(image) as (image,):
        # The kernels are separable: shifted sums take a tenth of the time of a 3x3x3 convolution on a CPU.
        padded = F.pad(image, (1,) * 6, mode="replicate")
        smooth_x = _smooth(padded, 2)
        smooth_xy = _smooth(smooth_x, 3)
        along_x = _smooth(_smooth(_difference(padded, 2), 3), 4)
        along_y = _smooth(_difference(smooth_x, 3), 4)
        along_z = _difference(smooth_xy, 4)
        return (along_x.square() + along_y.square() + along_z.square() + epsilon).sqrt()


def edge_loss(moved: Image, fixed: Image, form: str = "rms") -> Tensor:
    """Compare the edges of two images (DR-Net, Eq. 12), averaged over the batch.

    >>> import torch
    >>> ramp = torch.linspace(0, 1, 8).view(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 8)
    >>> bool(edge_loss(ramp, ramp.flip(2)) < 1e-4 < edge_loss(ramp, ramp**2))  # where edges are, not their signs
    True

    Args:
        moved: `(B, 1, X, Y, Z)`, intensities 0..1.
        fixed: the same.
        form: `printed` is Eq. 12 to the letter: the 2-norm of `S(fixed) - S(moved)` over the number of voxels, which
            shrinks with the volume. `rms` is `255 / 128^1.5` times the root mean square of the difference: what the
            printed form gives on DR-Net's data (0..255 at 128^3), at any size.
    """
    check_choice("edge", form, ["rms", "printed"])
    difference = (sobel_magnitude(fixed) - sobel_magnitude(moved)).flatten(1)
    root_mean_square = (difference.square().mean(1) + _ROOT_EPSILON).sqrt()
    factor = RMS_FACTOR if form == "rms" else difference.shape[1] ** -0.5
    return factor * root_mean_square.mean()


def _smooth(volume: Tensor, axis: int) -> Tensor:
    """Convolve with [1, 2, 1] along an axis, which loses a voxel at each end."""
    inner = volume.shape[axis] - 2
    ends = volume.narrow(axis, 0, inner) + volume.narrow(axis, 2, inner)
    return ends.add(volume.narrow(axis, 1, inner), alpha=2)


def _difference(volume: Tensor, axis: int) -> Tensor:
    """Convolve with [-1, 0, 1] along an axis, which loses a voxel at each end."""
    inner = volume.shape[axis] - 2
    return volume.narrow(axis, 2, inner) - volume.narrow(axis, 0, inner)
