"""Warping and composing flows; the only place that samples a grid.

Convention of every function here: `moved(p) = moving(p + flow(p))`, flows in voxels of their own grid, channel a
along array axis a, coordinates outside clamped to the border.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regcascade.types import Flow, Labels, Points, Volume, level_size, size_of

MANY_POINTS = 2**16  # from which on they are worth every core


def warp(image: Volume, flow: Flow, mode: str = "bilinear") -> Volume:
    """Pull `image` back through `flow`.

    Convention: `out(p) = image(p + flow(p))`; `flow[:, a]` displaces along array axis a, in voxels; coordinates
    outside are clamped to the border. Coordinates are float32 (float64 for float64 flows) whatever autocast says,
    because half precision steps by 0.125 voxel at 128.

    Args:
        image: `(B, C, X, Y, Z)` floating point, on the grid of `flow`.
        flow: `(B, 3, X, Y, Z)`.
        mode: `bilinear` (which is trilinear in 3D) or `nearest`.
    """
    if size_of(image) != size_of(flow):
        raise ValueError(f"warp: the image has sides {size_of(image)} and the flow {size_of(flow)}; they must agree.")
    with torch.autocast(flow.device.type, enabled=False):
        flow = flow.to(_coordinate_dtype(flow))
        image = image.to(flow.dtype)
        return _sample(image, _normalised_coordinates(flow), mode)


def warp_labels(labels: Labels, flow: Flow, interpolation: str = "nearest") -> Labels:
    """Pull a label map back through `flow`.

    Args:
        labels: `(B, 1, X, Y, Z)` integers.
        flow: `(B, 3, X, Y, Z)`.
        interpolation: `nearest` gives each voxel the label nearest to where it points; `linear` the label with the
            largest trilinear share there (one-hot, arg-max), background included, the smallest among equals. It takes
            the labels one by one, so that memory does not grow with their number.
    """
    if interpolation == "nearest":
        return warp(labels.float(), flow, mode="nearest").round().to(labels.dtype)
    if interpolation != "linear":
        raise ValueError(f"warp_labels: interpolation={interpolation}; it is nearest or linear.")
    moved, most = torch.zeros_like(labels), torch.full_like(labels, -1, dtype=_coordinate_dtype(flow))
    for label in labels.unique().tolist():
        share = warp((labels == label).to(most.dtype), flow)
        larger = share > most
        moved, most = torch.where(larger, label, moved), torch.where(larger, share, most)
    return moved


def compose(first: Flow, then: Flow) -> Flow:
    """The flow of two warps in turn: `then + warp(first, then)`.

    `warp(image, compose(first, then))` equals `warp(warp(image, first), then)` up to interpolation: the image is
    deformed by `first` and the result by `then` (Eq. 5 of the second paper, Section 3.1 of the first).
    """
    return then + warp(first, then)


def integrate(velocity: Flow, squarings: int) -> Flow:
    """The flow of a stationary velocity after unit time, by scaling and squaring (Arsigny et al., MICCAI 2006).

    The velocity divided by 2^K is taken as a flow, which is composed with itself K times. The flow of the opposite
    velocity is the inverse, up to interpolation and the first step, whose error halves with each squaring. But for
    interpolation the flow does not fold if that first step, `velocity / 2^K`, does not.

    Args:
        velocity: `(B, 3, X, Y, Z)`, in voxels per unit of time.
        squarings: K; 0 gives the velocity itself.
    """
    flow = velocity / 2**squarings
    for _ in range(squarings):
        flow = compose(flow, flow)
    return flow


def resize_flow(flow: Float[Tensor, "batch 3 small_x small_y small_z"], size: tuple[int, int, int], level: int) -> Flow:
    """Enlarge a flow of level `level` to the full grid `size`, in voxels of the full grid.

    Convention: voxel i of level l sits at `2^l i + (2^l - 1) / 2`, so this is half-pixel trilinear interpolation,
    the values times `2^l`, cut to `size`. The flow of a linear map stays that of the same map in the interior.

    Raises:
        ValueError: if the flow's sides are not `ceil(size / 2^level)`.
    """
    if size_of(flow) != level_size(size, level):
        raise ValueError(
            f"resize_flow: level {level} of a {size} grid has sides {level_size(size, level)}, not {size_of(flow)}."
        )
    if level == 0:
        return flow
    x, y, z = size
    scale = float(2**level)
    with torch.autocast(flow.device.type, enabled=False):
        flow = flow.to(_coordinate_dtype(flow)) * scale
        large = F.interpolate(flow, scale_factor=(scale,) * 3, mode="trilinear", align_corners=False)
        return large[:, :, :x, :y, :z]


def jacobian_det(flow: Flow) -> Float[Tensor, "batch x1 y1 z1"]:
    """Determinant of the Jacobian of `p -> p + flow(p)`, by forward differences.

    It lives on the volume less its last plane along each axis. 1 keeps volume, at or below 0 the map folds.
    """
    core = flow[:, :, :-1, :-1, :-1]
    columns = [
        flow[:, :, 1:, :-1, :-1] - core,
        flow[:, :, :-1, 1:, :-1] - core,
        flow[:, :, :-1, :-1, 1:] - core,
    ]
    # columns[a][:, i] = d flow_i / d axis_a; adding the identity gives the Jacobian of the map.
    a, b, c = (column + _unit(axis, column) for axis, column in enumerate(columns))
    return (a * torch.linalg.cross(b, c, dim=1)).sum(1)


def sample_at(volume: Volume, points: Points) -> Float[Tensor, "batch k channels"]:
    """Trilinear values of a `(B, C, X, Y, Z)` volume at points in voxels; NaN where a point is NaN.

    Points in double precision are interpolated in it; of a volume in single precision no copy is made for that.
    """
    missing = points.isnan().any(-1, keepdim=True)
    filled = torch.where(missing, torch.zeros_like(points), points)
    if points.dtype == torch.float64 != volume.dtype:
        return _gathered(volume, filled).masked_fill(missing, float("nan"))
    grid = _normalise(filled.transpose(1, 2)[..., None, None], size_of(volume))
    sampler = _sample if points.shape[1] >= MANY_POINTS else _grid_sample
    values = sampler(volume.to(grid.dtype), grid, "bilinear")[..., 0, 0].transpose(1, 2)
    return values.masked_fill(missing, float("nan"))


def _gathered(volume: Volume, points: Points) -> Float[Tensor, "batch k channels"]:
    """`sample_at` from the eight voxels around each point, in the precision of the points; none is NaN."""
    last = torch.tensor(size_of(volume), device=points.device) - 1
    points = points.clamp(min=torch.zeros_like(last), max=last)
    lower = points.floor().long()
    upper, share = torch.minimum(lower + 1, last), points - lower
    batch = torch.arange(len(volume), device=points.device)[:, None]
    values = points.new_zeros(*points.shape[:2], volume.shape[1])
    for corner in itertools.product((False, True), repeat=3):
        at, weight = [], torch.ones_like(points[..., 0])
        for axis, beyond in enumerate(corner):
            at.append((upper if beyond else lower)[..., axis])
            weight = weight * (share[..., axis] if beyond else 1 - share[..., axis])
        values += weight[..., None] * volume[batch, :, at[0], at[1], at[2]].to(points.dtype)
    return values


def warp_points(points: Points, flow: Flow) -> Points:
    """Where points of the fixed grid lie in the moving grid: `p + flow(p)`."""
    return points + sample_at(flow, points).to(points.dtype)


def _unit(axis: int, like: Tensor) -> Tensor:
    vector = torch.zeros(1, 3, 1, 1, 1, dtype=like.dtype, device=like.device)
    vector[0, axis] = 1
    return vector


def _coordinate_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _normalised_coordinates(flow: Tensor) -> Tensor:
    """`p + flow(p)` as the `(B, X, Y, Z, 3)` grid that `grid_sample` wants: last axis first, -1..1 edge to edge.

    Its memory stays one plane per component like the flow's, which `grid_sample` reads as fast; interleaving them
    takes longer than the arithmetic. `unbind` has one gradient for all components, where indexing has one each.
    """
    size, components = size_of(flow), flow.unbind(1)
    parts = []
    for axis in (2, 1, 0):
        side = size[axis]
        shape = [1, 1, 1]
        shape[axis] = side
        index = torch.arange(side, dtype=flow.dtype, device=flow.device)
        parts.append(torch.add(((2 * index + 1) / side - 1).view(shape), components[axis], alpha=2 / side))
    return torch.stack(parts, dim=1).permute(0, 2, 3, 4, 1)


def _normalise(coordinates: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Voxel coordinates `(B, 3, ...)` to what `grid_sample` wants, without assuming a regular grid."""
    sides = torch.tensor(size, dtype=coordinates.dtype, device=coordinates.device).view(1, 3, 1, 1, 1)
    return ((2 * coordinates + 1) / sides - 1).flip(1).permute(0, 2, 3, 4, 1)


