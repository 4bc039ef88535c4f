"""One raw scan: its files, and how they are read together."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from regcascade.data.io.images import check_intensities, read_header, read_volume
from regcascade.data.io.label_maps import read_labels, turn_onto
from regcascade.data.io.point_tables import read_points
from regcascade.geometry.grid import Geometry
from regcascade.utils.files import file_hash


@dataclass(frozen=True)
class RawScan:
    """A raw scan, before any recipe."""

    image: MetaTensor  # `(1, X, Y, Z)` float32 in its own units, its affine in RAS
    affine: np.ndarray  # `(4, 4)`, from its voxels to mm in RAS
    labels: MetaTensor | None = None  # on the same grid, whole numbers from 0 up
    mask: MetaTensor | None = None  # on the same grid, above 0 inside
    points: Float[Tensor, "k 3"] | None = None  # in voxels of the image, NaN where one is missing


@dataclass(frozen=True)
class Source:
    """The files of one raw scan."""

    name: str  # unique within its list
    image: Path  # an image file, or the folder of a DICOM series
    labels: Path | None = None  # a label map on the grid of the image
    mask: Path | None = None  # of what counts, such as the brain, on the same grid
    points: Path | None = None  # landmarks, a table of voxel coordinates of the image, see `point_tables.py`
    series: str | None = None  # the UID of the series, if a DICOM folder holds several
    group: str | None = None  # what pairs may be kept within, such as the animal
    problem: str | None = None  # what is wrong with its entry in the list; such a scan cannot be read

    def read(self) -> RawScan:
        """Read all files of the scan; raise ValueError, naming the file, for whatever is wrong with one."""
        grid = read_header(self.image, self.series)
        scan = read_volume(self.image, self.series)
        check_intensities(scan, self.image)
        mask = None if self.mask is None else read_labels(self.mask, self.image, grid)
        if mask is not None and not mask.any():
            raise ValueError(f"{self.mask} is an empty mask: it leaves nothing of {self.image}.")
        return RawScan(
            image=scan,
            affine=grid.affine,
            labels=None if self.labels is None else read_labels(self.labels, self.image, grid),
            mask=mask,
            points=None if self.points is None else read_points(self.points, grid),
        )

    def check(self) -> Geometry:
        """Check the headers of the volumes, raising as `read`, and give the grid of the image."""
        grid = read_header(self.image, self.series)
        for beside in (self.labels, self.mask):
            if beside is not None:
                turn_onto(read_header(beside), grid, beside, self.image)
        return grid

    def digest(self) -> str:
        """Hash all its files by SHA-256; those of a DICOM folder in the order of their names."""
        digest = hashlib.sha256((self.series or "").encode())
        for path in (self.image, self.labels, self.mask, self.points):
            if path is not None:
                files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
                digest.update(b"".join(bytes.fromhex(file_hash(file)) for file in files))
        return digest.hexdigest()
