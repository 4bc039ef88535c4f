"""Random changes of training batches. A new file in this folder that registers a class is a new augmentation."""

import sys

from regcascade.data.augmentation.base import (
    AUGMENTATIONS,
    Augmentation,
    AugmentationSpec,
    build_augmentation,
    each_by_its_own,
    pull_points,
)
from regcascade.data.augmentation.bspline import BSplineAugmentation, bspline_field
from regcascade.utils.registry import import_package

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "AugmentationSpec",
    "BSplineAugmentation",
    "bspline_field",
    "build_augmentation",
    "each_by_its_own",
    "pull_points",
]

import_package(sys.modules[__name__])
