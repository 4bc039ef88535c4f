"""The scans of a registration in native space, with their labels, landmarks and masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from regcascade.data.io.images import as_meta, check_intensities, scan_name
from regcascade.data.io.itk_images import read_scan
from regcascade.data.io.label_maps import scan_labels
from regcascade.data.io.point_tables import read_points
from regcascade.geometry.grid import Geometry

SMALLEST_MM, LARGEST_MM = 2.0, 4000.0  # of a field of view in millimetres


@dataclass(frozen=True)
class ScanFiles:
    """The files of one scan.

    Attributes:
        image: an image file, or the folder of a DICOM series.
        labels: a label map on the image's grid.
        points: landmarks, voxel coordinates of the image in a CSV, or a file of Slicer, see `data.io.point_tables`.
        mask: what counts, such as the brain, on the image's grid.
        series: the UID of the series, if a DICOM folder holds several.
    """

    image: Path
    labels: Path | None = None
    points: Path | None = None
    mask: Path | None = None
    series: str | None = None

    def __post_init__(self) -> None:
        for name in ("image", "labels", "points", "mask"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(value))


@dataclass(frozen=True)
class Scan:
    """One scan, read.

    Attributes:
        name: name of its file.
        image: in its own units and type.
        geometry: where its voxels lie.
        labels: on the same grid, or None.
        points: landmarks, `(K, 3)` in voxels, NaN where missing, or None.
        mask: `(1, X, Y, Z)`, 1 inside, or None.
        path: file of the image, if it was read.
    """

    name: str
    image: sitk.Image
    geometry: Geometry
    labels: sitk.Image | None = None
    points: np.ndarray | None = None
    mask: MetaTensor | None = None
    path: Path | None = None

    @property
    def points_mm(self) -> np.ndarray | None:
        """The landmarks in mm, RAS."""
        return None if self.points is None else self.geometry.to_world(self.points)


def open_scan(files: ScanFiles) -> Scan:
    """Read a scan with its labels, landmarks and mask.

    Raises:
        ValueError: naming the file, if it is missing, not a 3D image, constant, not finite, or has a field of view that
            cannot be in millimetres; or if labels, landmarks or mask do not fit the image.
    """
    image = read_scan(files.image, files.series)
    geometry = Geometry.of_image(image)
    extents = np.array(geometry.shape) * np.array(geometry.spacing)
    if extents.min() < SMALLEST_MM / 10 or extents.max() < SMALLEST_MM or extents.max() > LARGEST_MM:
        size = " x ".join(f"{extent:.3g}" for extent in extents)
        raise ValueError(
            f"{files.image} measures {size} mm by its header, which is impossible for a scan: its numbers seem to be "
            "in another unit, such as metres or micrometres. Write it with voxel sizes in millimetres."
        )
    check_intensities(as_volume(image, geometry), files.image)
    points = None if files.points is None else read_points(files.points, geometry).double().numpy()
    mask = None
    if files.mask is not None:
        mask = as_meta((as_volume(scan_labels(files.mask, files.image, geometry), geometry) > 0).float())
        if not mask.any():
            raise ValueError(f"{files.mask} is an empty mask: it leaves nothing of {files.image}.")
    labels = None if files.labels is None else scan_labels(files.labels, files.image, geometry)
    return Scan(scan_name(files.image), image, geometry, labels, points, mask, files.image.resolve())


def as_volume(image: sitk.Image, geometry: Geometry) -> MetaTensor:
    """Convert an ITK image to `(1, X, Y, Z)` float32 with its affine."""
    voxels = np.array(sitk.GetArrayViewFromImage(image).T, np.float32, order="C")  # a writable copy
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(geometry.affine.copy()))
