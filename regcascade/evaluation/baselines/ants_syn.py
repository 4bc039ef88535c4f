"""Symmetric normalization by ANTs."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from regcascade.evaluation.baselines.base import METHODS, Method, Pair, flow_of_millimetres, needed
from regcascade.utils.registry import check_choice


@METHODS.register("ants_syn")
@dataclass(frozen=True)
class AntsSyn(Method):
    """ANTs' affine map, from the centres of mass, and then SyN.

    The parameters are those of ANTs' script `antsRegistrationSyN.sh`, with cross-correlation as in RCN, which prints no
    parameters. The affine stage is that of antspyx.

    With one thread, equal calls give equal flows; with more, they differ by up to half a voxel in places. ITK reads the
    number of threads at its first use in a process. A program that runs ANTs before this method must be started with
    `ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1`.

    Args:
        metric: of SyN, `CC` (cross-correlation in windows) or `mattes` (mutual information).
        sampling: radius of the windows in voxels, or bins of the histogram.
        iterations: of SyN on each level, the coarsest first; each level halves the resolution.
        gradient_step: of SyN.
        flow_sigma: its smoothing of the update field, in voxels.
        total_sigma: its smoothing of the total field, in voxels.
        affine_metric: of the affine stage, `mattes`, `GC` (correlation) or `meansquares`.
        affine_iterations: of the affine stage at 1/6, 1/4, 1/2 and 1 of the resolution.
        seed: for the voxels that the affine stage samples.
        threads: of ANTs.
    """

    metric: str = "CC"
    sampling: int = 4
    iterations: Sequence[int] = (100, 70, 50, 20)
    gradient_step: float = 0.1
    flow_sigma: float = 3.0
    total_sigma: float = 0.0
    affine_metric: str = "mattes"
    affine_iterations: Sequence[int] = (2100, 1200, 1200, 10)
    seed: int = 1
    threads: int = 1

    packages: ClassVar[tuple[str, ...]] = ("antspyx",)

    def __post_init__(self) -> None:
        check_choice("method.metric", self.metric, ["CC", "mattes"])
        check_choice("method.affine_metric", self.affine_metric, ["mattes", "GC", "meansquares"])
        if len(self.affine_iterations) != 4 or not self.iterations:
            raise ValueError(
                f"method.affine_iterations={list(self.affine_iterations)} and method.iterations="
                f"{list(self.iterations)}: give four numbers, and one or more."
            )
        needed("ants", "antspyx")

    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """Compose both maps into a flow."""
        ants = needed("ants", "antspyx")
        ants.config.set_ants_deterministic(on=True, seed_value=self.seed)
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(self.threads)  # after `ants.config`, which sets 1
        fixed, moving = (
            ants.from_numpy(np.ascontiguousarray(volume.cpu().numpy().astype(np.float32)), spacing=spacing)
            for volume, spacing in ((pair.fixed, pair.fixed_spacing), (pair.moving, pair.moving_spacing))
        )
        with tempfile.TemporaryDirectory() as folder:
            prefix = str(Path(folder) / "ants_")
            found = ants.registration(
                fixed, moving, type_of_transform="SyN", outprefix=prefix,
                syn_metric=self.metric, syn_sampling=self.sampling, reg_iterations=tuple(self.iterations),
                grad_step=self.gradient_step, flow_sigma=self.flow_sigma, total_sigma=self.total_sigma,
                aff_metric=self.affine_metric, aff_iterations=tuple(self.affine_iterations),
            )  # fmt: skip
            composed = ants.apply_transforms(fixed, moving, found["fwdtransforms"], compose=prefix)
            field = ants.image_read(composed).numpy()
        return flow_of_millimetres(field, pair.fixed_spacing, pair.moving_spacing)
