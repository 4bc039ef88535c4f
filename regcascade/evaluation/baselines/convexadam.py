"""ConvexAdam, by its authors' package."""

import importlib
import math
import warnings
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regcascade.evaluation.baselines.base import METHODS, Method, Pair, needed


@METHODS.register("convexadam")
@dataclass(frozen=True)
class ConvexAdam(Method):
    """Coupled convex optimisation on MIND features, then Adam (Siebert et al., 2021 and 2024).

    Options and defaults are those of the package's `convex_adam_pt`. There is no affine stage, and voxel sizes play no
    part. Volumes are padded at the end of each axis to whole cells of its grids, else the package stretches its field.

    Args:
        mind_r: radius of the features, in voxels.
        mind_d: their dilation, in voxels.
        lambda_weight: of Adam's smoothness.
        grid_sp: voxels per cell of the convex stage.
        disp_hw: cells that the convex stage searches in each direction.
        selected_niter: Adam's iterations.
        selected_smooth: side of a box filter on the result, 3 or 5; 0 for none.
        grid_sp_adam: voxels per cell of Adam's stage.
        ic: whether the convex stage runs both ways and is made consistent.
        threads: of PyTorch on a CPU.
    """

    mind_r: int = 1
    mind_d: int = 2
    lambda_weight: float = 1.25
    grid_sp: int = 6
    disp_hw: int = 4
    selected_niter: int = 80
    selected_smooth: int = 0
    grid_sp_adam: int = 2
    ic: bool = True
    threads: int = 1

    packages: ClassVar[tuple[str, ...]] = ("convexAdam",)
    on_gpu: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.grid_sp, self.grid_sp_adam, self.disp_hw, self.selected_niter, self.threads) < 1:
            raise ValueError(
                f"method.grid_sp={self.grid_sp}, grid_sp_adam={self.grid_sp_adam}, disp_hw={self.disp_hw}, "
                f"selected_niter={self.selected_niter} and threads={self.threads} must be 1 or more."
            )
        if self.selected_smooth and self.selected_smooth % 2 == 0:
            raise ValueError(f"method.selected_smooth={self.selected_smooth} must be odd, or 0 for none.")
        _package()

    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """Compute the displacement, which is in voxels already, and cut the padding off."""
        cell = math.lcm(self.grid_sp, self.grid_sp_adam)
        sides = pair.fixed.shape
        padding = [side for one in reversed(sides) for side in (0, -one % cell)]
        options = {key: value for key, value in asdict(self).items() if key != "threads"}
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the package samples with PyTorch's defaults, which warns
                images = (image.clone()[None, None] for image in (pair.fixed, pair.moving))
                fixed, moving = (F.pad(image, padding, mode="replicate")[0, 0] for image in images)
                register = _package().convex_adam_pt
                displacement = register(fixed, moving, **options, dtype=torch.float32, device=fixed.device)
        finally:
            torch.set_num_threads(threads)
        x, y, z = sides
        return torch.from_numpy(displacement[:x, :y, :z]).permute(3, 0, 1, 2).float().contiguous()


def _package() -> ModuleType:
    with warnings.catch_warnings():  # importing it mutes all warnings of the process
        needed("convexAdam", "convexAdam")
        return importlib.import_module("convexAdam.convex_adam_MIND")
