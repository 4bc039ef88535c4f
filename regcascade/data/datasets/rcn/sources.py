"""RCN's HDF5 files as raw scans, for `regcascade prepare`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import axcodes2ornt

from regcascade.data.datasets.rcn.groups import check_group, open_h5, read_array, read_group
from regcascade.data.datasets.rcn.manifest import Manifest, read_manifest
from regcascade.data.io.raw_scan import RawScan, Source
from regcascade.data.io.scan_lists import told_apart
from regcascade.data.options import check_axes
from regcascade.types import Size
from regcascade.utils.registry import did_you_mean


@dataclass(frozen=True, kw_only=True)
class H5Source(Source):
    """A group of one of the authors' HDF5 files; `image` is the file and `series` the group.

    Its segmentation and points are taken over. Intensities stay 0..255.

    Attributes:
        listed: the JSON that lists it.
        size: sides of the volume in voxels.
        classes: the label values that are named; None where a segmentation is of one structure.
        spacing: mm per voxel along each array axis; the files do not say.
        axes: where the array axes lead, such as `RAS`; the files do not say that either.
    """

    listed: Path
    size: Size
    classes: tuple[int, ...] | None
    spacing: tuple[float, float, float]
    axes: str

    def read(self) -> RawScan:
        """Everything of the scan.

        Raises:
            ValueError: naming the file and the group, if either is missing, damaged or of another shape.
        """
        group = self.series or ""
        with open_h5(self.image) as file:
            has = check_group(file, self.image, group, self.size, self.listed)
            scan = read_group(file, self.image, group, has, self.classes)
        affine = _affine(self.spacing, self.axes)
        labels = None if scan.labels is None else MetaTensor(scan.labels.float(), affine=torch.from_numpy(affine))
        return RawScan(MetaTensor(scan.volume, affine=torch.from_numpy(affine)), affine, labels, points=scan.points)

    def digest(self) -> str:
        """SHA-256 of the arrays of its group, and of what is said about them elsewhere; the file may hold many."""
        said = [self.classes, self.spacing, self.axes]
        digest = hashlib.sha256(json.dumps(said).encode())
        group = self.series or ""
        with open_h5(self.image) as file:
            for key in sorted(check_group(file, self.image, group, self.size, self.listed)):
                digest.update(key.encode() + np.ascontiguousarray(read_array(file, self.image, group, key)).tobytes())
        return digest.hexdigest()


def h5_sources(
    path: Path,
    subsets: Sequence[str] = (),
    scans: str | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    axes: str = "RAS",
    *,
    adjacent: bool = False,
) -> tuple[list[Source], dict[int, str]]:
    """The scans of the authors' JSON, and what their labels mean.

    A scan is named after its group (`3` of `sliver/3`), with that of its file before it where scans of several files
    would share a name. One that is of no file has that for its `problem`.

    Args:
        path: the JSON.
        subsets: of it; it must have no more than one where neither these nor `scans` are given.
        scans: of these only those whose names in the JSON match this pattern, such as `youyi/*`.
        spacing: mm per voxel along each array axis.
        axes: where the array axes lead.
        adjacent: the first scan of a subset and its second are a group, the third and the fourth, and so on, as
            LSPIG's are of one animal.

    Raises:
        ValueError: naming the JSON, if it is none of theirs, or has no such subset.
    """
    manifest = read_manifest(path)
    chosen = list(dict.fromkeys(subsets)) or list(manifest.subsets)
    unknown = [name for name in chosen if name not in manifest.subsets]
    listed = ", ".join(f"{name} ({len(scans)})" for name, scans in manifest.subsets.items())
    if unknown:
        hint = did_you_mean(unknown[0], manifest.subsets)
        raise ValueError(f"--subset {unknown[0]}: {path} has no such subset. It has: {listed}.{hint}")
    if not (subsets or scans) and len(chosen) > 1:
        raise ValueError(f"{path} lists several subsets: name those to prepare by --subset. It has: {listed}.")
    groups = {
        scan: f"{subset}_{number // 2 + 1}" if adjacent else None
        for subset in chosen
        for number, scan in enumerate(manifest.subsets[subset])
        if fnmatchcase(scan, scans or "*")
    }
    if not groups:
        which = f"--scans {scans}" if scans else f"--subset {' '.join(chosen)}"
        raise ValueError(f"{which}: {path} lists no such scan in these subsets: {listed}.")
    axes = check_axes("--axes", axes)
    sources = [_source(manifest, scan, group, spacing, axes) for scan, group in groups.items()]
    return told_apart(_named_apart(sources, list(groups)), path), manifest.label_names


def _source(
    manifest: Manifest, scan: str, group: str | None, spacing: tuple[float, float, float], axes: str
) -> H5Source:
    try:
        (file, inside), problem = manifest.place(scan), None
    except ValueError as error:
        file, inside, problem = manifest.path, scan, str(error)
    classes = None if manifest.classes is None else tuple(manifest.classes)
    return H5Source(
        name=inside.replace("/", "_"),
        image=file,
        series=inside,
        group=group,
        problem=problem,
        listed=manifest.path,
        size=manifest.size,
        classes=classes,
        spacing=spacing,
        axes=axes,
    )


def _named_apart(sources: Sequence[H5Source], scans: Sequence[str]) -> list[Source]:
    """The sources, named by their whole names in the JSON if those of their groups do not tell them apart."""
    if len({source.name for source in sources}) == len(sources):
        return list(sources)
    return [
        H5Source(**{**vars(source), "name": scan.replace("/", "_")})
        for source, scan in zip(sources, scans, strict=True)
    ]


def _affine(spacing: tuple[float, float, float], axes: str) -> np.ndarray:
    """From voxels to mm in RAS, the first voxel at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(axcodes2ornt(axes)):
        affine[int(world), axis] = sign * spacing[axis]
    return affine
