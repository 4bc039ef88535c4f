"""Small scans as NIfTI files, anisotropic and with a turned affine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from regcascade.data.io.images import kept_locale

SHAPE = (13, 18, 11)
SPACING = (0.5, 1.25, 3.0)
THICKNESS, BETWEEN = "0018|0050", "0018|0088"  # DICOM's SliceThickness and SpacingBetweenSlices


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    """Write an array with a rotated, flipped and anisotropic affine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing)
    affine[:3, 3] = [10, -20, 30]
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def scan_arrays(index: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Random intensities of a scale of their own, and a box of each of two labels."""
    image = np.random.default_rng(index).gamma(2, 10 * 4.0**index, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[3 + index % 2 : 9, 4:12, 2:6] = 1
    labels[3:9, 4:12, 6:9] = 2
    return image, labels


def write_scan(folder: Path, index: int, name: str = "{}.nii.gz", landmarks: int = 3) -> Path:
    """An image with labels, a mask of the labels, and landmarks, as `name` says with `t1`, `seg`, `mask` in it."""
    image, labels = scan_arrays(index)
    write_nifti(folder / name.format("seg"), labels)
    write_nifti(folder / name.format("mask"), (labels > 0).astype(np.uint8))
    lines = [f"{3 + k},{5 + k},{4 + k}" for k in range(landmarks)]
    (folder / name.format("points").replace(".nii.gz", ".csv")).write_text("\n".join(["x,y,z", *lines]) + "\n")
    return write_nifti(folder / name.format("t1"), image)


def oblique_affine(
    spacing: tuple[float, float, float], origin: tuple[float, float, float] = (12.0, -30.0, 7.5)
) -> np.ndarray:
    """Of a grid that is turned about two axes, in RAS."""
    a, b = np.deg2rad(12), np.deg2rad(-8)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * np.array(spacing)
    affine[:3, 3] = origin
    return affine


@kept_locale()
def write_dicom(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    uid: str = "1.2.826.0.1.3680043.2.1125.7",
    numbers: Sequence[int | None] | None = None,
    stated: Mapping[str, float] | None = None,
) -> Path:
    """A series of one file per slice, into a folder that may hold others.

    `numbers` are the slices' InstanceNumber, counted from 1 if not given, None for none; `stated` are the tags that
    tell how far slices lie apart: ITK adds the true SpacingBetweenSlices, or not, unless they are given.
    """
    folder.mkdir(exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = lps[:3, :3] / spacing
    spacing[2] = (stated or {}).get(BETWEEN, spacing[2])
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(voxels.shape[2]):
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[:, :, k].T.astype(np.int16))[None])
        image.SetSpacing(spacing.tolist())
        position = lps[:3, 3] + k * lps[:3, 2]
        tags = {
            "0008|0060": "CT",
            "0008|0018": f"{uid}.{k + 1}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000e": uid,
            "0020|0013": str(k + 1 if numbers is None else numbers[k]),
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.8f}" for value in direction[:, :2].T.ravel()),
        }
        tags |= {tag: f"{value:g}" for tag, value in (stated or {}).items()}
        if numbers is not None and numbers[k] is None:
            del tags["0020|0013"]
        for key, value in tags.items():
            image.SetMetaData(key, value)
        file = folder / f"{uid}_{k:03d}.dcm"
        writer.SetFileName(str(file))
        writer.Execute(image)
        if stated is not None and BETWEEN not in stated:  # turned into a tag that nothing reads
            file.write_bytes(file.read_bytes().replace(b"\x18\x00\x88\x00", b"\x18\x00\x8b\x00", 1))
    return folder
