"""Register two scans with a trained cascade, in native space."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities import move_data_to_device

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import Checkpoint
from regcascade.geometry.transform import Inverse, Transform
from regcascade.inference.initial import INITIALS, LITTLE_OVERLAP, Prepared, labels_on, prepare_pair
from regcascade.inference.instance_optimization import LOSSES, WHATS, refine, refinement_objective, without_graph
from regcascade.inference.measures import afterthoughts, check_landmarks, measure
from regcascade.inference.model import Trained, intensity_warning
from regcascade.inference.scans import Scan, ScanFiles, open_scan
from regcascade.registration import Registration
from regcascade.types import Batch
from regcascade.utils.half_precision import unsound_convolution
from regcascade.utils.registry import Spec, check_choice
from regcascade.utils.timing import read_clock

CPU = torch.device("cpu")
PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class RegisterOptions:
    """How to register a pair.

    Attributes:
        initial: how the moving scan is first laid over the fixed one, see `INITIALS`.
        r, repeat: how often each network is applied, see `Cascade.forward`.
        refine: steps of optimisation on the pair itself.
        refine_of: `flow` or `weights`, see `refine`.
        refine_loss: `trained` or `lncc`, see `refinement_objective`.
        labels: how labels are warped, `nearest` or `linear`.
        fill: what the moved image is beyond the moving scan; None for the smallest intensity there is.
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
    """Two scans, registered.

    Attributes:
        transform: from the fixed to the moving scan, in native space; the initial map is part of it.
        inverse: the other way, with its residual and where there is none.
        determinant: `(X, Y, Z)` float32 on the fixed grid, of the Jacobian of the transform, world to world.
        moved: the moving scan on the fixed one's grid, in its own units and type.
        moved_labels: its labels there, if it has any.
        moved_points: its landmarks in mm of the fixed scan, RAS, NaN where one is missing or has no inverse.
        report: what was measured, plain values: see docs/register.md.
        registration: what the cascade made of the pair, on its own grid, on the CPU.
        batch: the pair as the cascade saw it.
        fixed, moving: the scans.
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


@dataclass
class _Clock:
    """Seconds by part."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str, device: torch.device = CPU) -> Iterator[None]:
        start = read_clock(device)
        yield
        self.seconds[name] = round(read_clock(device) - start, 3)


def register(
    fixed: Path | str | ScanFiles,
    moving: Path | str | ScanFiles,
    model: Cascade | Checkpoint | Trained | Path | str,
    options: RegisterOptions | None = None,
    recipe: Spec | None = None,
) -> Registered:
    """Register two scans of any format, size, spacing and orientation.

    Args:
        fixed: an image file or DICOM folder, or that with labels, landmarks or a mask.
        moving: the same of the scan to deform.
        model: a checkpoint file, or what `regcascade.load` made of it.
        options: how.
        recipe: how images are made for the model, in place of what the checkpoint says.

    Returns:
        The transform, the moved scan, and what was measured.

    Raises:
        ValueError: for files, options or a model that cannot be used; the message says which and what to do.
    """
    options, clock = options or RegisterOptions(), _Clock()
    trained = model if isinstance(model, Trained) else Trained.of(model, recipe)
    trained.cascade.order(options.r, options.repeat)  # which says what is wrong with them, before any work
    device = _device(options.device)
    with clock.part("reading"):
        target, source = open_scan(_files(fixed)), open_scan(_files(moving))
        check_landmarks(target, source)
    initial = "affine" if trained.cascade.needs_alignment and options.initial == "trained" else options.initial
    with clock.part("preparing"):
        pair = prepare_pair(trained, target, source, initial)
    warnings = _warnings(pair, target, source)
    batch = _batch(pair, target, source)
    registration, refined = _run(trained, batch, options, device, clock, warnings)
    with clock.part("transforming"):
        transform = Transform.from_flow(registration.flow, pair.grid, target.geometry, source.geometry, pair.affine)
        moved = transform.warp_image(source.image, fill=options.fill)
        labels = None if source.labels is None else transform.warp_labels(source.labels, options.labels)
        points = None if source.points_mm is None else transform.points_to_fixed(source.points_mm)
    with clock.part("inverting"):
        inverse = transform.inverse()
    with clock.part("measuring"):
        # What --fill says is nothing that the scans have or lack in common.
        filled = moved if options.fill is None else transform.warp_image(source.image)
        determinant = transform.jacobian_det()
        measured = measure(target, source, pair.affine, transform, determinant, inverse, filled, labels)
    report = {"fixed": target.name, "moving": source.name, "initial": pair.start.name} | _about(trained, options)
    report |= {"fixed_file": str(target.path), "moving_file": str(source.path)}
    report |= measured | refined
    report |= {"device": device.type, "seconds": clock.seconds, "warnings": warnings + afterthoughts(measured)}
    return Registered(
        transform, inverse, determinant, moved, labels, points, report, registration, batch, target, source
    )


