"""Export a cascade for programs that know nothing of regcascade, and compare what was written with the model."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import Checkpoint
from regcascade.data.options import check_size
from regcascade.inference.bundle import is_bundle, write_bundle
from regcascade.types import Flow, Image, Size
from regcascade.utils.files import check_output, replaced_folder, written_in_folder
from regcascade.utils.registry import check_choice

SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx", "monai-bundle": ""}  # by form; a bundle is a folder
TOLERANCE = 1e-4  # of the largest displacement, by which the flow of what was written may differ
TOLERANCE_MOVED = 1e-3  # of intensities 0..1

Function = Callable[[Image, Image], tuple[Tensor, Tensor]]  # fixed and moving to flow and moved


@dataclass(frozen=True)
class Agreement:
    """How an export compares with its model, on two random pairs in one batch.

    Attributes:
        flow: largest difference of the flow, in voxels.
        moved: largest difference of the moved images, of 0..1.
        displacement: largest displacement of the model, in voxels.
        size: sides of the volumes that the export takes.
    """

    flow: float
    moved: float
    displacement: float
    size: Size


class Registering(nn.Module):
    """A cascade as a plain function of images.

    Args:
        cascade: the cascade, which needs no alignment.
        r, repeat: see `Cascade.forward`.
    """

    def __init__(self, cascade: Cascade, r: int = 1, repeat: str = "stage") -> None:
        super().__init__()
        self.cascade, self.r, self.repeat = cascade, r, repeat

    def forward(self, fixed: Image, moving: Image) -> tuple[Flow, Image]:
        """Return the total flow, `(B, 3, X, Y, Z)` in voxels, and the moved image."""
        result = self.cascade(moving, fixed, self.r, self.repeat)
        return result.flow, result.moved


def export(
    checkpoint: Checkpoint,
    form: str,
    out: Path,
    size: Size | None = None,
    r: int = 1,
    repeat: str = "stage",
    overwrite: bool = False,
) -> Agreement:
    """Write a model that takes fixed and moving images `(B, 1, X, Y, Z)` in 0..1, whole or not at all.

    What was written is loaded back and compared with the model on random pairs before it takes its name.

    Args:
        checkpoint: see `checkpoint.read`.
        form: one of `SUFFIXES`.
        out: file, or folder of a bundle, to write.
        size: sides of the volumes; those of the checkpoint if None.
        r, repeat: see `Cascade.forward`.
        overwrite: replace the file, or the bundle, that is there.

    Raises:
        ValueError: if `out` cannot be written, or the model cannot be traced, or what was written differs from it.
    """
    check_choice("--to", form, SUFFIXES)
    _check_out(form, out, overwrite)
    cascade = checkpoint.build().requires_grad_(False)
    if cascade.needs_alignment:
        raise ValueError(
            f"{checkpoint.path} cannot be exported: each of its pairs comes with an affine map (affine=precomputed), "
            "and an exported model takes images only."
        )
    sides = check_size("--size", size or checkpoint.description["size"])
    network = Registering(cascade, r, repeat).eval()
    example, pair = _random_pairs(sides, 0), _random_pairs(sides, 1)
    with torch.no_grad():
        wanted = network(*pair)
        program = _traced(network, example, checkpoint)
        make = replaced_folder if form == "monai-bundle" else written_in_folder
        with make(out.resolve()) as path, _quiet():
            if form == "torch-export":
                written = _write_pt2(program, path)
            elif form == "onnx":
                written = _write_onnx(program, path)
            else:
                written = write_bundle(network, example, checkpoint, out.resolve().name, path)
            return _compared(wanted, written(*pair), sides, checkpoint)


def _check_out(form: str, out: Path, overwrite: bool) -> None:
    suffix = SUFFIXES[form]
    if suffix and out.suffix != suffix:
        raise ValueError(f"--out {out}: name a {suffix} file for --to {form}.")
    if form == "onnx":
        _onnxruntime()
    if suffix or not out.exists():
        check_output(out, overwrite)
    elif not out.is_dir() or out.resolve() == Path.cwd():
        raise ValueError(f"--out {out}: name a folder of its own for a bundle.")
    elif any(out.iterdir()) and not (overwrite and is_bundle(out)):
        raise ValueError(
            f"--out {out} is not empty: name another folder, or give --overwrite if it is a bundle to replace."
        )


def _random_pairs(size: Size, seed: int) -> tuple[Tensor, Tensor]:
    """Draw two fixed and two moving images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 1, *size, generator=generator), torch.rand(2, 1, *size, generator=generator)


def _traced(network: Registering, example: tuple[Tensor, Tensor], checkpoint: Checkpoint) -> ExportedProgram:
    """Trace a network for any number of pairs; torch.export refuses control flow that depends on what it sees."""
    pairs = Dim("pairs", min=1)
    try:
        with _quiet():
            return torch.export.export(network, example, dynamic_shapes={"fixed": {0: pairs}, "moving": {0: pairs}})
    except Exception as error:  # torch raises nearly anything here
        reason = next(filter(None, str(error).splitlines()), type(error).__name__).strip()
        raise ValueError(
            f"{checkpoint.path} cannot be exported: its model cannot be traced exactly for every pair ({reason})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's notes on tracing and the graphs it prints: the comparison, or one error, says what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_pt2(program: ExportedProgram, path: Path) -> Function:
    torch.export.save(program, path)
    loaded: Function = torch.export.load(path).module()
    return loaded


def _write_onnx(program: ExportedProgram, path: Path) -> Function:
    torch.onnx.export(
        program, (), path, dynamo=True, input_names=["fixed", "moving"], output_names=["flow", "moved"],
        external_data=False, verbose=False,
    )  # fmt: skip
    session = _onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(fixed: Image, moving: Image) -> tuple[Tensor, Tensor]:
        flow, moved = session.run(["flow", "moved"], {"fixed": fixed.numpy(), "moving": moving.numpy()})
        return torch.from_numpy(flow), torch.from_numpy(moved)

    return run


def _onnxruntime() -> Any:
    try:
        for name in ("onnx", "onnxscript"):  # which torch.onnx imports
            import_module(name)
        return import_module("onnxruntime")
    except ImportError as error:
        raise ValueError(f"--to onnx needs {error.name}: pip install 'regcascade[export]'.") from error


def _compared(
    wanted: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], size: Size, checkpoint: Checkpoint
) -> Agreement:
    flow, moved = (float((one - other).abs().max()) for one, other in zip(wanted, found, strict=True))
    displacement = float(wanted[0].abs().max())
    if not (flow <= TOLERANCE * displacement and moved <= TOLERANCE_MOVED):  # NaN is too much
        raise ValueError(
            f"{checkpoint.path} cannot be exported: what was written differs from the model by {flow:.3g} voxels in "
            f"the flow (up to {displacement:.3g} voxels) and {moved:.3g} in the moved image, so its trace is not exact."
        )
    return Agreement(flow, moved, displacement, size)
