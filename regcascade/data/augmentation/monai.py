"""Random changes of the moving scan by MONAI's dictionary transforms."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import Randomizable
from torch import Tensor

from regcascade.data.augmentation.base import AUGMENTATIONS, Augmentation
from regcascade.data.monai_transforms import IMAGE, LABEL, apply_monai, build_monai, moves_voxels
from regcascade.types import Batch
from regcascade.utils.registry import Spec, check_choice

OPTION = "data.augmentation.transforms"
SCANS = {"moving": ("moving",), "both": ("fixed", "moving")}


@AUGMENTATIONS.register("monai")
class MonaiAugmentation(Augmentation):
    """Any random dictionary transforms of MONAI's, on the keys `image` and `label`.

    Those that move voxels are refused where the scan has points, which cannot follow. Images are clipped to 0..1,
    labels stay whole.

    Args:
        transforms: a name, a mapping with `name` and MONAI's options, or a list of them, such as
            `[{name: RandBiasFieldd, prob: 0.5}, RandGaussianNoised]`.
        scans: `moving`, or `both`, each by itself.
    """

    def __init__(self, transforms: Spec | Sequence[Spec] = (), scans: str = "moving") -> None:
        check_choice("data.augmentation.scans", scans, SCANS)
        self.scans = SCANS[scans]
        self.transforms = build_monai(transforms, OPTION)
        if not any(isinstance(transform, Randomizable) for transform in self.transforms.transforms):
            raise ValueError(
                f"{OPTION} has no random transform: give some, such as [RandGaussianNoised]; data.transforms takes "
                "those that change every scan alike."
            )
        self.moves = moves_voxels(self.transforms)

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Change the images, and with them the labels, of a batch."""
        volumes: dict[str, Any] = dict(batch)
        device = "cpu" if generator is None else generator.device
        for role in self.scans:
            if self.moves and f"{role}_points" in volumes:
                raise ValueError(
                    f"{OPTION} moves voxels, and {volumes[f'{role}_name'][0]} has points, which MONAI does not take "
                    "along: use affine or bspline, transforms of intensities, or leave the points out."
                )
            seeds = torch.randint(2**32, (len(volumes[role]),), generator=generator, device=device).tolist()
            names = {key: name for key, name in ((IMAGE, role), (LABEL, f"{role}_labels")) if name in volumes}
            scans = []
            for index, seed in enumerate(seeds):
                self.transforms.set_random_state(seed=seed)
                scan = {key: MetaTensor(volumes[name][index].float().clone()) for key, name in names.items()}
                scans.append(apply_monai(self.transforms, scan, OPTION))
            for key, name in names.items():
                stacked = torch.stack([scan[key].as_subclass(Tensor) for scan in scans])
                volumes[name] = (stacked.clamp(0, 1) if key == IMAGE else stacked.round()).to(volumes[name])
        return cast(Batch, volumes)
