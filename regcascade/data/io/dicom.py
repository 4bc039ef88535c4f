"""DICOM series folders: their files in slice order, their geometry, and whether a slice is missing."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from regcascade.data.io.errors import VolumeError
from regcascade.geometry.grid import LPS_TO_RAS, itk_affine

POSITION, NUMBER = "0020|0032", "0020|0013"  # ImagePositionPatient, InstanceNumber
STATED = {"SpacingBetweenSlices": "0018|0088", "SliceThickness": "0018|0050"}  # mm between slices, the better one first
SLICE_TOLERANCE = 0.02  # of the distance between slices


def series_files(folder: Path, series: str | None = None) -> list[str]:
    """List the files of a DICOM series in slice order; `series`, its UID, is needed if the folder holds several."""
    reader = sitk.ImageSeriesReader
    found = {uid: reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))}
    if not found:
        raise VolumeError(f"{folder} holds no DICOM series. Give an image file, or the folder of one series.")
    listed = "; ".join(f"{uid} ({len(files)} files)" for uid, files in found.items())
    if series is None and len(found) > 1:
        raise VolumeError(f"{folder} holds {len(found)} DICOM series: {listed}. Choose one by its UID (series).")
    if series is not None and series not in found:
        raise VolumeError(f"{folder} holds no DICOM series {series}, but {listed}.")
    return list(found[series or next(iter(found))])


def series_header(folder: Path, series: str | None) -> tuple[tuple[int, ...], np.ndarray]:
    """Read shape and affine from the headers of a series' files.

    Raises:
        VolumeError: naming the folder, if its slices are not evenly spaced or every second or third one is missing.
    """
    files = series_files(folder, series)
    first = _read_header(files[0])
    affine = itk_affine(first)
    if len(files) == 1:
        return tuple(first.GetSize()), affine
    positions, numbers = [], []
    for file in files:
        header = _read_header(file)
        position = _numbers(header, POSITION)
        if len(position) != 3:
            raise VolumeError(f"{file} does not say where its slice lies (DICOM's ImagePositionPatient is missing).")
        positions.append(np.array(position) * np.diag(LPS_TO_RAS)[:3])
        numbers += [int(number) for number in _numbers(header, NUMBER)[:1]]
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    gap = float(np.median(gaps))
    if gap == 0 or np.abs(gaps - gap).max() > SLICE_TOLERANCE * gap:
        worst = int(np.abs(gaps - gap).argmax())
        before, after = (Path(file).name for file in files[worst : worst + 2])
        raise VolumeError(
            f"{folder}: its slices are not evenly spaced ({gaps[worst]:g} mm between {before} and {after}, "
            f"{gap:g} mm elsewhere): a slice is missing or doubled. Fetch it again."
        )
    if len(numbers) == len(files):
        _check_none_skipped(folder, numbers, gap, first)
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(files) - 1)
    affine[:3, 3] = positions[0]
    return (*first.GetSize()[:2], len(files)), affine


def _check_none_skipped(folder: Path, numbers: Sequence[int], gap: float, header: sitk.ImageFileReader) -> None:
    """Refuse an evenly spaced series of which only every second slice, or third, is there.

    Both the numbers (1, 3, 5, ...) and the distance, as many times the stated one, must show it. Numbers alone also
    skip where two series are numbered in turn, and the distance alone differs where slices overlap.
    """
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    stated = [(name, value) for name, tag in STATED.items() for value in _numbers(header, tag)[:1] if value > 0]
    if len(steps) != 1 or not stated:
        return
    step, (name, apart) = abs(steps.pop()), stated[0]
    if step > 1 and abs(gap - step * apart) <= SLICE_TOLERANCE * gap:
        raise VolumeError(
            f"{folder}: slices are missing between those that are there: they are numbered {numbers[0]}, {numbers[1]}, "
            f"... (InstanceNumber) and lie {gap:g} mm apart, {step} times the {name} of {apart:g} mm. Fetch it "
            "again; if it is meant to be so, convert it to NIfTI first."
        )


def _numbers(header: sitk.ImageFileReader, tag: str) -> list[float]:
    """Read the numbers of a tag; none if it is missing, empty or not numeric."""
    try:
        values = [float(value) for value in header.GetMetaData(tag).split("\\")] if header.HasMetaDataKey(tag) else []
    except ValueError:
        return []
    return values if np.isfinite(values).all() else []


def _read_header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader
