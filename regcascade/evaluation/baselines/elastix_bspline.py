"""B-splines by elastix."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from regcascade.evaluation.baselines.base import INSTALL, METHODS, Method, Pair, flow_of_millimetres, needed
from regcascade.utils.config_diff import in_yaml


@METHODS.register("elastix_bspline")
@dataclass(frozen=True)
class ElastixBSpline(Method):
    """Elastix' affine map and then B-splines, by its stochastic gradient descent.

    The defaults are elastix' own; RCN prints no parameters.

    Args:
        metric: of both stages, by elastix' name.
        resolutions: levels of both stages.
        iterations: on each level.
        samples: voxels drawn in each iteration.
        grid_spacing_mm: between the control points on the finest level.
        bending: weight of the bending energy of the B-splines; 0 leaves it out, which is several times as fast.
        affine: other parameters of the affine stage, by elastix' names, each a value or a list.
        bspline: those of the B-splines, likewise.
        seed: for the samples.
        threads: of elastix; equal calls give equal flows only with 1.
    """

    metric: str = "AdvancedMattesMutualInformation"
    resolutions: int = 4
    iterations: int = 256
    samples: int = 2048
    grid_spacing_mm: float = 10.0
    bending: float = 1.0
    affine: Mapping[str, Any] | None = None
    bspline: Mapping[str, Any] | None = None
    seed: int = 1
    threads: int = 1

    packages: ClassVar[tuple[str, ...]] = ("itk-elastix",)

    def __post_init__(self) -> None:
        if self.resolutions < 1 or self.iterations < 1 or self.grid_spacing_mm <= 0 or self.bending < 0:
            raise ValueError(
                f"method.resolutions={self.resolutions}, iterations={self.iterations} and grid_spacing_mm="
                f"{self.grid_spacing_mm} must be positive, and bending={self.bending} not negative."
            )
        itk = needed("itk", "itk-elastix")
        if not hasattr(itk, "ElastixRegistrationMethod"):  # this also loads it, outside the timing
            raise ValueError(f"itk is installed without elastix (itk-elastix): {INSTALL}")

    def flow(self, pair: Pair) -> Float[Tensor, "3 x y z"]:
        """Compose both maps into a flow."""
        itk = needed("itk", "itk-elastix")
        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(self.threads)
        images = []
        for volume, spacing in ((pair.fixed, pair.fixed_spacing), (pair.moving, pair.moving_spacing)):
            image = itk.GetImageFromArray(np.ascontiguousarray(volume.cpu().numpy().T.astype(np.float32)))
            image.SetSpacing(spacing)
            images.append(image)
        with tempfile.TemporaryDirectory() as folder:
            _, found = itk.elastix_registration_method(
                *images, parameter_object=self._parameters(), number_of_threads=self.threads,
                log_to_console=False, output_directory=folder,
            )  # fmt: skip
            field = itk.transformix_deformation_field(images[1], found, output_directory=folder, log_to_console=False)
        displacement = itk.GetArrayFromImage(field).transpose(2, 1, 0, 3)
        return flow_of_millimetres(displacement, pair.fixed_spacing, pair.moving_spacing)

    def _parameters(self) -> Any:
        kind = needed("itk", "itk-elastix").ParameterObject
        result = kind.New()
        both = {
            "Metric": self.metric, "MaximumNumberOfIterations": self.iterations, "NumberOfSpatialSamples": self.samples,
            "RandomSeed": self.seed, "WriteResultImage": "false",
        }  # fmt: skip
        smooth: dict[str, Any] = {"Registration": "MultiResolutionRegistration"}
        if self.bending:
            smooth = {"Metric": [self.metric, "TransformBendingEnergyPenalty"], "Metric1Weight": self.bending}
        for stage, own in (("affine", self.affine or {}), ("bspline", smooth | dict(self.bspline or {}))):
            parameters = dict(kind.GetDefaultParameterMap(stage, self.resolutions, self.grid_spacing_mm))
            for key, value in {**both, **own}.items():
                parameters[key] = tuple(map(in_yaml, value if isinstance(value, list | tuple) else [value]))
            result.AddParameterMap(parameters)
        return result