def _sample(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    """`grid_sample`, given to every core.

    On the CPU it runs one thread per batch item, so a single volume is cut into slabs of its output along the first
    axis, which become the batch; the image is only viewed, not copied.
    """
    batch, side = grid.shape[:2]
    slabs = torch.get_num_threads() if grid.device.type == "cpu" else 1
    if batch > 1 or side < 2 * slabs or slabs == 1:
        return _grid_sample(image, grid, mode)
    main = side - side % slabs
    cut = grid[:, :main].reshape(slabs, main // slabs, *grid.shape[2:])
    moved = _grid_sample(image.expand(slabs, -1, -1, -1, -1), cut, mode)
    moved = moved.transpose(0, 1).reshape(1, image.shape[1], main, *grid.shape[2:4])
    if main == side:
        return moved
    return torch.cat([moved, _grid_sample(image, grid[:, main:], mode)], dim=2)


def _grid_sample(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)


def stays_inside(flow: Flow) -> Tensor:
    """Where `p + flow(p)` lies on the grid, booleans `(B, X, Y, Z)`."""
    inside = torch.ones_like(flow[:, 0], dtype=torch.bool)
    for axis, side in enumerate(size_of(flow)):
        shape = [1, 1, 1, 1]
        shape[1 + axis] = side
        position = flow.detach()[:, axis] + torch.arange(side, dtype=flow.dtype, device=flow.device).view(shape)
        inside &= (position >= 0) & (position <= side - 1)
    return inside
