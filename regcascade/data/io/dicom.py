"""Folders of DICOM series: their files in the order of the slices, where these lie, and whether any is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from regcascade.data.io.errors import VolumeError
from regcascade.geometry.orientation import LPS_TO_RAS, itk_affine

POSITION, NUMBER = "0020|0032", "0020|0013"  # ImagePositionPatient, InstanceNumber
# How far apart slices lie, where a file tells: from centre to centre, or how thick one is.
STATED = {"SpacingBetweenSlices": "0018|0088", "SliceThickness": "0018|0050"}
SLICE_TOLERANCE = 0.02  # of the distance between slices


@dataclass(frozen=True)
class Slice:
    """What the header of one file says.

    Attributes:
        file: its path.
        position: of the centre of its first voxel, mm, RAS.
        number: InstanceNumber, or None.
        apart: name and mm of how far slices lie apart, or None where the header does not tell.
    """

    file: str
    position: np.ndarray
    number: int | None
    apart: tuple[str, float] | None


def series_files(folder: Path, series: str | None = None) -> list[str]:
    """The files of a folder's one DICOM series, or of the one that was asked for, in the order of their slices."""
    found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        raise VolumeError(f"{folder} holds no DICOM series. Give an image file, or the folder of one series.")
    listed = "; ".join(f"{uid} ({len(_files_of(folder, uid))} files)" for uid in found)
    if series is None and len(found) > 1:
        raise VolumeError(f"{folder} holds {len(found)} DICOM series: {listed}. Choose one by its UID (series).")
    if series is not None and series not in found:
        raise VolumeError(f"{folder} holds no DICOM series {series}, but {listed}.")
    return _files_of(folder, series or found[0])


def series_header(folder: Path, series: str | None) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine from the headers of a series' files.

    Raises:
        VolumeError: naming the folder, if its slices are not evenly spaced, or some are missing between all.
    """
    files = series_files(folder, series)
    first = _read_header(files[0])
    affine = itk_affine(first)
    if len(files) == 1:
        return tuple(first.GetSize()), affine
    slices = [_slice(file) for file in files]
    positions = np.array([one.position for one in slices])
    usual = _check_even(folder, slices, positions)
    _check_none_between(folder, slices, usual)
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(files) - 1)
    affine[:3, 3] = positions[0]
    return (*first.GetSize()[:2], len(files)), affine


def _check_even(folder: Path, slices: Sequence[Slice], positions: np.ndarray) -> float:
    """The distance between slices, which must be one."""
    lengths = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(lengths))
    if usual == 0 or np.abs(lengths - usual).max() > SLICE_TOLERANCE * usual:
        worst = int(np.abs(lengths - usual).argmax())
        names = [Path(one.file).name for one in slices[worst : worst + 2]]
        raise VolumeError(
            f"{folder}: its slices are not evenly spaced ({lengths[worst]:g} mm between {names[0]} and {names[1]}, "
            f"{usual:g} mm elsewhere): a slice is missing or doubled. Fetch it again."
        )
    return usual


def _check_none_between(folder: Path, slices: Sequence[Slice], usual: float) -> None:
    """Refuse a series of which only every second slice, or third, is there, which is evenly spaced too.

    Its numbers must show it (1, 3, 5, ...) as well as the distance, which is then so many times the stated one: numbers
    alone also skip where two series are numbered in turn, and the distance alone differs where slices overlap.
    """
    numbers = [one.number for one in slices if one.number is not None]
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    stated = slices[0].apart
    if len(numbers) < len(slices) or len(steps) != 1 or stated is None:
        return
    step, (what, apart) = abs(steps.pop()), stated
    if step > 1 and abs(usual - step * apart) <= SLICE_TOLERANCE * usual:
        raise VolumeError(
            f"{folder}: slices are missing between those that are there: they are numbered {numbers[0]}, {numbers[1]}, "
            f"... (InstanceNumber) and lie {usual:g} mm apart, {step} times the {what} of {apart:g} mm. Fetch it "
            "again; if it is meant to be so, convert it to NIfTI first."
        )


def _slice(file: str) -> Slice:
    reader = _read_header(file)
    position = _numbers(reader, POSITION)
    if len(position) != 3:
        raise VolumeError(f"{file} does not say where its slice lies (DICOM's ImagePositionPatient is missing).")
    number = _numbers(reader, NUMBER)
    told = ((what, _numbers(reader, tag)) for what, tag in STATED.items())
    return Slice(
        file,
        np.array(position) * np.diag(LPS_TO_RAS)[:3],
        int(number[0]) if number else None,
        next(((what, values[0]) for what, values in told if values and values[0] > 0), None),
    )


def _numbers(reader: sitk.ImageFileReader, tag: str) -> list[float]:
    """The numbers of a tag; none where it is missing, empty or no number."""
    try:
        values = [float(value) for value in reader.GetMetaData(tag).split("\\")] if reader.HasMetaDataKey(tag) else []
    except ValueError:
        return []
    return values if np.isfinite(values).all() else []


def _read_header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _files_of(folder: Path, uid: str) -> list[str]:
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
