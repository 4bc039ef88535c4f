"""Warp images, labels and points, and compose flows; the only module that calls `grid_sample`.

Convention of every function: `moved(p) = moving(p + flow(p))`. A flow is in voxels of its own grid, channel a along
array axis a. Coordinates outside the grid are clamped to its border.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regcascade.types import Flow, Labels, Points, Volume, level_size, size_of
from regcascade.utils.precision import at_least_float32

MANY_POINTS = 2**16  # from this many on, sampling uses every core


def warp(image: Volume, flow: Flow, mode: str = "bilinear") -> Volume:
    """Pull `image` back through `flow`.

    Coordinates are float32, or float64 as the flow: half precision steps by 0.125 voxel at 128.

    Args:
        image: `(B, C, X, Y, Z)` floating point, on the grid of `flow`.
        flow: `(B, 3, X, Y, Z)` in voxels: `out(p) = image(p + flow(p))`.
        mode: `bilinear` (trilinear in 3D) or `nearest`.

    >>> flow = torch.zeros(1, 3, 4, 1, 1)
    >>> flow[:, 0] = 1  # each voxel takes the value of the next one along the first axis
    >>> warp(torch.arange(4.0).view(1, 1, 4, 1, 1), flow).flatten()
    tensor([1., 2., 3., 3.])
    """
    if size_of(image) != size_of(flow):
        raise ValueError(f"warp: the image has sides {size_of(image)} and the flow {size_of(flow)}; they must agree.")
    with torch.autocast(flow.device.type, enabled=False):
        flow = at_least_float32(flow)
        return _sample(image.to(flow.dtype), _normalised_coordinates(flow), mode)


def warp_labels(labels: Labels, flow: Flow, interpolation: str = "nearest") -> Labels:
    """Pull a label map, `(B, 1, X, Y, Z)` integers, back through `flow`.

    `interpolation` is `nearest`, or `linear`: the label with the largest trilinear share, background included, the
    smallest among equals. Memory does not grow with the number of labels.
    """
    if interpolation == "nearest":
        return warp(labels.float(), flow, mode="nearest").round().to(labels.dtype)
    if interpolation != "linear":
        raise ValueError(f"warp_labels: interpolation={interpolation}; it is nearest or linear.")
    moved, most = torch.zeros_like(labels), torch.full_like(labels, -1, dtype=at_least_float32(flow).dtype)
    for label in labels.unique().tolist():
        share = warp((labels == label).to(most.dtype), flow)
        larger = share > most
        moved, most = torch.where(larger, label, moved), torch.where(larger, share, most)
    return moved


def compose(first: Flow, then: Flow) -> Flow:
    """Compose two flows into one: `then + warp(first, then)`.

    `warp(image, compose(first, then))` equals `warp(warp(image, first), then)` up to interpolation: `first` deforms the
    image and `then` deforms the result (RCN, Section 3; DR-Net, Eq. 5).

    >>> along_x = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1)
    >>> shift = along_x.expand(1, 3, 4, 1, 1)
    >>> stretch = along_x * torch.arange(4.0).view(4, 1, 1)
    >>> compose(stretch, shift)[0, 0].flatten()  # the shift, and the stretch of where it leads
    tensor([2., 3., 4., 4.])
    """
    return then + warp(first, then)


def integrate(velocity: Flow, squarings: int) -> Flow:
    """Integrate a stationary velocity over unit time by scaling and squaring (Arsigny et al., MICCAI 2006).

    The flow `velocity / 2^K`, `(B, 3, X, Y, Z)` in voxels, is composed with itself K times (`squarings`). The opposite
    velocity gives the inverse, up to interpolation and the error of the first step, which halves with each squaring.
    """
    flow = velocity / 2**squarings
    for _ in range(squarings):
        flow = compose(flow, flow)
    return flow


def resize_flow(flow: Float[Tensor, "batch 3 small_x small_y small_z"], size: tuple[int, int, int], level: int) -> Flow:
    """Enlarge a flow of level `level` to the full grid `size`, in voxels of the full grid.

    Half-pixel trilinear interpolation, the values times `2^l`, cut to `size`: voxel i of level l sits at
    `2^l i + (2^l - 1) / 2` of the full grid. In the interior a linear map stays the same map.

    >>> resize_flow(torch.ones(1, 3, 2, 2, 2), (4, 4, 3), level=1).unique()  # one voxel there is two here
    tensor([2.])
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
        flow = at_least_float32(flow) * scale
        large = F.interpolate(flow, scale_factor=(scale,) * 3, mode="trilinear", align_corners=False)
        return large[:, :, :x, :y, :z]


