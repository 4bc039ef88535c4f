"""Transforms as files: ITK's composites (`.h5`, `.tfm`) and displacement images, in LPS on disk, in RAS here."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk

from regcascade.data.volumes import LPS_TO_RAS, NIBABEL_SUFFIXES, UNREADABLE, first_line, kept_locale
from regcascade.field import Vectors
from regcascade.files import written_in_folder
from regcascade.geometry import WRITTEN as FIELD_SUFFIXES
from regcascade.geometry import Geometry, stored_voxels, voxels_of

H5_SUFFIXES = (".h5", ".hdf5")
COMPOSITE_SUFFIXES = (*H5_SUFFIXES, ".tfm", ".txt")
GROUP, FORMAT = "regcascade", 1  # what an `.h5` of ours holds beside ITK's transform, which readers of ITK's pass over
TO_LPS = np.diag(LPS_TO_RAS)[:3].astype(np.float32)  # of vectors; its own inverse
COMPRESSED = 1000  # numbers, from which on a data set is
COPIED = 2**22  # numbers at a time


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file says of a transform; see `regcascade.transform.Transform` for the fields.

    Attributes:
        moving: None where the file does not tell, as all but our own `.h5`.
    """

    fixed: Geometry
    moving: Geometry | None
    affine: np.ndarray
    displacement: Vectors


def check_suffix(path: Path) -> None:
    """Raise ValueError, naming the file, if its name is none of a transform's."""
    known = COMPOSITE_SUFFIXES + FIELD_SUFFIXES
    if not path.name.lower().endswith(known):
        raise ValueError(f"{path} is no transform: the name of one ends in one of {', '.join(known)}.")


def field_image(fixed: Geometry, parts: Iterable[tuple[slice, Vectors]]) -> sitk.Image:
    """A displacement (mm, RAS) as ITK's vector image (mm, LPS), float32.

    Args:
        fixed: its grid.
        parts: planes along the first axis, and the displacement there; together all of them.
    """
    vectors = np.empty((*fixed.shape[::-1], 3), np.float32)
    for rows, part in parts:
        vectors[:, :, rows] = np.moveaxis(part, (0, 1, 2), (2, 1, 0)) * TO_LPS
    return fixed.as_itk(np.moveaxis(vectors, (0, 1, 2), (2, 1, 0)))


def composite(fixed: Geometry, affine: np.ndarray, displacement: Vectors) -> sitk.CompositeTransform:
    """ITK's transform of the field and then the affine map; ITK applies what was added last first."""
    turned = LPS_TO_RAS @ affine @ LPS_TO_RAS
    linear = sitk.AffineTransform(turned[:3, :3].flatten().tolist(), turned[:3, 3].tolist())
    result = sitk.CompositeTransform(3)
    result.AddTransform(linear)
    field = field_image(fixed, [(slice(None), displacement)])
    result.AddTransform(sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64)))
    return result


@kept_locale()
def write_composite(path: Path, stored: Stored) -> None:
    """Write it as ITK's composite, and both grids beside it where the format has room (`.h5`); whole or not at all."""
    try:
        with written_in_folder(path) as temporary:
            if path.suffix.lower() not in H5_SUFFIXES:
                sitk.WriteTransform(composite(stored.fixed, stored.affine, stored.displacement), str(temporary))
                return
            plain = temporary.with_name(f"plain{path.suffix}")
            sitk.WriteTransform(composite(stored.fixed, stored.affine, stored.displacement), str(plain))
            _with_grids(plain, temporary, stored)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error


@kept_locale()
def read_stored(path: Path) -> Stored:
    """A transform of ours, ITK's or ANTs': a displacement image, or a composite of one field and affine maps after it.

    Raises:
        ValueError: naming the file, if it is missing, no such transform, damaged or holds NaN.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is a folder: give a transform, such as registration wrote.")
    if path.name.lower().endswith(COMPOSITE_SUFFIXES):
        stored = _read_composite(path)
    else:
        check_suffix(path)
        stored = _read_field(path)
    if not (np.isfinite(stored.displacement).all() and np.isfinite(stored.affine).all()):
        raise ValueError(f"{path} holds NaN or infinity: it is no usable transform. Make it again.")
    return stored


def knows_moving(path: Path) -> bool:
    """Whether a file that `read_stored` reads tells the moving scan's grid."""
    grids = _grids(path) if path.name.lower().endswith(H5_SUFFIXES) else None
    return grids is not None and grids[1] is not None


