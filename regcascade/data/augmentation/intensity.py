"""Random changes of what scans look like, by TorchIO: what an MR or CT scanner does to intensities.

MONAI's random transforms are the augmentation `monai`. TorchIO's stay for their models: the bias field is the
exponential of a polynomial, so that it never turns negative, and the gamma is drawn on a log scale, so that darker and
brighter are as likely.
"""

import torch
import torchio as tio

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation, check_number
from regcascade.types import Batch, Image


@AUGMENTATIONS.register("intensity")
class IntensityAugmentation(Augmentation):
    """TorchIO's contrast, bias field, blur and noise, in this order; labels and points stay where they are.

    Each of the four comes with a probability of its own draw, in every scan by itself, fixed and moving. What leaves
    0..1 is clipped. It runs on the CPU, on which TorchIO works, whatever device the batch is on.

    TorchIO's lower resolution along an axis (`RandomAnisotropy`) is left out: it takes the nearest voxel where it
    samples, which moves the image by half a voxel and more against its labels and points. A blur differs by axis too.

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
        p = check_number("probability", probability, 0.0, 1.0)
        # Beyond these bounds the exponentials overflow.
        gamma, bias = check_number("gamma", gamma, 0.0, 3.0), check_number("bias", bias, 0.0, 1.0)
        blur, noise = check_number("blur", blur), check_number("noise", noise, 0.0, 1.0)
        self.transform = tio.Compose(
            [
                tio.RandomGamma(log_gamma=gamma, p=p),
                tio.RandomBiasField(coefficients=bias, p=p),
                tio.RandomBlur(std=blur, p=p),
                tio.RandomNoise(std=noise, p=p),
            ]
        )

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Change the fixed and the moving images of a batch."""
        device = "cpu" if generator is None else generator.device
        seeds = torch.randint(2**62, (2, len(batch["fixed"])), generator=generator, device=device).tolist()
        changed = batch.copy()
        changed["fixed"] = self._changed(batch["fixed"], seeds[0])
        changed["moving"] = self._changed(batch["moving"], seeds[1])
        return changed

    def _changed(self, images: Image, seeds: list[int]) -> Image:
        # TorchIO draws from the CPU's global generator, and seeds those of the GPUs too; both get their state back.
        gpus = [images.device] if images.is_cuda else []
        scans = []
        with torch.random.fork_rng(gpus):
            for image, seed in zip(images.cpu(), seeds, strict=True):
                torch.manual_seed(seed)
                scans.append(self.transform(image).clamp(0, 1))
        return torch.stack(scans).to(images)
