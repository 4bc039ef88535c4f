"""A procedural abdomen with a known correspondence between any two cases; the built-in data set.

Each case is one canonical anatomy pulled through a smooth invertible map T of its own: its tissue at p is the canonical
tissue at T(p). Labels and landmarks follow the same map, and the correspondence of two cases is
`moving_T^-1(fixed_T(p))`, exact to rounding because T has a closed-form inverse.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.polynomial.chebyshev import chebval
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.phantom_anatomy import LABEL_NAMES, LANDMARKS, TISSUES, paint
from regcascade.data.options import check_count, check_size, check_spacing
from regcascade.data.preprocessing.standard import LIVER_WINDOW, Preprocessing
from regcascade.data.splits import Split
from regcascade.types import Flow, Size

FIELD_OF_VIEW_MM = (360.0, 288.0, 288.0)
WINDOW_HU = (-25.0, 265.0)  # the papers' liver window: width 290 at level 120
SMALLEST_SIDE = 16
CACHED_VOXELS = 2**26  # 12 bytes each: about 0.8 GiB of finished cases

# How far the maps depart from the identity: the median over cases, and the spread of its logarithm. Chosen for the
# papers' Dice of the liver before registration.
_STRENGTH = 0.175
_STRENGTH_SPREAD = 0.4
_STRONGEST = 2.0  # standard deviations of that logarithm
_ROUNDS = 2
_DEGREE = 3
_STEEPEST = 0.6  # bound of |tau|, below 1
# A scanner's point spread. Without it, edges so sharp would be met best by a flow of half voxels that blurs them.
_BLUR_VOXELS = 0.7
_GOLDEN = 0.6180339887498949

# The random streams of a case.
_MAP, _LOOK, _NOISE = range(3)


class SmoothMap:
    """A smooth bijection of the cube (-1, 1)^3 onto itself with a closed-form inverse.

    One layer moves one coordinate by a Moebius map of the interval, whose parameter is a bounded function of
    the other two: `u_a <- (u_a + tau) / (1 + tau u_a)`, `tau = tau(u_b, u_c)`, |tau| < 1. Its determinant,
    `(1 - tau^2) / (1 + tau u_a)^2`, is positive, so no chain of layers folds. The inverse runs the layers backwards
    with `-tau`.

    Args:
        coefficients: `(layers, degree + 1, degree + 1)`, of products of Chebyshev polynomials; layer k moves
            axis k mod 3. Zeros give the identity.
    """

    def __init__(self, coefficients: Float[np.ndarray, "layers d d"]) -> None:
        self.coefficients = coefficients

    def __call__(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "3 n"]:
        """Map points of a case to the canonical anatomy, both in normalised coordinates."""
        return self._run(points, range(len(self.coefficients)), 1.0)

    def inverse(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "3 n"]:
        """Map canonical points to the case."""
        return self._run(points, range(len(self.coefficients))[::-1], -1.0)

    def _run(self, points: Float[np.ndarray, "3 n"], layers: range, sign: float) -> Float[np.ndarray, "3 n"]:
        moved = points.astype(np.float64)
        for layer in layers:
            axis = layer % 3
            first, second = (moved[other] for other in range(3) if other != axis)
            rows = chebval(first, self.coefficients[layer])
            field = chebval(second, rows, tensor=False)
            tau = sign * _STEEPEST * np.tanh(field / _STEEPEST)
            moved[axis] = (moved[axis] + tau) / (1 + tau * moved[axis])
        return moved


class Phantom(CaseSet):
    """Synthetic CT scans of the abdomen, made on demand.

    Case k of a seed is the same in any set and order of access, and its anatomy at any size; only the noise belongs to
    the voxels. Labels: liver (with its tumours and vessels), spleen, right and left kidney. Points: six landmarks in
    the liver. Axes: x towards the patient's left, y towards the back, z towards the head.

    Between two cases the liver's Dice before registration is 0.70 to 0.79 on average, as in the papers, below 0.7 for
    about a third of the pairs or more and below 0.5 for a few.

    Args:
        count: number of cases, at least 1.
        size: voxels along each axis, at least 16 each. The field of view does not depend on it.
        seed: of the whole family of cases.
        spacing_mm: mm per voxel; None divides a field of view of 360 x 288 x 288 mm by `size`.
        first_index: index of the first case within the seed's family.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        count: int,
        size: Sequence[int] = (32, 32, 32),
        seed: int = 0,
        spacing_mm: Sequence[float | int] | None = None,
        first_index: int = 0,
    ) -> None:
        check_count("Phantom: count", count, 1)
        self.size: Size = check_size("Phantom: size", size)
        if min(size) < SMALLEST_SIDE:
            raise ValueError(f"Phantom: size={list(size)} is too small; give three sides of {SMALLEST_SIDE} or more.")
        self.seed = check_count("Phantom: seed", seed, 0)
        self.first_index = check_count("Phantom: first_index", first_index, 0)
        if spacing_mm is None:
            spacing_mm = [extent / side for extent, side in zip(FIELD_OF_VIEW_MM, self.size, strict=True)]
        self.spacing = check_spacing("Phantom: spacing_mm", spacing_mm)
        self.names = [f"phantom_{index:04d}" for index in range(first_index, first_index + count)]
        self.label_names = dict(LABEL_NAMES)
        self._cases: dict[int, Case] = {}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What would make a CT scan look like these, and how it would lie."""
        made = Preprocessing(size=self.size, intensity="window", window=LIVER_WINDOW)
        return made.as_dict() | {"orientation": "LPS", "spacing": list(self.spacing)}

    def __getitem__(self, index: int) -> Case:
        """Make the case at a position of this set. Finished cases are kept and shared: do not write to them."""
        member = self._member(index)
        case = self._cases.get(member)
        if case is None:
            image, labels = self._render(member)
            low, high = WINDOW_HU
            landmarks = (self._map(member).inverse(LANDMARKS) + 1) * np.array(self.size)[:, None]
            case = Case(
                name=self.names[member - self.first_index],
                image=((image - low) / (high - low)).clamp(0, 1),
                spacing=self.spacing,
                labels=labels,
                points=torch.from_numpy(((landmarks - 1) / 2).T.astype(np.float32)),
            )
            if len(self._cases) < CACHED_VOXELS // case.image.numel():
                self._cases[member] = case
        return case

    def landmarked(self, index: int) -> bool:
        """Every case has landmarks."""
        return True

    def hounsfield(self, index: int) -> Float[torch.Tensor, "1 x y z"]:
        """Make the image of the case at a position of this set before the window, in Hounsfield units."""
        return self._render(self._member(index))[0]

    def true_flow(self, fixed_index: int, moving_index: int) -> Flow:
        """Compute the flow for which `moving(p + flow(p))` shows the tissue of `fixed(p)`.

        It is `(1, 3, X, Y, Z)` float32 in voxels, points into the moving volume everywhere and nowhere folds.
        """
        fixed, moving = self._map(self._member(fixed_index)), self._map(self._member(moving_index))
        grid = self._grid()
        displacement = (moving.inverse(fixed(grid)) - grid) * np.array(self.size)[:, None] / 2
        return torch.from_numpy(displacement.reshape(1, 3, *self.size).astype(np.float32))

    def _member(self, index: int) -> int:
        """Find the index within the seed's family of a position of this set."""
        return self.first_index + range(len(self))[index]

    def _random(self, member: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, member, stream))

    def _map(self, member: int) -> SmoothMap:
        # A low-discrepancy sequence of strengths: every range of cases has its share of easy and hard ones.
        start = np.random.default_rng(self.seed).uniform()
        quantile = np.clip((start + member * _GOLDEN) % 1, 1e-6, 1 - 1e-6)
        strength = _STRENGTH * np.exp(_STRENGTH_SPREAD * np.clip(ndtri(quantile), -_STRONGEST, _STRONGEST))
        order = np.add.outer(np.arange(_DEGREE + 1), np.arange(_DEGREE + 1))
        spectrum = np.where(order <= _DEGREE, 1 / (1 + order), 0)
        draws = spectrum * self._random(member, _MAP).standard_normal((3 * _ROUNDS, *order.shape))
        return SmoothMap(strength * draws / np.sqrt((draws**2).sum()))

    def _render(self, member: int) -> tuple[Float[torch.Tensor, "1 x y z"], Int[torch.Tensor, "1 x y z"]]:
        """Make the image in Hounsfield units and the labels."""
        random = self._random(member, _LOOK)
        enhancement = random.normal(1, 0.12)
        tissues = {
            name: native + enhancement * added + random.normal(0, 5) for name, (native, added) in TISSUES.items()
        }
        waves = random.standard_normal((8, 3))  # of the texture, in radians per normalised canonical unit
        waves *= random.uniform(8, 24, (8, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
        phases, texture, noise = random.uniform(0, 2 * np.pi, 8), random.uniform(4, 10), random.uniform(6, 14)
        canonical = self._map(member)(self._grid()).astype(np.float32)
        width = 2 / float(np.prod(self.size)) ** (1 / 3)
        image, labels = paint(canonical, tissues, width)
        for wave, phase in zip(waves.astype(np.float32), phases, strict=True):
            image += texture / 2 * np.cos(wave @ canonical + np.float32(phase))
        image = gaussian_filter(image.reshape(self.size), _BLUR_VOXELS, mode="nearest")
        image += noise * self._random(member, _NOISE).standard_normal(self.size, dtype=np.float32)
        return torch.from_numpy(image)[None], torch.from_numpy(labels.reshape(1, *self.size))

    def _grid(self) -> Float[np.ndarray, "3 n"]:
        """Compute voxel centres in normalised coordinates: voxel i of S is at `(2 i + 1) / S - 1`."""
        axes = [(2 * np.arange(side) + 1) / side - 1 for side in self.size]
        return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)


@DATA_SETS.register("phantom")
class PhantomData(DataSet):
    """The built-in procedural abdomen. The validation cases come first, so they stay the same whatever `train` is.

    Args:
        size: sides in voxels, at least 16 each.
        train: how many cases train.
        validation: how many others validate.
        seed: of the phantoms and of the pairs.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {"validation_pairs": 20, "pairs_per_epoch": 100}

    def __init__(self, size: Sequence[int] = (32, 32, 32), train: int = 32, validation: int = 8, seed: int = 0) -> None:
        check_count("data.train", train, 0)
        check_count("data.validation", validation, 0)
        check_count("data.seed", seed, 0)
        self.cases = Phantom(max(train + validation, 1), check_size("data.size", size), seed)
        names = self.cases.names
        self.split = Split(names[validation : validation + train], names[:validation])
