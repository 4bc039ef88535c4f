"""Write the folder of a registration, whole or not at all."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from scipy.ndimage import zoom

from regcascade.data.io.itk_images import write_scan
from regcascade.data.io.point_tables import AXES, RAS_COLUMNS
from regcascade.data.io.transforms import write_transform
from regcascade.geometry.displacement import slabs
from regcascade.inference.pipeline import Registered
from regcascade.report.figures.registration import registration_figure
from regcascade.report.figures.style import write_figure
from regcascade.utils.files import claimed, file_hash, git_state, replaced_folder, write_json
from regcascade.utils.registry import check_choice
from regcascade.utils.version import __version__

REPORT, PICTURE = "report.json", "registration.png"
MOVED, MOVED_LABELS, MOVED_POINTS = "moved.nii.gz", "moved_labels.nii.gz", "moved_points.csv"
DISPLACEMENT, INVERSE, TRANSFORM = "displacement.nii.gz", "inverse_displacement.nii.gz", "transform.h5"
JACOBIAN, UNREACHED = "jacobian.nii.gz", "no_inverse.nii.gz"
FORMATS = ("itk", "learn2reg")


@contextmanager
def claimed_folder(folder: Path) -> Iterator[bool]:
    """Claim a folder of results; yield False if another process writes it. Raise ValueError if it cannot be made."""
    place = folder.resolve()
    with ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            mine = stack.enter_context(claimed(place))
        except OSError as error:
            raise ValueError(f"--out {folder} cannot be written: {error}") from error
        yield mine


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise ValueError if a folder cannot be written, or holds anything but a registration to overwrite."""
    try:
        place = folder.resolve()
        if place.exists() and not place.is_dir():
            raise ValueError(f"--out {folder} is a file; name a folder.")
        if place == Path.cwd() or place.is_mount():
            raise ValueError(f"--out {folder} must be a folder of its own: name one below it, {folder / 'result'}.")
        held = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        if held and not overwrite:
            raise ValueError(f"--out {folder} is not empty: name another folder, or add --overwrite.")
        try:
            written = json.loads((place / REPORT).read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, TypeError, KeyError):
            written = []
        if other := [name for name in held if name not in written]:
            raise ValueError(
                f"--out {folder} holds more than a registration ({other[0]}), and will not be overwritten: name "
                "another folder, or move that out of it."
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place.parent).close()
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be written: {error}") from error


def write_registration(result: Registered, folder: Path, form: str = "itk") -> dict[str, Any]:
    """Write all results of `register` and return the content of `report.json`; replace the folder if it exists.

    Args:
        result: result of `register`.
        folder: folder to write, whole or not at all.
        form: `itk`, or `learn2reg` to add the displacement in that challenge's form.

    Raises:
        ValueError: if the folder cannot be written.
    """
    check_choice("format", form, FORMATS)
    folder = Path(folder).resolve()  # a link is kept
    path = result.report["checkpoint"]
    try:
        with replaced_folder(folder) as aside:
            _write_volumes(result, aside)
            if form == "learn2reg":
                _write_learn2reg(result, aside)
            write_figure(registration_figure(result.batch, result.registration), aside / PICTURE)
            report = {
                **result.report,
                "checkpoint_sha256": None if path is None else file_hash(path),
                "version": __version__,
                "commit": git_state()["commit"],
                "files": [*sorted(file.name for file in aside.iterdir()), REPORT],
            }
            write_json(aside / REPORT, report)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error}") from error
    return report


def _write_volumes(result: Registered, folder: Path) -> None:
    fixed, moving = result.fixed.geometry, result.moving.geometry
    write_scan(result.moved, folder / MOVED)
    if result.moved_labels is not None:
        write_scan(result.moved_labels, folder / MOVED_LABELS)
    if result.moved_points is not None:
        columns = np.concatenate([fixed.to_voxels(result.moved_points), result.moved_points], axis=1)
        table = pd.DataFrame(columns, columns=[*AXES, *RAS_COLUMNS])
        table.to_csv(folder / MOVED_POINTS, index=False, float_format="%.5f")
    write_transform(result.transform, folder / DISPLACEMENT)
    write_transform(result.transform, folder / TRANSFORM)
    write_transform(result.inverse.transform, folder / INVERSE)
    write_scan(fixed.as_itk(result.determinant), folder / JACOBIAN)
    if not result.inverse.reached.all():
        write_scan(moving.as_itk((~result.inverse.reached).astype(np.uint8)), folder / UNREACHED)


def _write_learn2reg(result: Registered, folder: Path) -> None:
    """Write the displacement along array axes, from a voxel of the fixed scan to one of the moving scan.

    `disp_FIXED_MOVING.nii.gz` is `(X, Y, Z, 3)`, the challenge's form since 2022; `disp_FIXED_MOVING.npz` is
    `(3, X/2, Y/2, Z/2)` float16, its form before.
    """
    grid = result.fixed.geometry
    field = result.transform.total()
    for rows, voxels in slabs(grid.shape):
        places = grid.to_world(voxels) + field[rows].reshape(-1, 3)
        field[rows] = (result.moving.geometry.to_voxels(places) - voxels).reshape(field[rows].shape)
    stem = f"disp_{result.fixed.name}_{result.moving.name}"
    nibabel.save(nibabel.Nifti1Image(field, grid.affine), folder / f"{stem}.nii.gz")
    halved = np.stack([zoom(field[..., axis], 0.5, order=2) for axis in range(3)])  # the challenge enlarges by order 2
    np.savez_compressed(folder / f"{stem}.npz", halved.astype(np.float16))
