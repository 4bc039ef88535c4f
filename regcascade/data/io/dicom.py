"""DICOM: slices or frames in order, whether they are one volume, and where it lies.

GDCM, by SimpleITK, sorts the files of a series and reads voxels. pydicom reads what it does not tell: the places of the
frames of an enhanced file, and what differs between slices.
"""

from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.uid import MediaStorageDirectoryStorage

from regcascade.data.io.errors import VolumeError, readable
from regcascade.geometry.grid import LPS_TO_RAS

STATED = "SpacingBetweenSlices", "SliceThickness"  # mm between slices, the better one first
NEEDED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}  # and how many numbers each has
ALIKE = {  # what all slices of a volume share, and by how much its numbers may differ
    "Rows": 0.0, "Columns": 0.0, "ImageType": 0.0, "StackID": 0.0, "ReferencedSegmentNumber": 0.0,
    "ImageOrientationPatient": 5e-4, "PixelSpacing": 1e-4,
}  # fmt: skip
RESCALE = "RescaleSlope", "RescaleIntercept"
SHARED = "SharedFunctionalGroupsSequence", "DetectorInformationSequence"  # what these hold is of every frame
FRAMES, OFFSETS = "PerFrameFunctionalGroupsSequence", "GridFrameOffsetVector"
TAGS = [
    *STATED, *NEEDED, *ALIKE, *RESCALE, *SHARED, FRAMES, OFFSETS, "InstanceNumber", "NumberOfFrames", "SamplesPerPixel",
    "SeriesInstanceUID",
]  # fmt: skip
SLICE_TOLERANCE = 0.02  # of the distance between slices
APART = "Put the slices of one volume into a folder of their own, or convert the series to NIfTI first."

Plane = dict[str, Any]  # what the header of a slice or frame says, by DICOM's keywords, and its `name`


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder, which is taken for a DICOM series, or a DICOM file by its first bytes."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def series_files(path: Path, series: str | None = None) -> list[str]:
    """List the files of a DICOM series in slice order; `series`, its UID, is needed if the folder holds several.

    Raises:
        VolumeError: naming the folder, if there is no such series; or a file that cannot be read.
    """
    if not path.is_dir():
        return [str(path)]
    reader = sitk.ImageSeriesReader
    found = {uid: reader.GetGDCMSeriesFileNames(str(path), uid) for uid in reader.GetGDCMSeriesIDs(str(path))}
    _check_none_dropped(path, {Path(file) for files in found.values() for file in files}, series)
    if not found:
        raise VolumeError(f"{path} holds no DICOM series. Give an image file, or the folder of one series.")
    listed = "; ".join(f"{uid} ({len(files)} files)" for uid, files in found.items())
    if series is None and len(found) > 1:
        raise VolumeError(f"{path} holds {len(found)} DICOM series: {listed}. Choose one by its UID (series).")
    if series is not None and series not in found:
        raise VolumeError(f"{path} holds no DICOM series {series}, but {listed}.")
    return list(found[series or next(iter(found))])


def series_grid(path: Path, series: str | None = None) -> tuple[tuple[int, ...], np.ndarray]:
    """Read shape and affine of a DICOM file, or of a series, from the headers.

    Raises:
        VolumeError: naming file or folder and what differs, if its slices or frames are not those of one volume.
    """
    files = series_files(path, series)
    planes = _planes(files)
    if 1 < len(files) < len(planes):
        raise VolumeError(f"{path} holds {len(files)} files of several frames each: give one of them.")
    _check_one_volume(path, planes)
    along, down = np.reshape(_numbers(planes[0], "ImageOrientationPatient"), (2, 3))
    places = np.array([_numbers(plane, "ImagePositionPatient") for plane in planes])
    _check_even(path, [plane["name"] for plane in planes], places, np.cross(along, down))
    step, (rows, columns) = (places[-1] - places[0]) / (len(planes) - 1), _numbers(planes[0], "PixelSpacing")
    _check_none_skipped(path, planes, float(np.linalg.norm(step)))
    affine = np.eye(4)
    affine[:3] = np.stack([along * columns, down * rows, step, places[0]], axis=1)
    return (int(planes[0]["Columns"]), int(planes[0]["Rows"]), len(planes)), LPS_TO_RAS @ affine


def read_series(path: Path, series: str | None = None) -> sitk.Image:
    """Read the voxels of a DICOM file or series, as float32 if its slices are scaled each in its own way."""
    files = series_files(path, series)
    scaled = len({str([plane.get(key) for key in RESCALE]) for plane in _planes(files)}) > 1
    if scaled and len(files) == 1:
        raise VolumeError(f"{path}: RescaleSlope changes between its frames. Convert it to NIfTI first.")
    return sitk.ReadImage(files if len(files) > 1 else files[0], sitk.sitkFloat32 if scaled else sitk.sitkUnknown)


def _planes(files: Sequence[str]) -> list[Plane]:
    """Read the headers of slices, or of the frames of a file."""
    planes = []
    for file in map(Path, files):
        with readable(file):
            header = dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
            count = int(header.get("NumberOfFrames") or 1)
            common = _values(header, *(header[name][0] for name in SHARED if header.get(name)))
            frames = [_values(item) for item in header.get(FRAMES) or []] or _stacked(common, count)
            if len(frames) != count:
                raise ValueError(f"it describes {len(frames)} frames and holds {count}")
            for index, frame in enumerate(frames, start=1):
                planes.append(common | frame | {"name": file.name if count == 1 else f"frame {index} of {file.name}"})
    return planes


