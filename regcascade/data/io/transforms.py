"""Transforms as files: ITK's composites (`.h5`, `.tfm`) and displacement images, in LPS on disk, in RAS here."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk

from regcascade.data.io.errors import UNREADABLE, first_line
from regcascade.data.io.images import LPS_TO_RAS, NIBABEL_SUFFIXES, kept_locale
from regcascade.data.io.itk_images import WRITTEN as FIELD_SUFFIXES
from regcascade.data.io.itk_images import stored_voxels, write_scan
from regcascade.geometry.displacement import Vectors
from regcascade.geometry.grid import Geometry, voxels_of
from regcascade.geometry.itk import TO_LPS, composite, field_image
from regcascade.geometry.transform import Transform
from regcascade.utils.files import written_in_folder

H5_SUFFIXES = (".h5", ".hdf5")
COMPOSITE_SUFFIXES = (*H5_SUFFIXES, ".tfm", ".txt")
GROUP, FORMAT = "regcascade", 1  # what an `.h5` of ours holds beside ITK's transform, which readers of ITK's pass over
COMPRESSED = 1000  # numbers, from which on a data set is
COPIED = 2**22  # numbers at a time


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file says of a transform; see `regcascade.geometry.transform.Transform` for the fields.

    Attributes:
        moving: None where the file does not tell, as all but our own `.h5`.
    """

    fixed: Geometry
    moving: Geometry | None
    affine: np.ndarray
    displacement: Vectors


def read_transform(path: Path, moving: Geometry | None = None) -> Transform:
    """Read a transform of ours, ITK's or ANTs': a displacement image, or a composite of one field and affine maps.

    Args:
        path: `.h5`, `.tfm` or an image of vectors (mm, LPS).
        moving: the moving scan's grid, which no file but our `.h5` knows; without it the fixed one's is taken.

    Raises:
        ValueError: naming the file, if it is none.
    """
    stored = read_stored(path)
    return Transform(stored.fixed, moving or stored.moving or stored.fixed, stored.affine, stored.displacement)


def write_transform(transform: Transform, path: Path) -> None:
    """Write a transform for SimpleITK, ANTs, Slicer and `read_transform`, whole or not at all.

    `.h5` and `.tfm` hold the affine map and the field as ITK's composite, `.h5` both grids as well; `.nii.gz`,
    `.nii`, `.mha` and `.nrrd` are the `total` as ITK's displacement image.

    Raises:
        ValueError: naming the file, if its suffix is another, it cannot be written or the grid is sheared.
    """
    check_suffix(path)
    if path.name.lower().endswith(COMPOSITE_SUFFIXES):
        write_composite(path, Stored(transform.fixed, transform.moving, transform.affine, transform.displacement))
    else:
        write_scan(field_image(transform.fixed, transform.total_by_planes()), path)


def check_suffix(path: Path) -> None:
    """Raise ValueError, naming the file, if its name is none of a transform's."""
    known = COMPOSITE_SUFFIXES + FIELD_SUFFIXES
    if not path.name.lower().endswith(known):
        raise ValueError(f"{path} is no transform: the name of one ends in one of {', '.join(known)}.")


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