def _files(given: Path | str | ScanFiles) -> ScanFiles:
    return given if isinstance(given, ScanFiles) else ScanFiles(Path(given))


def _device(name: str) -> torch.device:
    try:
        return Fabric(accelerator=name, devices=1).device
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"--device {name}: {error}") from error


def _batch(pair: Prepared, fixed: Scan, moving: Scan) -> Batch:
    batch: Batch = {
        "fixed": pair.fixed.as_tensor()[None].float().contiguous(),
        "moving": pair.moving.as_tensor()[None].float().contiguous(),
        "fixed_spacing": _spacing(pair.fixed), "moving_spacing": _spacing(pair.moving),
        "fixed_name": [fixed.name], "moving_name": [moving.name],
    }  # fmt: skip
    if fixed.labels is not None and moving.labels is not None:
        batch["fixed_labels"] = labels_on(fixed.labels, pair.fixed)
        batch["moving_labels"] = labels_on(moving.labels, pair.moving)
    return batch


def _spacing(image: Any) -> torch.Tensor:
    return torch.tensor(np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)[None], dtype=torch.float32)


def _run(
    trained: Trained, batch: Batch, options: RegisterOptions, device: torch.device, clock: _Clock, warnings: list[str]
) -> tuple[Registration, dict[str, Any]]:
    """The networks and the refinement, on the device or, where its memory does not do, on the CPU."""
    try:
        return _run_on(device, trained, batch, options, clock)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        warnings.append(
            f"The memory of {device} did not do, and the CPU took over. To stay on it: --precision bf16, no --refine, "
            "--refine-of flow in place of weights, or a model of fewer or smaller networks."
        )
        return _run_on(CPU, trained, batch, options, clock)


def _run_on(
    device: torch.device, trained: Trained, batch: Batch, options: RegisterOptions, clock: _Clock
) -> tuple[Registration, dict[str, Any]]:
    cascade = trained.cascade.to(device).eval()
    there: Batch = move_data_to_device(batch, device)
    if cascade.needs_alignment:  # the pair was aligned before
        there["alignment"] = torch.eye(4, device=device)[None]
    reduced = PRECISIONS[options.precision]
    if reduced is not None and device == CPU:
        _check_half_precision(cascade, there, reduced, options)
    with torch.autocast(device.type, dtype=reduced, enabled=reduced is not None):
        with clock.part("networks", device), torch.no_grad():
            registration = cascade.register(there, options.r, options.repeat)
        if not registration.flow.isfinite().all():
            advice = "their training diverged; take an earlier checkpoint" if reduced is None else "take --precision 32"
            raise ValueError(f"The networks gave a flow that is not finite: {advice}.")
        refined: dict[str, Any] = {}
        if options.refine:
            objective = refinement_objective(trained.loss, options.refine_loss, options.refine_of).to(device)
            with clock.part("refining"):
                registration, refined = refine(
                    cascade,
                    there,
                    registration,
                    objective,
                    options.refine,
                    options.refine_of,
                    options.r,
                    options.repeat,
                )
    return without_graph(registration, "cpu"), refined


def _check_half_precision(cascade: Cascade, batch: Batch, dtype: torch.dtype, options: RegisterOptions) -> None:
    """Raise ValueError if this CPU convolves wrongly in half precision at the map sizes of a pair."""

    def run() -> None:
        with torch.autocast("cpu", dtype=dtype):
            cascade.register(batch)

    if fault := unsound_convolution(run, dtype, CPU, gradients=options.refine > 0):
        raise ValueError(f"--precision {options.precision}: on this CPU {fault}. Take --precision 32.")


def _about(trained: Trained, options: RegisterOptions) -> dict[str, Any]:
    return {
        "checkpoint": None if trained.path is None else str(trained.path),
        "r": options.r, "repeat": options.repeat, "precision": options.precision,
        "refine": options.refine, "refine_of": options.refine_of, "refine_loss": options.refine_loss,
        "label_interpolation": options.labels,
    }  # fmt: skip


def _warnings(pair: Prepared, fixed: Scan, moving: Scan) -> list[str]:
    images = ((pair.fixed, fixed), (pair.moving, moving))
    found = [pair.start.warning, *(intensity_warning(image.as_tensor(), scan.name) for image, scan in images)]
    if pair.overlap < LITTLE_OVERLAP:
        found.append(
            f"Only {100 * pair.overlap:.0f} % of the fixed scan's field lies in the moving one's: try another "
            "--initial."
        )
    return [warning for warning in found if warning]