def _values(*groups: Dataset) -> Plane:
    """Collect the values of data sets and of their functional groups; a later one goes before an earlier one."""
    found: Plane = {}
    for element in chain(*groups):
        if element.VR != "SQ":
            found["ImageType" if element.keyword == "FrameType" else element.keyword] = element.value
        elif element.keyword not in (*SHARED, FRAMES) and element.value:
            found |= _values(element.value[0])
    return {key: value for key, value in found.items() if value not in (None, "")}


def _stacked(first: Plane, count: int) -> list[Plane]:
    """Place the frames of a file that places its first one only, as doses and nuclear medicine do."""
    if count == 1:
        return [{}]
    offsets = np.array(first.get(OFFSETS, np.arange(count) * first.get(STATED[0], np.nan)), dtype=float)
    place, axes = (
        np.array(first.get(key, np.full(size, np.nan)), dtype=float) for key, size in NEEDED.items() if size > 2
    )
    return [
        {"ImagePositionPatient": place + (offset - offsets[0]) * np.cross(axes[:3], axes[3:])} for offset in offsets
    ]


def _numbers(plane: Plane, keyword: str) -> np.ndarray:
    """Read the numbers of a value; none if it is missing, not numeric or of another length than it has."""
    try:
        numbers = np.atleast_1d(np.array(plane[keyword], dtype=float))
    except (KeyError, TypeError, ValueError):
        return np.array([])
    whole = len(numbers) == NEEDED.get(keyword, len(numbers)) and np.isfinite(numbers).all()
    return numbers if whole else np.array([])


def _check_none_dropped(folder: Path, found: set[Path], series: str | None) -> None:
    """Refuse a folder with a DICOM file that GDCM leaves out because it cannot read it."""
    for file in sorted(set(folder.iterdir()) - found):
        if file.is_dir() or not (file.suffix.lower() == ".dcm" or is_dicom(file)):
            continue
        with readable(file):
            header = dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
        uid, kind = header.get("SeriesInstanceUID"), header.file_meta.get("MediaStorageSOPClassUID")
        if kind != MediaStorageDirectoryStorage and (series or uid or "").startswith(uid or ""):
            raise VolumeError(f"{file} is cut short or damaged. Restore it, or take it out of the folder.")


def _check_one_volume(path: Path, planes: Sequence[Plane]) -> None:
    """Refuse slices that are not of one volume, or do not say where they lie."""
    for plane in planes:
        about = f"{path}: {plane['name']}"
        for key in NEEDED:
            if not len(_numbers(plane, key)):
                raise VolumeError(f"{about} does not say where it lies (DICOM's {key} is missing).")
        for kind in ("MOSAIC", "LOCALIZER"):
            if kind in plane.get("ImageType", ()):
                raise VolumeError(f"{about} is a {kind.lower()}, which is no volume. {APART}")
        if plane.get("SamplesPerPixel", 1) != 1:
            raise VolumeError(f"{about} is in colour: give real numbers, one a voxel.")
        for key, tolerance in ALIKE.items():
            one, other = planes[0].get(key), plane.get(key)
            close = tolerance and np.allclose(_numbers(planes[0], key), _numbers(plane, key), 0, tolerance)
            if not (close or one == other):
                about = f"{key} is {one} in {planes[0]['name']} and {other} in {plane['name']}"
                raise VolumeError(f"{path} is not one volume: {about}. {APART}")
    if len(planes) == 1:
        raise VolumeError(f"{path} is a single slice ({planes[0]['name']}): give the folder of the whole series.")


def _check_even(path: Path, names: Sequence[str], places: np.ndarray, normal: np.ndarray) -> None:
    """Refuse slices that share a place, or do not follow each other in even steps."""
    heights = places @ normal
    distinct = len(np.unique(heights.round(3)))
    if distinct < len(places) and len(places) % distinct == 0:
        raise VolumeError(
            f"{path} is not one volume: its {len(places)} slices lie at {distinct} places, such as those of several "
            f"time points, echoes or stacks. {APART}"
        )
    steps = np.diff(places, axis=0)
    step = np.median(steps, axis=0)
    gap, off = float(np.linalg.norm(step)), np.linalg.norm(steps - step, axis=1)
    if gap == 0 or off.max() > SLICE_TOLERANCE * gap:
        worst = int(off.argmax())
        raise VolumeError(
            f"{path}: its slices are not evenly spaced ({np.linalg.norm(steps[worst]):g} mm between {names[worst]} and "
            f"{names[worst + 1]}, {gap:g} mm elsewhere): a slice is missing, doubled or out of order."
        )


def _check_none_skipped(path: Path, planes: Sequence[Plane], gap: float) -> None:
    """Refuse an evenly spaced series of which only every second slice, or third, is there.

    Both the numbers (1, 3, 5, ...) and the distance, as many times the stated one, must show it. Numbers alone also
    skip where two series are numbered in turn, and the distance alone differs where slices overlap.
    """
    numbers = [int(number) for plane in planes for number in _numbers(plane, "InstanceNumber")[:1]]
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    stated = [(key, float(value)) for key in STATED for value in _numbers(planes[0], key)[:1] if value > 0]
    if len(numbers) < len(planes) or len(steps) != 1 or not stated:
        return
    step, (name, apart) = abs(steps.pop()), stated[0]
    if step > 1 and abs(gap - step * apart) <= SLICE_TOLERANCE * gap:
        raise VolumeError(
            f"{path}: slices are missing between those that are there: they are numbered {numbers[0]}, {numbers[1]}, "
            f"... (InstanceNumber) and lie {gap:g} mm apart, {step} times the {name} of {apart:g} mm. If it is meant "
            "to be so, convert it to NIfTI first."
        )