def jacobian_det(flow: Flow) -> Float[Tensor, "batch x1 y1 z1"]:
    """Determinant of the Jacobian of `p -> p + flow(p)`, by forward differences.

    Its grid lacks the last plane along each axis. 1 keeps volume; at or below 0 the map folds.

    >>> flow = torch.zeros(1, 3, 3, 2, 2)
    >>> flow[:, 0] = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1)  # stretches the first axis by half
    >>> jacobian_det(flow).flatten()
    tensor([1.5000, 1.5000])
    """
    core = flow[:, :, :-1, :-1, :-1]
    nexts = flow[:, :, 1:, :-1, :-1], flow[:, :, :-1, 1:, :-1], flow[:, :, :-1, :-1, 1:]
    columns = [following - core for following in nexts]  # columns[a][:, i] = d flow_i / d axis_a
    identity = torch.eye(3, dtype=flow.dtype, device=flow.device)
    a, b, c = (column + unit.view(1, 3, 1, 1, 1) for unit, column in zip(identity, columns, strict=True))
    return (a * torch.linalg.cross(b, c, dim=1)).sum(1)


def sample_at(volume: Volume, points: Points) -> Float[Tensor, "batch k channels"]:
    """Sample a `(B, C, X, Y, Z)` volume at points in voxels, trilinearly, in their precision; NaN stays."""
    missing = points.isnan().any(-1, keepdim=True)
    filled = torch.where(missing, torch.zeros_like(points), points).transpose(1, 2)[..., None, None]
    sides = torch.tensor(size_of(volume), dtype=points.dtype, device=points.device).view(1, 3, 1, 1, 1)
    grid = ((2 * filled + 1) / sides - 1).flip(1).permute(0, 2, 3, 4, 1)
    sampler = _sample if points.shape[1] >= MANY_POINTS else _grid_sample
    values = sampler(volume.to(grid.dtype), grid, "bilinear")[..., 0, 0].transpose(1, 2)
    return values.masked_fill(missing, float("nan"))


def warp_points(points: Points, flow: Flow) -> Points:
    """Take points of the fixed grid to the moving grid: `p + flow(p)`, NaN where a point is NaN.

    >>> flow = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1).expand(1, 3, 4, 4, 4)
    >>> warp_points(torch.tensor([[[1.0, 2.0, 3.0]]]), flow)
    tensor([[[2., 2., 3.]]])
    """
    return points + sample_at(flow, points).to(points.dtype)


def stays_inside(flow: Flow) -> Tensor:
    """Where `p + flow(p)` lies on the grid, booleans `(B, X, Y, Z)`."""
    inside = torch.ones_like(flow[:, 0], dtype=torch.bool)
    for axis, side in enumerate(size_of(flow)):
        position = flow.detach()[:, axis] + voxels_along(axis, side, flow)
        inside &= (position >= 0) & (position <= side - 1)
    return inside


def voxels_along(axis: int, side: int, like: Tensor) -> Tensor:
    """0, 1, .. `side - 1`, shaped so that they broadcast along one of a volume's last three axes."""
    shape = [1, 1, 1]
    shape[axis] = side
    places = like.new_ones(side, dtype=torch.int64).cumsum(0) - 1  # unlike arange, on any device once exported
    return places.to(like.dtype).view(shape)


def _normalised_coordinates(flow: Tensor) -> Tensor:
    """`p + flow(p)` as the `(B, X, Y, Z, 3)` grid that `grid_sample` takes: last axis first, -1..1 edge to edge.

    Components stay apart in memory, which is faster than interleaving them. `unbind` has one gradient for all of them.
    """
    size, components = size_of(flow), flow.unbind(1)
    parts = []
    for axis in (2, 1, 0):
        side = size[axis]
        centres = (2 * voxels_along(axis, side, flow) + 1) / side - 1
        parts.append(torch.add(centres, components[axis], alpha=2 / side))
    return torch.stack(parts, dim=1).permute(0, 2, 3, 4, 1)


def _sample(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    """`grid_sample` on every core: it runs one thread per batch item on a CPU, so slabs of a volume become a batch."""
    batch, side = grid.shape[:2]
    alone = torch.compiler.is_exporting() or torch.jit.is_tracing()  # an exported model has threads of its own
    slabs = torch.get_num_threads() if grid.device.type == "cpu" and not alone else 1
    if slabs == 1 or batch > 1 or side < 2 * slabs:
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
