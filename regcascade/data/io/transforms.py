"""Read and write transforms: ITK's composites (`.h5`, `.tfm`) and displacement images, in LPS on disk, in RAS here."""

from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk

from regcascade.data.io.errors import UNREADABLE, first_line, readable
from regcascade.data.io.hdf5 import opened
from regcascade.data.io.images import H5_SUFFIXES, NIBABEL_SUFFIXES, kept_locale, stored_voxels
from regcascade.data.io.itk_images import WRITTEN as FIELD_SUFFIXES
from regcascade.data.io.itk_images import write_scan
from regcascade.data.options import check_size
from regcascade.geometry.grid import LPS_TO_RAS, Geometry, voxels_of
from regcascade.geometry.itk import TO_LPS, field_image
from regcascade.geometry.transform import Transform
from regcascade.utils.files import written_in_folder

COMPOSITE_SUFFIXES = (*H5_SUFFIXES, ".tfm", ".txt")
GROUP, FORMAT = "regcascade", 1  # the group that our `.h5` holds beside ITK's transform; ITK's readers skip it
COMPRESSED = 1000  # numbers; larger arrays are compressed
COPIED = 2**22  # numbers copied at a time


@kept_locale()
def read_transform(path: Path, moving: Geometry | None = None) -> Transform:
    """Read a transform of regcascade, ITK or ANTs: a displacement image, or a composite of one field and affine maps.

    Args:
        path: `.h5`, `.tfm` or an image of vectors (mm, LPS).
        moving: the moving scan's grid; by default the file's own (see `knows_moving`), else the fixed grid.

    Raises:
        ValueError: naming the file, if it is missing, no such transform, damaged or holds NaN.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is a folder: give a transform, such as `register` writes.")
    check_suffix(path)
    composed = path.name.lower().endswith(COMPOSITE_SUFFIXES)
    fixed, affine, displacement = _read_composite(path) if composed else _read_field(path)
    known = None
    if knows_moving(path):
        fixed, known, affine = _own_group(path)
    try:
        return Transform(fixed, moving or known or fixed, affine, displacement)
    except ValueError as error:
        raise ValueError(f"{path} is no usable transform, make it again: {error}") from error


def knows_moving(path: Path) -> bool:
    """Tell whether a file holds the moving scan's grid, as only the `.h5` of regcascade does."""
    if not path.name.lower().endswith(H5_SUFFIXES):
        return False
    with opened(path) as file:
        return GROUP in file


@kept_locale()
def write_transform(transform: Transform, path: Path) -> None:
    """Write a transform for SimpleITK, ANTs, Slicer and `read_transform`, whole or not at all.

    `.h5` and `.tfm` hold the affine map and the field as ITK's composite; `.h5` holds both grids too. `.nii.gz`,
    `.nii`, `.mha` and `.nrrd` hold the `total` as ITK's displacement image.

    Raises:
        ValueError: naming the file, for another suffix, a file that cannot be written, or a sheared grid.
    """
    check_suffix(path)
    if not path.name.lower().endswith(COMPOSITE_SUFFIXES):
        write_scan(field_image(transform.fixed, transform.total_by_planes()), path)
        return
    try:
        with written_in_folder(path) as temporary:
            if path.suffix.lower() not in H5_SUFFIXES:
                sitk.WriteTransform(transform.itk(), str(temporary))
                return
            plain = temporary.with_name(f"plain{path.suffix}")
            sitk.WriteTransform(transform.itk(), str(plain))
            _add_grids(plain, temporary, transform)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be written: {first_line(error)}") from error


def check_suffix(path: Path) -> None:
    """Raise ValueError, naming the file, if its suffix is not that of a transform."""
    known = COMPOSITE_SUFFIXES + FIELD_SUFFIXES
    if not path.name.lower().endswith(known):
        raise ValueError(f"{path} is no transform: the name of one ends in one of {', '.join(known)}.")


