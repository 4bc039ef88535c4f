"""Random changes of intensities by TorchIO, as MR and CT scanners make them."""

from typing import cast

import torch
import torchio as tio

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation
from regcascade.data.options import check_number
from regcascade.types import Batch, Image


@AUGMENTATIONS.register("intensity")
class IntensityAugmentation(Augmentation):
    """TorchIO's gamma, bias field, blur and noise, in this order; labels and points stay where they are.

    Each of the four is drawn by itself in every scan, fixed and moving. What leaves 0..1 is clipped. It runs on the
    CPU, whatever device the batch is on. TorchIO's `RandomAnisotropy` is left out, as it moves the image by half a
    voxel and more against its labels and points.

    Args:
        probability: of each of the four.
        gamma: largest |log g| of the exponent g of the intensities (`RandomGamma`), 0 to 3.
        bias: largest coefficient of the cubic polynomial whose exponential multiplies them (`RandomBiasField`), 0 to 1.
        blur: largest standard deviation of a Gaussian, drawn for each axis, in voxels (`RandomBlur`).
        noise: largest standard deviation of Gaussian noise, 0 to 1 (`RandomNoise`).
    """

    def __init__(
        self, probability: float = 0.5, gamma: float = 0.3, bias: float = 0.2, blur: float = 1.0, noise: float = 0.05
    ) -> None:
        p = check_number("data.augmentation.probability", probability, 0.0, 1.0)
        # Beyond the bounds of gamma and bias the exponentials overflow.
        self.transform = tio.Compose(
            [
                tio.RandomGamma(log_gamma=check_number("data.augmentation.gamma", gamma, 0.0, 3.0), p=p),
                tio.RandomBiasField(coefficients=check_number("data.augmentation.bias", bias, 0.0, 1.0), p=p),
                tio.RandomBlur(std=check_number("data.augmentation.blur", blur), p=p),
                tio.RandomNoise(std=check_number("data.augmentation.noise", noise, 0.0, 1.0), p=p),
            ]
        )

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Change the fixed and the moving images of a batch."""
        device = "cpu" if generator is None else generator.device
        seeds = torch.randint(2**62, (2, len(batch["fixed"])), generator=generator, device=device).tolist()
        changed = {"fixed": self._changed(batch["fixed"], seeds[0]), "moving": self._changed(batch["moving"], seeds[1])}
        return cast(Batch, {**batch, **changed})

    def _changed(self, images: Image, seeds: list[int]) -> Image:
        # TorchIO draws from the CPU's global generator, and seeds those of the GPUs too; both get their state back.
        gpus = [images.device] if images.is_cuda else []
        scans = []
        with torch.random.fork_rng(gpus):
            for image, seed in zip(images.cpu(), seeds, strict=True):
                torch.manual_seed(seed)
                scans.append(self.transform(image).clamp(0, 1))
        return torch.stack(scans).to(images)
