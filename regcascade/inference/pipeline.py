"""Register two scans with a trained cascade, in native space."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from warnings import catch_warnings

import numpy as np
import SimpleITK as sitk
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities import move_data_to_device
from nibabel.affines import voxel_sizes

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import Checkpoint
from regcascade.data.io.errors import PlaceWarning
from regcascade.geometry.transform import Inverse, Transform
from regcascade.inference.initial import INITIALS, LITTLE_OVERLAP, Prepared, labels_on, prepare_pair
from regcascade.inference.instance_optimization import LOSSES, WHATS, refine, refinement_objective, without_graph
from regcascade.inference.measures import check_landmarks, doubts, measure
from regcascade.inference.model import Trained, intensity_warning
from regcascade.inference.scans import Scan, ScanFiles, open_scan
from regcascade.registration import Registration
from regcascade.types import Batch
from regcascade.utils.half_precision import unsound_convolution
from regcascade.utils.registry import Spec, check_choice
from regcascade.utils.timing import read_clock

CPU = torch.device("cpu")
PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}
TOLD = ("r", "repeat", "precision", "refine", "refine_of", "refine_loss")  # options in the report


@dataclass(frozen=True)
class RegisterOptions:
    """How to register a pair.

    Attributes:
        initial: the map before the networks, see `INITIALS`.
        r: how often each network is applied, see `Cascade.forward`.
        repeat: `stage` repeats each in place, `chain` the whole chain.
        refine: steps of optimisation on the pair itself.
        refine_of: `flow` or `weights`, see `refine`.
        refine_loss: `trained` or `lncc`, see `refinement_objective`.
        labels: interpolation of labels, `nearest` or `linear`.
        fill: value of the moved image beyond the moving scan; None for its smallest intensity.
        device: `auto`, `cpu`, `cuda`, ...
        precision: of the networks, `32`, `bf16` or `16`; flows, warps and statistics stay float32.
    """

    initial: str = "trained"
    r: int = 1
    repeat: str = "stage"
    refine: int = 0
    refine_of: str = "flow"
    refine_loss: str = "trained"
    labels: str = "nearest"
    fill: float | None = None
    device: str = "auto"
    precision: str = "32"

    def __post_init__(self) -> None:
        check_choice("initial", self.initial, tuple(INITIALS))
        check_choice("refine_of", self.refine_of, WHATS)
        check_choice("refine_loss", self.refine_loss, LOSSES)
        check_choice("labels", self.labels, ("nearest", "linear"))
        check_choice("precision", self.precision, tuple(PRECISIONS))
        if self.refine < 0:
            raise ValueError(f"refine={self.refine}: a number of steps is 0 or more.")


@dataclass(frozen=True)
class Registered:
    """The result of registering two scans.

    Attributes:
        transform: from the fixed to the moving scan, in native space, the initial map included.
        inverse: from the moving to the fixed scan, with its residual and where it exists.
        determinant: Jacobian determinant of the transform, `(X, Y, Z)` float32 on the fixed grid.
        moved: the moving scan on the fixed grid, in its own units and type.
        moved_labels: its labels there, if any.
        moved_points: its landmarks in mm of the fixed scan, RAS; NaN if missing or without an inverse.
        report: measures and settings as plain values, see docs/register.md.
        registration: result of the cascade, on its own grid, on the CPU.
        batch: the pair as the cascade saw it.
        fixed: the fixed scan.
        moving: the moving scan.
    """

    transform: Transform
    inverse: Inverse
    determinant: np.ndarray
    moved: sitk.Image
    moved_labels: sitk.Image | None
    moved_points: np.ndarray | None
    report: dict[str, Any]
    registration: Registration
    batch: Batch
    fixed: Scan
    moving: Scan


@contextmanager
def _timed(seconds: dict[str, float], part: str, device: torch.device = CPU) -> Iterator[None]:
    """Record the seconds that a part takes."""
    start = read_clock(device)
    yield
    seconds[part] = round(read_clock(device) - start, 3)


def register(
    fixed: Path | str | ScanFiles,
    moving: Path | str | ScanFiles,
    model: Cascade | Checkpoint | Trained | Path | str,
    options: RegisterOptions | None = None,
    recipe: Spec | None = None,
) -> Registered:
    """Register two scans of any format, size, spacing and orientation.

    Args:
        fixed: an image file or DICOM folder, or `ScanFiles` with labels, landmarks or a mask.
        moving: the same, of the scan that is deformed.
        model: a checkpoint file, or what `regcascade.load` returned.
        options: how to register; by default `RegisterOptions()`.
        recipe: how to prepare images for the model; by default as the checkpoint says.

    Raises:
        ValueError: for files, options or a model that cannot be used; the message says which and what to do.
    """
    options, seconds = options or RegisterOptions(), dict[str, float]()
    trained = model if isinstance(model, Trained) else Trained.of(model, recipe)
    trained.cascade.order(options.r, options.repeat)  # raises for wrong ones before any work
    try:
        device = Fabric(accelerator=options.device, devices=1).device
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"--device {options.device}: {error}") from error
    with _timed(seconds, "reading"):
        files = (given if isinstance(given, ScanFiles) else ScanFiles(Path(given)) for given in (fixed, moving))
        with catch_warnings(record=True, action="always", category=PlaceWarning) as told:
            target, source = map(open_scan, files)
        check_landmarks(target, source)
    with _timed(seconds, "preparing"):
        aligned = trained.cascade.needs_alignment and options.initial == "trained"
        pair = prepare_pair(trained, target, source, "affine" if aligned else options.initial)
    images = (pair.fixed, target), (pair.moving, source)
    placed = dict.fromkeys(str(one.message) for one in told if one.category is PlaceWarning)
    doubted = [pair.start.warning, *(intensity_warning(image.as_tensor(), scan.name) for image, scan in images)]
    warnings = [*placed, *(warning for warning in doubted if warning)]
    if pair.overlap < LITTLE_OVERLAP:
        share = f"{100 * pair.overlap:.0f} %"
        warnings.append(f"Only {share} of the fixed scan's field lies in the moving one's: try another --initial.")
    batch = _batch(pair, target, source)
    try:
        registration, refined = _run(device, trained, batch, options, seconds)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        warnings.append(
            f"The memory of {device} was too small, and the CPU took over. To stay on it: --precision bf16, no "
            "--refine, --refine-of flow in place of weights, or a model of fewer or smaller networks."
        )
        registration, refined = _run(CPU, trained, batch, options, seconds)
    with _timed(seconds, "transforming"):
        grids = np.asarray(pair.fixed.affine, dtype=float), target.geometry, source.geometry
        transform = Transform.from_flow(registration.flow, *grids, pair.start.affine)
        moved = transform.warp_image(source.image, fill=options.fill)
        labels = None if source.labels is None else transform.warp_labels(source.labels, options.labels)
        points = None if source.points_mm is None else transform.points_to_fixed(source.points_mm)
    with _timed(seconds, "inverting"):
        inverse = transform.inverse()
    with _timed(seconds, "measuring"):
        # Measure without --fill, which would count as a difference between the scans.
        filled = moved if options.fill is None else transform.warp_image(source.image)
        determinant = transform.jacobian_det()
        measured = measure(target, source, transform, determinant, inverse, filled, labels)
    report = {
        "fixed": target.name, "moving": source.name, "initial": pair.start.name,
        "checkpoint": None if trained.path is None else str(trained.path),
        **{name: getattr(options, name) for name in TOLD}, "label_interpolation": options.labels,
        "fixed_file": str(target.path), "moving_file": str(source.path), **measured, **refined,
        "device": device.type, "seconds": seconds, "warnings": warnings + doubts(measured),
    }  # fmt: skip
    return Registered(
        transform, inverse, determinant, moved, labels, points, report, registration, batch, target, source
    )


def _batch(pair: Prepared, fixed: Scan, moving: Scan) -> Batch:
    """Make a batch of one pair, with labels only if both scans have them."""
    batch: dict[str, Any] = {}
    for role, image, scan, other in (("fixed", pair.fixed, fixed, moving), ("moving", pair.moving, moving, fixed)):
        batch[role] = image.as_tensor()[None].float().contiguous()
        batch[f"{role}_spacing"] = torch.from_numpy(voxel_sizes(np.asarray(image.affine, dtype=float)))[None].float()
        batch[f"{role}_name"] = [scan.name]
        if scan.labels is not None and other.labels is not None:
            batch[f"{role}_labels"] = labels_on(scan.labels, image)
    return cast(Batch, batch)


def _run(
    device: torch.device, trained: Trained, batch: Batch, options: RegisterOptions, seconds: dict[str, float]
) -> tuple[Registration, dict[str, Any]]:
    """Run the networks and the refinement; raise ValueError if half precision is wrong or a flow is not finite."""
    cascade = trained.cascade.to(device).eval()
    there: Batch = move_data_to_device(batch, device)
    if cascade.needs_alignment:  # the pair was aligned before
        there["alignment"] = torch.eye(4, device=device)[None]
    reduced = PRECISIONS[options.precision]
    if reduced is not None and device == CPU:

        def run() -> None:
            learns = options.refine > 0 and options.refine_of == "weights"
            with torch.autocast("cpu", dtype=reduced), torch.set_grad_enabled(learns):
                cascade.register(there)

        if fault := unsound_convolution(run, reduced, CPU):
            raise ValueError(f"--precision {options.precision}: on this CPU {fault}. Take --precision 32.")
    with torch.autocast(device.type, dtype=reduced, enabled=reduced is not None):
        with _timed(seconds, "networks", device), torch.no_grad():
            registration = cascade.register(there, options.r, options.repeat)
        if not registration.flow.isfinite().all():
            advice = "their training diverged; take an earlier checkpoint" if reduced is None else "take --precision 32"
            raise ValueError(f"The networks gave a flow that is not finite: {advice}.")
        refined: dict[str, Any] = {}
        if options.refine:
            objective = refinement_objective(trained.loss, options.refine_loss, options.refine_of).to(device)
            with _timed(seconds, "refining"):
                how = options.refine, options.refine_of, options.r, options.repeat
                registration, refined = refine(cascade, there, registration, objective, *how)
    return without_graph(registration, "cpu"), refined
