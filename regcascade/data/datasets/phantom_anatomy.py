"""The phantom's canonical abdomen: shapes given by formulas, so that they can be sampled at any coordinates.

Coordinates are normalised, -1..1 along each axis of the field of view: x towards the patient's left, y towards the
back, z towards the head. A shape is an inside function: positive inside, zero on the surface, and near the surface
about the distance to it. Parts are painted one over the other, from the body's outline to the vessels of the liver.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

Coordinates = Float[np.ndarray, "3 n"]
Inside = Float[np.ndarray, " n"]

LABEL_NAMES = {1: "liver", 2: "spleen", 3: "right_kidney", 4: "left_kidney"}
BACKGROUND, LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY = range(5)

AIR = -1000.0
# Hounsfield units of each tissue: without contrast agent, and what a usual portal venous enhancement adds.
TISSUES: dict[str, tuple[float, float]] = {
    "fat": (-100.0, 0.0),
    "muscle": (50.0, 15.0),
    "lung": (-820.0, 0.0),
    "blood": (42.0, 118.0),
    "bone": (320.0, 0.0),
    "disc": (95.0, 0.0),
    "liver": (56.0, 54.0),
    "tumour": (34.0, 14.0),
    "portal": (45.0, 130.0),
    "spleen": (48.0, 88.0),
    "cortex": (34.0, 166.0),
    "medulla": (26.0, 84.0),
    "stomach": (18.0, 4.0),
    "bowel": (30.0, 18.0),
}

# The vessels of the liver, as chains of nodes (x, y, z, radius): portal vein and its branches, hepatic veins.
_PORTAL_FORK = (-0.22, -0.02, 0.14)
_RIGHT_FORK = (-0.42, 0.02, 0.16)
_LEFT_FORK = (-0.05, -0.28, 0.30)
_HEPATIC_ROOT = (-0.25, 0.11, 0.50)
_VESSELS: tuple[tuple[tuple[float, float, float, float], ...], ...] = (
    ((-0.08, 0.10, -0.04, 0.060), (*_PORTAL_FORK, 0.055), (*_RIGHT_FORK, 0.050), (-0.60, -0.16, 0.24, 0.025)),
    ((*_RIGHT_FORK, 0.045), (-0.54, 0.22, 0.04, 0.022)),
    ((*_PORTAL_FORK, 0.050), (*_LEFT_FORK, 0.042), (0.14, -0.42, 0.34, 0.022)),
    ((*_LEFT_FORK, 0.038), (-0.12, -0.44, 0.22, 0.020)),
    ((*_HEPATIC_ROOT, 0.055), (-0.50, 0.12, 0.42, 0.042), (-0.64, 0.16, 0.26, 0.024)),
    ((*_HEPATIC_ROOT, 0.055), (-0.34, -0.16, 0.46, 0.040), (-0.44, -0.34, 0.34, 0.022)),
)
# Tumours: centre and radius.
_TUMOURS = ((-0.58, 0.06, -0.02, 0.110), (-0.30, -0.32, 0.16, 0.095), (-0.44, 0.34, 0.34, 0.080))

# Six landmarks, all in the liver: four forks of vessels, two tumours.
LANDMARKS: Float[np.ndarray, "3 6"] = np.array(
    [_PORTAL_FORK, _RIGHT_FORK, _LEFT_FORK, _HEPATIC_ROOT, _TUMOURS[0][:3], _TUMOURS[1][:3]]
).T


# A layer of the painting: its tissue, its label, and its inside function. Without a label it leaves those below as they
# are: a vessel is liver.
Part = tuple[str, int | None, Inside]


def paint(
    points: Coordinates, hounsfield: Mapping[str, float], width: float
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Paint the canonical abdomen at some points.

    Args:
        points: normalised canonical coordinates.
        hounsfield: the value of each tissue of `TISSUES`.
        width: the size of a voxel in these coordinates, over which two tissues mix (partial volume effect).

    Returns:
        Hounsfield units and label values, one for each point.
    """
    points = points.astype(np.float32)
    image = np.full(points.shape[1], AIR, np.float32)
    labels = np.zeros(points.shape[1], np.int64)
    for tissue, label, inside in _parts(points):
        image += np.clip(inside / width + 0.5, 0, 1) * (hounsfield[tissue] - image)
        if label is not None:
            labels[inside > 0] = label
    return image, labels