def _read_field(path: Path) -> Stored:
    try:
        if path.name.lower().endswith(NIBABEL_SUFFIXES) and not np.isfinite(stored_voxels(path)).all():
            raise ValueError("it holds NaN or infinity, which ITK would read as 0")
        image = sitk.ReadImage(str(path))
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a displacement image: {first_line(error)}") from error
    vectors = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or vectors != 3 or "float" not in image.GetPixelIDTypeAsString():
        raise ValueError(
            f"{path} is no displacement: it has {image.GetDimension()} axes and {vectors} components a voxel "
            f"({image.GetPixelIDTypeAsString()}), and ITK's vector images of 3 axes have 3, floating point."
        )
    displacement = voxels_of(image).astype(np.float32) * TO_LPS
    return Stored(Geometry.of_image(image), None, np.eye(4), displacement)


def _read_composite(path: Path) -> Stored:
    try:
        parts = _parts(sitk.ReadTransform(str(path)))
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a transform: {first_line(error)}") from error
    names = [part.GetName() for part in parts]
    linear = parts[:-1]
    if names[-1:] != ["DisplacementFieldTransform"] or not all(part.IsLinear() for part in linear):
        found = ", ".join(names) or "nothing"
        raise ValueError(
            f"{path} is a transform of {found}, and must be of affine maps and one displacement field that is applied "
            "first (it stands last). SimpleITK's TransformToDisplacementField makes one of any."
        )
    image = sitk.DisplacementFieldTransform(parts[-1]).GetDisplacementField()
    displacement = voxels_of(image).astype(np.float32) * TO_LPS
    affine = np.linalg.multi_dot([LPS_TO_RAS, *map(_matrix, linear), LPS_TO_RAS])
    fixed, moving = Geometry.of_image(image), None
    if path.suffix.lower() in H5_SUFFIXES and (grids := _grids(path)):
        fixed, moving, affine = grids
    return Stored(fixed, moving, affine, displacement)


def _parts(transform: sitk.Transform) -> list[sitk.Transform]:
    """The transforms of a composite, nested ones too, in the order they were added."""
    if transform.GetDimension() != 3:
        raise ValueError(f"it is of {transform.GetDimension()} axes, not 3.")
    if transform.GetName() != "CompositeTransform":
        return [transform]
    nested = sitk.CompositeTransform(transform)
    return [part for k in range(nested.GetNumberOfTransforms()) for part in _parts(nested.GetNthTransform(k))]


def _matrix(linear: sitk.Transform) -> np.ndarray:
    """The `4 x 4` of a linear transform, in LPS."""
    matrix = np.eye(4)
    matrix[:3, 3] = linear.TransformPoint((0.0, 0.0, 0.0))
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(linear.TransformPoint(unit.tolist())) - matrix[:3, 3]
    return matrix


def _with_grids(plain: Path, path: Path, stored: Stored) -> None:
    """Copy ITK's file, its large data sets compressed, and add ours."""
    with h5py.File(plain, "r") as source, h5py.File(path, "w") as target:

        def copy(name: str, node: h5py.Group | h5py.Dataset) -> None:
            if isinstance(node, h5py.Group):
                target.require_group(name)
            elif node.size < COMPRESSED:
                source.copy(name, target, name)
            else:
                large = target.create_dataset(
                    name, node.shape, node.dtype, compression="gzip", compression_opts=1, shuffle=True
                )
                for start in range(0, len(node), COPIED):
                    large[start : start + COPIED] = node[start : start + COPIED]

        source.visititems(copy)
        group = target.create_group(GROUP)
        group.attrs["format"] = FORMAT
        group["affine"] = stored.affine
        for name, geometry in (("fixed", stored.fixed), ("moving", stored.moving)):
            if geometry is not None:
                group[f"{name}_shape"], group[f"{name}_affine"] = geometry.shape, geometry.affine


def _grids(path: Path) -> tuple[Geometry, Geometry | None, np.ndarray] | None:
    """Both grids and the affine map, as we wrote them beside ITK's transform; None if somebody else wrote the file."""
    with h5py.File(path, "r") as file:
        if GROUP not in file:
            return None
        group = file[GROUP]
        if group.attrs.get("format") != FORMAT:
            raise ValueError(f"{path} was written by another version of regcascade, which this one cannot read.")
        fixed, moving = (_geometry(group, name) for name in ("fixed", "moving"))
        if fixed is None:
            raise ValueError(f"{path}: its entry {GROUP} has no fixed grid. The file is damaged; make it again.")
        return fixed, moving, group["affine"][()]


def _geometry(group: h5py.Group, name: str) -> Geometry | None:
    if f"{name}_shape" not in group:
        return None
    x, y, z = (int(side) for side in group[f"{name}_shape"][()])
    return Geometry((x, y, z), group[f"{name}_affine"][()])