def _read_field(path: Path) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """Read grid, identity and displacement (RAS) of a displacement image."""
    with readable(path):
        if path.name.lower().endswith(NIBABEL_SUFFIXES) and not np.isfinite(stored_voxels(path)).all():
            raise ValueError("it holds NaN or infinity, which ITK would read as 0")
        image = sitk.ReadImage(str(path))
    vectors = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or vectors != 3 or "float" not in image.GetPixelIDTypeAsString():
        raise ValueError(
            f"{path} is no displacement: it has {image.GetDimension()} axes and {vectors} components a voxel "
            f"({image.GetPixelIDTypeAsString()}), and ITK's vector images of 3 axes have 3, floating point."
        )
    return Geometry.of_image(image), np.eye(4), voxels_of(image).astype(np.float32) * TO_LPS


def _read_composite(path: Path) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """Read grid, affine map and displacement (RAS) of a composite that applies its one field first."""
    if path.name.lower().endswith(H5_SUFFIXES):
        with opened(path):  # ITK would follow its links
            pass
    try:
        whole = sitk.CompositeTransform([sitk.ReadTransform(str(path))])
        whole.FlattenTransform()
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a transform: {first_line(error)}") from error
    parts = [whole.GetNthTransform(k) for k in range(whole.GetNumberOfTransforms())]
    names, linear = [part.GetName() for part in parts], parts[:-1]
    one_field = names[-1:] == ["DisplacementFieldTransform"] and all(part.IsLinear() for part in linear)
    if whole.GetDimension() != 3 or not one_field:
        raise ValueError(
            f"{path} is a transform of {', '.join(names) or 'nothing'} in {whole.GetDimension()}D. It must be of "
            "affine maps and one displacement field in 3D that is applied first (it stands last). SimpleITK's "
            "TransformToDisplacementField converts any transform."
        )
    image = sitk.DisplacementFieldTransform(parts[-1]).GetDisplacementField()
    affine = np.linalg.multi_dot([LPS_TO_RAS, *map(matrix_of, linear), LPS_TO_RAS])
    return Geometry.of_image(image), affine, voxels_of(image).astype(np.float32) * TO_LPS


def matrix_of(linear: sitk.Transform) -> np.ndarray:
    """Get the `4 x 4` matrix of a linear transform, in LPS."""
    matrix = np.eye(4)
    matrix[:3, 3] = linear.TransformPoint((0.0, 0.0, 0.0))
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(linear.TransformPoint(unit.tolist())) - matrix[:3, 3]
    return matrix


def _add_grids(plain: Path, path: Path, transform: Transform) -> None:
    """Copy ITK's file, compress its large data sets, and add both grids and the exact affine map."""
    with h5py.File(plain, "r") as source, h5py.File(path, "w") as target:

        def copy(name: str, node: h5py.Group | h5py.Dataset) -> None:
            if isinstance(node, h5py.Dataset) and node.size < COMPRESSED:
                source.copy(name, target, name)
            elif isinstance(node, h5py.Dataset):
                options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
                large = target.create_dataset(name, node.shape, node.dtype, **options)
                for start in range(0, len(node), COPIED):
                    large[start : start + COPIED] = node[start : start + COPIED]

        source.visititems(copy)
        group = target.create_group(GROUP)
        group.attrs["format"] = FORMAT
        group["affine"] = transform.affine
        for name, grid in (("fixed", transform.fixed), ("moving", transform.moving)):
            group[f"{name}_shape"], group[f"{name}_affine"] = grid.shape, grid.affine


def _own_group(path: Path) -> tuple[Geometry, Geometry, np.ndarray]:
    """Read both grids and the affine map that regcascade adds to an `.h5`."""
    with opened(path) as file:
        group = file[GROUP]
        if group.attrs.get("format") != FORMAT:
            raise ValueError(f"{path} was written by another version of regcascade, which this one cannot read.")
        try:
            fixed, moving = (
                Geometry(check_size("shape", group[f"{name}_shape"][()]), group[f"{name}_affine"][()])
                for name in ("fixed", "moving")
            )
            return fixed, moving, np.array(group["affine"][()], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: its group {GROUP} is damaged ({error}). Make the transform again.") from error
