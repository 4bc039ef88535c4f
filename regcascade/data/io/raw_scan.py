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


@dataclass(frozen=True)
class RawScan:
    """A raw scan, before any recipe.

    Attributes:
        image: `(1, X, Y, Z)` float32 in its own units, its affine in RAS.
        affine: `(4, 4)`, from its voxels to mm in RAS, as the file says.
        labels: on the same grid, whole numbers from 0 up, or None.
        mask: of what counts, above 0 on the same grid, or None.
        points: `(K, 3)` in voxels of the image, NaN where one is missing, or None.
    """

    image: MetaTensor
    affine: np.ndarray
    labels: MetaTensor | None = None
    mask: MetaTensor | None = None
    points: Float[Tensor, "k 3"] | None = None


@dataclass(frozen=True)
class Source:
    """The files of one raw scan.

    Attributes:
        name: unique within its list; a pair list names scans by it.
        image: an image file, or the folder of a DICOM series.
        labels: a label map on the grid of the image.
        mask: of what counts, such as the brain, on the same grid.
        points: landmarks, a CSV of voxel coordinates of the image with the columns `x`, `y`, `z`; empty where missing.
        series: the UID of the series, where a DICOM folder holds several.
        group: what pairs may be kept within, such as the animal of several scans.
        problem: what is wrong with it, where the list itself tells; such a scan cannot be read.
    """

    name: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    points: Path | None = None
    series: str | None = None
    group: str | None = None
    problem: str | None = None

    def read(self) -> RawScan:
        """Read all files of the scan.

        Raises:
            ValueError: naming the file, for whatever is wrong with it.
        """
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
            points=None if self.points is None else read_points(self.points, grid.shape),
        )

    def check(self) -> Geometry:
        """Check the headers of its volumes, without reading a voxel; give the grid of the image.

        Raises:
            ValueError: naming the file, for whatever is wrong with it.
        """
        grid = read_header(self.image, self.series)
        for beside in (self.labels, self.mask):
            if beside is not None:
                turn_onto(read_header(beside), grid, beside, self.image)
        return grid

    @property
    def where(self) -> str:
        """The image file and the part of it that is read, for messages."""
        return f"{self.image}: {self.series}" if self.series else str(self.image)

    def digest(self) -> str:
        """Hash all its files by SHA-256; those of a DICOM folder in the order of their names."""
        given = [path for path in (self.image, self.labels, self.mask, self.points) if path is not None]
        digest = hashlib.sha256((self.series or "").encode())
        for path in given:
            for file in sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()
