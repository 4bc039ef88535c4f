"""A trained cascade, and how its images are prepared."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation

from regcascade.cascades import Cascade
from regcascade.cascades.base import SMALLEST_SIDE
from regcascade.cascades.checkpoint import Checkpoint, CheckpointError, read
from regcascade.data.preprocessing.recipes import Brain, Generic, Liver, Recipe, build_recipe
from regcascade.inference.scans import Scan, as_volume
from regcascade.utils.registry import Spec

SAME_SPACING = 0.01  # relative difference of voxel sizes below which a scan is not resampled
FAINT = 0.1  # of 0..1; a scan that spans less is in other units than in training
BLINDING = 0.5  # of the voxels above 0; if more are white, the scan is in other units too


@dataclass(frozen=True)
class Trained:
    """A cascade, the recipe of its images and the objective of its training.

    Attributes:
        cascade: the cascade with its weights.
        recipe: prepares a raw scan for the cascade.
        loss: options of the training objective; empty if unknown.
        path: checkpoint file, if any.
    """

    cascade: Cascade
    recipe: Recipe
    loss: Mapping[str, Any]
    path: Path | None = None

    @classmethod
    def of(cls, model: "Cascade | Checkpoint | Path | str", recipe: Spec | None = None) -> "Trained":
        """Take a model from a checkpoint file, or from what `checkpoint.read` or `load` returned.

        Raises:
            ValueError: if the checkpoint does not say how its images were prepared and no recipe is given.
        """
        checkpoint = read(model) if isinstance(model, Path | str) else model
        if isinstance(checkpoint, Checkpoint):
            cascade, path = checkpoint.build(), checkpoint.path
        else:
            cascade, path = checkpoint, None
        description = cascade.description
        if description is None and recipe is None:
            raise ValueError(
                "This cascade was built, not loaded, so it does not say how its images are made: give the checkpoint "
                "file, what regcascade.load returns for it, or a recipe."
            )
        chosen = build_recipe(recipe) if recipe is not None else recipe_of(description or {}, path)
        if cascade.size not in (None, tuple(chosen.size)):
            raise CheckpointError(
                f"The affine network was trained for volumes of {list(cascade.size or ())} voxels, and the recipe "
                f"makes {list(chosen.size)}: give it that size."
            )
        return cls(cascade, chosen, (description or {}).get("loss") or {}, path)

    def prepare(self, scan: Scan, whole: bool = False) -> MetaTensor:
        """Prepare a scan for the cascade: `(1, X, Y, Z)` in 0..1, with its affine. If `whole`, do not crop it.

        Raises:
            ValueError: if the recipe needs a mask that is missing, takes none, or cannot be applied to this scan.
        """
        recipe = _with_mask(self.recipe, scan)
        along = io_orientation(scan.geometry.affine)[:, 0].tolist()
        order = [along.index(axis) for axis in axcodes2ornt(recipe.orientation)[:, 0]]  # in the recipe's order
        spacing = getattr(recipe, "spacing", None)
        steps, sides = np.array(scan.geometry.spacing)[order], np.array(scan.geometry.shape, dtype=float)[order]
        ratio = 1.0 if spacing is None else steps / np.asarray(spacing, dtype=float)
        if isinstance(recipe, Generic) and np.abs(ratio - 1).max() < SAME_SPACING:
            recipe, ratio = replace(recipe, spacing=None), 1.0
        if whole and not isinstance(recipe, Liver) and getattr(recipe, "fit", "crop_pad") == "crop_pad":
            sides = sides * ratio
            x, y, z = (max(int(np.ceil(side)) + 2, SMALLEST_SIDE) for side in sides)
            recipe = replace(recipe, size=(x, y, z))
        labels = None if scan.labels is None else as_volume(scan.labels, scan.geometry)
        image, _ = recipe(as_volume(scan.image, scan.geometry), labels, scan.mask)
        return image


def recipe_of(description: Mapping[str, Any], path: Path | None) -> Recipe:
    """Find the recipe of a model's images: that of its prepared cases, or what its data set did to raw scans.

    For raw scans, take the usual orientation of the training and, if sizes came by cropping and padding, its usual
    spacing.
    """
    made = description.get("preprocessing", {})
    if made.get("recipe"):
        return build_recipe(made["recipe"])
    if "fit" not in made:
        raise ValueError(
            f"{path or 'The model'} does not say how its images were made (they came ready, or by several recipes): "
            "name a recipe (--recipe)."
        )
    options = ("size", "fit", "pad", "intensity", "percentiles", "window", "transforms")
    kept = {key: made[key] for key in options if key in made}
    spacing = made.get("spacing") if made["fit"] == "crop_pad" else None
    return Generic(orientation=made.get("orientation", "RAS"), spacing=spacing, **kept)


def intensity_warning(image: torch.Tensor, name: str) -> str | None:
    """Warn if a prepared image does not use 0..1 as in training: it is faint, or cut off white."""
    voxels = image.flatten()[:: max(1, image.numel() // 2**20)].float()
    low, high = torch.quantile(voxels, torch.tensor([0.005, 0.995]))
    white = float((voxels[voxels > 0] >= 1).float().mean())  # NaN where all is black, which is faint
    if float(high - low) < FAINT:
        how = f"spans {100 * float(high - low):.1f} % of the intensities that the model was trained on"
    elif white > BLINDING:
        how = f"lies above the intensities that the model was trained on, at {100 * white:.0f} % of it"
    else:
        return None
    return f"{name} {how}: is it of another modality, or in other units? Look at the picture before use."


def _with_mask(recipe: Recipe, scan: Scan) -> Recipe:
    """Let a recipe find the brain by the scan's mask, if there is one."""
    if scan.mask is None:
        if isinstance(recipe, Brain) and recipe.mask == "file":
            raise ValueError(
                "the model's images are black outside a mask, and this scan has none: give it (--fixed-mask, "
                "--moving-mask)."
            )
        return recipe
    if isinstance(recipe, Liver):
        raise ValueError("the model's images are cropped around the liver, without a mask: leave its mask out.")
    return replace(recipe, mask="file") if isinstance(recipe, Brain) else recipe
