"""An affine map by SimpleITK."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from regcascade.data.preprocessing.alignment import align
from regcascade.evaluation.baselines.base import METHODS, Method, Pair
from regcascade.geometry.affine import Affine
from regcascade.types import Homogeneous


@METHODS.register("affine")
@dataclass(frozen=True)
class AffineBySimpleITK(Method):
    """The affine map of `regcascade prepare --align`, see `data.preprocessing.alignment`; one thread, deterministic."""

    packages: ClassVar[tuple[str, ...]] = ("SimpleITK",)

    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """Compute the map as a flow."""
        fixed, moving = (np.diag([*spacing, 1.0]) for spacing in (pair.fixed_spacing, pair.moving_spacing))
        images = (pair.fixed, fixed), (pair.moving, moving)
        in_mm = align(*(MetaTensor(image[None].cpu(), affine=torch.from_numpy(affine)) for image, affine in images))
        x, y, z = pair.fixed.shape
        voxels: Homogeneous = torch.from_numpy(np.linalg.inv(moving) @ in_mm @ fixed)[None]
        return Affine.of_voxels(voxels, (x, y, z)).displacement()[0].float()
