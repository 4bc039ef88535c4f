"""Similarity losses between the moved and the fixed image.

Each is a module `(moved, fixed) -> scalar`: averaged over the batch, 0 or more, lower is better. Images are in 0..1.
Statistics are float32 under autocast.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcascade.metrics.correlation import correlation_coefficient
from regcascade.types import Image
from regcascade.utils.precision import full_precision
from regcascade.utils.registry import Registry, check_choice

SIMILARITIES: Registry[nn.Module] = Registry("similarity")


@SIMILARITIES.register("cc")
class CorrelationLoss(nn.Module):
    """`1 - CC` (DR-Net, Eq. 9), the similarity of RCN and DR-Net.

    Args:
        epsilon: added to each variance, in squared intensities.
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, moved: Image, fixed: Image) -> Tensor:
        """Average `1 - CC` over the batch."""
        return (1 - correlation_coefficient(moved, fixed, self.epsilon)).mean()


@SIMILARITIES.register("lncc")
class LocalCorrelationLoss(nn.Module):
    """1 minus MONAI's squared local correlation, of a window around each voxel, averaged over voxels.

    The variance in a window has a floor, so that a flat region counts as uncorrelated: MONAI's own, 1e-5 over the whole
    window, lies below the rounding of float32. Windows reach over the border into zeros.

    A stride above 1 puts a window around every `stride`-th voxel only, cropped at the border: a third of the window's
    side takes about a sixth of the time on a CPU.

    Args:
        kernel_size: side of the window in voxels, odd.
        kernel_type: `rectangular`, `triangular` or `gaussian`; all are separable and cost the same.
        min_variance: floor of the variance in a window, in squared intensities.
        stride: voxels from one window to the next; above 1 for rectangular windows only.
    """

    def __init__(
        self, kernel_size: int = 9, kernel_type: str = "rectangular", min_variance: float = 1e-5, stride: int = 1
    ) -> None:
        super().__init__()
        check_choice("kernel_type", kernel_type, ("rectangular", "triangular", "gaussian"))
        if not 1 <= stride <= kernel_size:
            raise ValueError(f"stride={stride} is not valid: give 1 up to kernel_size={kernel_size} voxels.")
        if stride > 1 and kernel_type != "rectangular":
            raise ValueError(f"stride={stride} needs kernel_type=rectangular, not {kernel_type}.")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} is not valid: give an odd number of voxels, 3 or more.")
        if min_variance <= 0:
            raise ValueError(f"min_variance={min_variance} is not valid: it must be above 0.")
        from monai.losses import LocalNormalizedCrossCorrelationLoss  # here, since MONAI takes seconds to import

        self.loss = LocalNormalizedCrossCorrelationLoss(kernel_size=kernel_size, kernel_type=kernel_type)
        self.loss.smooth_dr = min_variance * float(self.loss.kernel_vol)  # MONAI's variances are sums over the window
        self.min_variance = min_variance
        self.stride = stride

    def forward(self, moved: Image, fixed: Image) -> Tensor:
        """Average 1 minus the squared local correlation over batch and windows."""
        with full_precision(moved, fixed) as (moved, fixed):
            if self.stride == 1:
                return 1 + self.loss(moved, fixed)
            side = self.loss.kernel_size
            products = torch.cat([moved, fixed, moved * moved, fixed * fixed, moved * fixed], dim=1)
            means = F.avg_pool3d(products, side, self.stride, padding=side // 2, count_include_pad=False)
            m, f, mm, ff, mf = means.unbind(1)
            variances = (mm - m * m).clamp(min=self.min_variance) * (ff - f * f).clamp(min=self.min_variance)
            return 1 - ((mf - m * f).square() / variances).mean()


@SIMILARITIES.register("mi")
class MutualInformationLoss(nn.Module):
    """`log(num_bins) - MI`, with MONAI's global mutual information from Gaussian Parzen windows.

    In nats, 0 or more. Intensities outside 0..1 count as 0 or 1. Memory holds `num_bins` copies of each image.

    Args:
        num_bins: bins of the histogram over 0..1, 2 or more.
        sigma_ratio: standard deviation of the Parzen window, in bins.
    """

    def __init__(self, num_bins: int = 23, sigma_ratio: float = 0.5) -> None:
        super().__init__()
        if num_bins < 2:
            raise ValueError(f"num_bins={num_bins} is not valid: mutual information needs 2 bins or more.")
        if sigma_ratio <= 0:
            raise ValueError(f"sigma_ratio={sigma_ratio} is not valid: it must be above 0.")
        from monai.losses import GlobalMutualInformationLoss  # here, since MONAI takes seconds to import

        self.loss = GlobalMutualInformationLoss(num_bins=num_bins, sigma_ratio=sigma_ratio)
        self.offset = math.log(num_bins)

    def forward(self, moved: Image, fixed: Image) -> Tensor:
        """Average `log(num_bins) - MI` over the batch."""
        with full_precision(moved, fixed) as (moved, fixed):
            return self.offset + self.loss(moved, fixed)


@SIMILARITIES.register("mind")
class MindLoss(nn.Module):
    """Mean squared difference of MIND-SSC descriptors (Heinrich et al., MICCAI 2013), also between modalities.

    Args:
        radius: of the patches that are compared, in voxels: their side is `2 radius + 1`.
        dilation: distance of the patches' centres from the voxel, in voxels.
    """

    def __init__(self, radius: int = 1, dilation: int = 2) -> None:
        super().__init__()
        if radius < 0 or dilation < 1:
            raise ValueError(f"radius={radius} and dilation={dilation} are not valid: 0 or more, 1 or more voxels.")
        self.radius, self.dilation = radius, dilation

    def forward(self, moved: Image, fixed: Image) -> Tensor:
        """Average the squared difference over batch, channels and voxels."""
        with full_precision(moved, fixed) as (moved, fixed):
            return F.mse_loss(self.descriptors(moved), self.descriptors(fixed))

    def descriptors(self, image: Image) -> Tensor:
        """Describe each voxel by how alike the patches around it are, `(B, 12, X, Y, Z)` in 0..1.

        The patches lie at the six neighbours; the twelve pairs are those that are not opposite. D is their mean squared
        difference, less the smallest of the twelve; the descriptor is `exp(-D / V)`, V being the mean of the twelve
        before that, held within a factor of 1000 of its mean over the volume. Borders are replicated.
        """
        x, y, z = image.shape[2:]
        reach = self.dilation
        padded = F.pad(image, (reach,) * 6, mode="replicate")
        offsets = [tuple(sign * reach * (axis == other) for other in range(3)) for axis in range(3) for sign in (-1, 1)]
        at = [padded[:, :, reach + i :, reach + j :, reach + k :][:, :, :x, :y, :z] for i, j, k in offsets]
        pairs = [(a, b) for a in range(6) for b in range(a + 1, 6) if a // 2 != b // 2]
        squared = torch.cat([(at[a] - at[b]).square() for a, b in pairs], dim=1)
        patches = F.pad(squared, (self.radius,) * 6, mode="replicate")
        distance = F.avg_pool3d(patches, 2 * self.radius + 1, stride=1)
        spread = distance.mean(1, keepdim=True)
        usual = spread.mean((2, 3, 4), keepdim=True).detach()
        spread = torch.minimum(torch.maximum(spread, usual / 1000), usual * 1000) + torch.finfo(spread.dtype).tiny
        return (-(distance - distance.amin(1, keepdim=True)) / spread).exp()


@SIMILARITIES.register("mse")
class MeanSquaredError(nn.Module):
    """Mean squared difference of intensities, for scans of one modality and scale."""

    def forward(self, moved: Image, fixed: Image) -> Tensor:
        """Average the squared difference over batch and voxels."""
        with full_precision(moved, fixed) as (moved, fixed):
            return F.mse_loss(moved, fixed)
