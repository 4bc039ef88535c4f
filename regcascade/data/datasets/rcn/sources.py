"""RCN's HDF5 files as raw scans, for `regcascade prepare`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import axcodes2ornt

from regcascade.data.datasets.rcn.groups import Group
from regcascade.data.datasets.rcn.manifest import read_manifest
from regcascade.data.io.raw_scan import RawScan, Source
from regcascade.data.io.scan_lists import told_apart
from regcascade.data.options import check_axes
from regcascade.utils.registry import did_you_mean


@dataclass(frozen=True, kw_only=True)
class H5Source(Source):
    """A group of one of the authors' HDF5 files; `image` is the file and `series` the group.

    Its segmentation and points are taken over. Intensities stay 0..255.

    Attributes:
        held: the group.
        spacing: mm per voxel along each array axis; the files do not say.
        axes: where the array axes lead, such as `RAS`; the files do not say that either.
    """

    held: Group
    spacing: tuple[float, float, float]
    axes: str

    def read(self) -> RawScan:
        """Read everything of the scan, its first voxel at the origin.

        Raises:
            ValueError: naming the file and the group, if either is missing, damaged or of another shape.
        """
        volume, labels, points = self.held.read()
        affine = np.diag([0.0, 0, 0, 1])
        for axis, (world, sign) in enumerate(axcodes2ornt(self.axes)):
            affine[int(world), axis] = sign * self.spacing[axis]
        frame = torch.from_numpy(affine)
        whole = None if labels is None else MetaTensor(labels.float(), affine=frame)
        return RawScan(MetaTensor(volume, affine=frame), affine, whole, points=points)

    def digest(self) -> str:
        """Compute the SHA-256 of the arrays of its group, and of what is said about them elsewhere."""
        digest = hashlib.sha256(json.dumps([self.held.classes, self.spacing, self.axes]).encode())
        for key, array in sorted(self.held.arrays().items()):
            digest.update(key.encode() + np.ascontiguousarray(array).tobytes())
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
    """List the scans of the authors' JSON, and what their labels mean.

    A scan is named after its group (`3` of `sliver/3`), with that of its file before it where scans of several files
    would share a name. One that is of no file has that for its `problem`. The JSON's atlas comes with its file.

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
    }
    # The authors' subset of LPBA is what they test, without the atlas that lies in the same file.
    if manifest.atlas and any(scan.partition("/")[0] == manifest.atlas.partition("/")[0] for scan in groups):
        groups.setdefault(manifest.atlas, None)
    groups = {scan: group for scan, group in groups.items() if fnmatchcase(scan, scans or "*")}
    if not groups:
        which = f"--scans {scans}" if scans else f"--subset {' '.join(chosen)}"
        raise ValueError(f"{which}: {path} lists no such scan in these subsets: {listed}.")
    check_axes("--axes", axes)
    sources: list[Source] = []
    for scan, group in groups.items():
        try:
            held = manifest.group(scan)
        except ValueError as error:
            sources.append(Source(scan.replace("/", "_"), path, series=scan, group=group, problem=str(error)))
            continue
        name = held.name.replace("/", "_")
        sources.append(
            H5Source(name=name, image=held.path, series=held.name, group=group, held=held, spacing=spacing, axes=axes)
        )
    if len({source.name for source in sources}) < len(sources):
        sources = [replace(source, name=scan.replace("/", "_")) for source, scan in zip(sources, groups, strict=True)]
    return told_apart(sources, path), manifest.label_names