def _parts(points: Coordinates) -> Iterator[Part]:
    x, y, z = points
    outline = ((np.abs(x) / 0.90) ** 2.4 + (np.abs(y) / 0.84) ** 2.4) ** (1 / 2.4)
    cavity = (0.78 - outline) * 0.85
    dome = 0.78 - 0.9 * ((np.abs(x) - 0.42) ** 2 + 0.5 * y**2)  # the height of the diaphragm
    yield "fat", BACKGROUND, (1 - outline) * 0.85
    yield "muscle", BACKGROUND, (0.90 - outline) * 0.85
    yield "fat", BACKGROUND, cavity
    yield "bone", BACKGROUND, _ribs(points, outline)
    yield "bowel", BACKGROUND, _ellipsoid(points, (-0.05, -0.25, -0.76), (0.54, 0.38, 0.48))
    yield "lung", BACKGROUND, np.minimum(cavity, z - dome)
    yield "blood", BACKGROUND, _ellipsoid(points, (0.06, -0.22, 1.0), (0.30, 0.34, 0.36))
    yield from _back(points)
    yield "stomach", BACKGROUND, _ellipsoid(points, (0.38, -0.24, 0.24), (0.24, 0.28, 0.34))
    yield from _liver(points, np.minimum(cavity, dome - z) - 0.02)
    spleen = _ellipsoid(points, (0.52, 0.32, 0.36), (0.17, 0.30, 0.28))
    yield "spleen", SPLEEN, np.minimum(spleen, np.minimum(cavity, dome - z) - 0.02)
    for label, centre in ((RIGHT_KIDNEY, (-0.36, 0.42, -0.30)), (LEFT_KIDNEY, (0.37, 0.40, -0.16))):
        yield "cortex", label, _ellipsoid(points, centre, (0.15, 0.18, 0.30))
        yield "medulla", None, _ellipsoid(points, centre, (0.06, 0.08, 0.16))


def _ribs(points: Coordinates, outline: Inside) -> Inside:
    """Rings in the chest wall, sloping down towards the front and open there, ending at the costal margin."""
    x, y, z = points
    height = z - 0.35 * y
    ring = 0.055 - 0.30 * np.abs((height / 0.30 + 0.5) % 1 - 0.5)
    shell = 0.045 - np.abs(outline - 0.84) * 0.85
    margin = np.minimum(height + 0.40, np.maximum(np.abs(x) - 0.30, y))
    return np.minimum(np.minimum(ring, shell), margin)


def _back(points: Coordinates) -> Iterator[Part]:
    """Muscles beside the spine, vertebrae and discs, the aorta and the inferior vena cava."""
    x, y, z = points
    sides = np.stack([np.abs(x), y])
    yield "muscle", BACKGROUND, _ellipsoid(sides, (0.22, 0.62), (0.20, 0.12))
    psoas = np.minimum(_ellipsoid(sides, (0.19, 0.40), (0.10, 0.12)), 0.0 - z)
    yield "muscle", BACKGROUND, psoas
    spine = _ellipsoid(points[:2], (0.0, 0.42), (0.14, 0.15))
    gap = 0.24 * np.abs((z / 0.24 + 0.5) % 1 - 0.5)  # from the middle of the nearest disc
    process = np.minimum(_ellipsoid(points[:2], (0.0, 0.62), (0.05, 0.13)), gap - 0.05)
    yield "bone", BACKGROUND, np.maximum(spine, process)
    yield "disc", None, np.minimum(spine, 0.035 - gap)
    yield "blood", BACKGROUND, _ellipsoid(points[:2], (0.07, 0.20), (0.062, 0.078))
    yield "blood", BACKGROUND, _ellipsoid(points[:2], (-0.12, 0.22), (0.060, 0.070))


def _liver(points: Coordinates, room: Inside) -> Iterator[Part]:
    """The liver under the diaphragm, its tumours and vessels; these are evaluated near the liver only."""
    right = _ellipsoid(points, (-0.40, 0.02, 0.22), (0.36, 0.52, 0.52))
    left = _ellipsoid(points, (0.02, -0.30, 0.38), (0.36, 0.26, 0.24))
    # The larger of the two, rounded where they are within 0.08 of each other.
    overlap = np.clip(1 - np.abs(right - left) / 0.08, 0, None)
    liver = np.minimum(np.maximum(right, left) + overlap**2 * 0.08 / 4, room)
    # The vena cava runs in a groove at the back of the liver.
    liver = np.minimum(liver, -_ellipsoid(points[:2], (-0.12, 0.22), (0.075, 0.085)))
    yield "liver", LIVER, liver
    near = np.flatnonzero(liver > -0.1)
    inner = points[:, near]
    for tissue, shapes in (
        ("portal", [_tube(inner, nodes) for nodes in _VESSELS]),
        ("tumour", [_ellipsoid(inner, (x, y, z), (r, r, r)) for x, y, z, r in _TUMOURS]),
    ):
        inside = np.full_like(liver, -1)
        inside[near] = np.minimum(np.max(shapes, axis=0), liver[near])
        yield tissue, None, inside


def _ellipsoid(points: Float[np.ndarray, "d n"], centre: Sequence[float], radii: Sequence[float]) -> Inside:
    """An ellipsoid; of two coordinates, an upright elliptic cylinder."""
    squares = np.zeros_like(points[0])
    for coordinate, middle, radius in zip(points, centre, radii, strict=True):
        squares += ((coordinate - middle) / radius) ** 2
    return (1 - np.sqrt(squares)) * min(radii)


def _tube(points: Coordinates, nodes: Sequence[tuple[float, float, float, float]]) -> Inside:
    """A chain of straight tubes whose radius changes evenly from node to node."""
    inside = np.full_like(points[0], -np.inf)
    chain = np.array(nodes, np.float32)
    for start, end in pairwise(chain):
        axis = end[:3] - start[:3]
        offset = points - start[:3, None]
        along = np.clip(axis @ offset / (axis @ axis), 0, 1)
        distance = np.sqrt(((offset - axis[:, None] * along) ** 2).sum(0))
        inside = np.maximum(inside, start[3] + (end[3] - start[3]) * along - distance)
    return inside
