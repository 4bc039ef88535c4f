"""Names and rounding of measures, wherever they are shown."""

import math
from typing import NamedTuple

import pandas as pd

NONE = "-"


class Measure(NamedTuple):
    """A known measure: its column in the table of pairs, its names, and how it is shown."""

    column: str
    name: str
    heading: str  # short, for the head of a column
    decimals: int
    better: int  # +1 if more is better, -1 if less is, 0 if neither


MEASURES = (
    Measure("dice_mean", "Dice", "Dice", 3, +1),
    Measure("jaccard_mean", "Jaccard", "Jaccard", 3, +1),
    Measure("cc", "CC", "CC", 3, +1),
    Measure("landmark_distance_voxels", "Landmark distance [voxels]", "Landmarks [voxels]", 2, -1),
    Measure("landmark_distance_mm", "Landmark distance [mm]", "Landmarks [mm]", 2, -1),
    Measure("hd95_mm", "HD95 [mm]", "HD95 [mm]", 2, -1),
    Measure("asd_mm", "Surface distance [mm]", "ASD [mm]", 2, -1),
    Measure("folding_percent", "Folding [%]", "Folding [%]", 4, -1),
    Measure("sdlogj", "SD of log Jacobian", "SD log J", 3, 0),
    Measure("jacobian_std", "SD of Jacobian", "SD J", 3, 0),
    Measure("displacement_mean_voxels", "Displacement [voxels]", "Displacement [voxels]", 2, 0),
    Measure("displacement_max_voxels", "Largest displacement [voxels]", "Max. displ. [voxels]", 2, 0),
    Measure("displacement_mean_mm", "Displacement [mm]", "Displacement [mm]", 2, 0),
    Measure("displacement_max_mm", "Largest displacement [mm]", "Max. displ. [mm]", 2, 0),
    Measure("inverse_consistency_voxels", "Inverse consistency [voxels]", "Inv. cons. [voxels]", 3, -1),
    Measure("inverse_consistency_mm", "Inverse consistency [mm]", "Inv. cons. [mm]", 3, -1),
    Measure("learn2reg_dice", "Learn2Reg: Dice", "L2R Dice", 3, +1),
    Measure("learn2reg_hd95_voxels", "Learn2Reg: HD95 [voxels]", "L2R HD95 [voxels]", 2, -1),
    Measure("learn2reg_tre_mm", "Learn2Reg: TRE [mm]", "L2R TRE [mm]", 2, -1),
    Measure("learn2reg_sdlogj", "Learn2Reg: SDlogJ", "L2R SDlogJ", 3, 0),
    Measure("seconds", "Seconds a pair", "Seconds", 3, 0),
    Measure("peak_memory_mib", "Peak memory [MiB]", "Memory [MiB]", 0, 0),
)
KNOWN = {measure.column: measure for measure in MEASURES}
_OF_LABELS = {"dice_": ("Dice", 3), "jaccard_": ("Jaccard", 3), "asd_mm_": ("ASD [mm]", 2)}


def heading(column: str) -> tuple[str, int]:
    """Get the heading and the decimals of a column; an unknown one keeps its own name.

    >>> heading("asd_mm_left_kidney")
    ('ASD [mm] left kidney', 2)
    """
    if column in KNOWN:
        return KNOWN[column].heading, KNOWN[column].decimals
    for prefix, (name, decimals) in _OF_LABELS.items():
        if column.startswith(prefix):
            return f"{name} {column.removeprefix(prefix).replace('_', ' ')}", decimals
    return column.replace("_", " "), 3


def rounded(value: float, decimals: int, sign: str = "") -> str:
    """Write a number as text, always signed if `sign` is `+`; `-` for NaN."""
    return NONE if math.isnan(value) else f"{value:{sign}.{decimals}f}"


def mean_and_std(mean: float, std: float, decimals: int) -> str:
    """Write mean (standard deviation), either of which may be NaN.

    >>> mean_and_std(0.9531, 0.0142, 3)
    '0.953 (0.014)'
    """
    text = rounded(mean, decimals)
    return text if math.isnan(std) or math.isnan(mean) else f"{text} ({std:.{decimals}f})"


def spread(values: pd.Series, decimals: int) -> str:
    """Write mean (sample standard deviation) of values, and of how many where some are NaN.

    >>> spread(pd.Series([0.5, 0.7, math.nan]), 2)
    '0.60 (0.14) n=2'
    """
    known = values.dropna()
    text = mean_and_std(known.mean(), known.std(ddof=1), decimals)
    return text if len(known) in (0, len(values)) else f"{text} n={len(known)}"
