"""A trained cascade with how its images are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, io_orientation

from regcascade.cascades import Cascade
from regcascade.cascades.base import SMALLEST_SIDE
from regcascade.cascades.checkpoint import Checkpoint, CheckpointError, read
from regcascade.data.preprocessing.recipes import Brain, Generic, Liver, Recipe, build_recipe
from regcascade.inference.scans import Scan, as_volume
from regcascade.utils.registry import Spec

SAME_SPACING = 0.01  # voxels that differ by less, relatively, are not resampled
FAINT = 0.1  # of 0..1: what a scan must span to look like those of the training
BLINDING = 0.5  # of what is not black: white in a scan whose units are not those of the training


@dataclass(frozen=True)
class Trained:
    """A cascade, the recipe of its images and the objective it was trained for.

    Attributes:
        cascade: with its weights.
        recipe: from a raw scan to what the cascade sees.
        loss: the options of the training objective; empty if unknown.
        path: the checkpoint, if it was read from one here.
    """

    cascade: Cascade
    recipe: Recipe
    loss: Mapping[str, Any]
    path: Path | None = None

    @classmethod
    def of(cls, model: "Cascade | Checkpoint | Path | str", recipe: Spec | None = None) -> "Trained":
        """What a checkpoint holds, or a cascade that `load` gave.

        Args:
            model: a checkpoint file, or what `checkpoint.read` or `load` made of it.
            recipe: how to make its images, in place of what it says itself.

        Raises:
            ValueError: if it does not say how its images are made and no recipe is given.
        """
        checkpoint = read(model) if isinstance(model, Path | str) else model
        if isinstance(checkpoint, Checkpoint):
            cascade, path = checkpoint.build(), checkpoint.path
        else:
            cascade, path = checkpoint, None
        description = cascade.description
        if description is None and recipe is None:
            raise ValueError(
                "This cascade was built, not loaded, so that nothing is known of how its images are made: give the "
                "checkpoint file or what regcascade.load makes of it, or a recipe."
            )
        chosen = build_recipe(recipe) if recipe is not None else recipe_of(description or {}, path)
        if cascade.size not in (None, tuple(chosen.size)):
            raise CheckpointError(
                f"The affine network was trained for volumes of {list(cascade.size or ())} voxels, and the recipe "
                f"makes {list(chosen.size)}: give it that size."
            )
        return cls(cascade, chosen, (description or {}).get("loss") or {}, path)

    def prepare(self, scan: Scan, whole: bool = False) -> MetaTensor:
        """A scan as the cascade sees it: `(1, X, Y, Z)` in 0..1, with its affine.

        Args:
            scan: as it is.
            whole: do not cut it, whatever its size becomes; for resampling onto another grid later.

        Raises:
            ValueError: if a mask is missing that the recipe needs, or given to one that takes none, or it cannot be
                applied to this scan.
        """
        recipe = _with_mask(self.recipe, scan)
        spacing = getattr(recipe, "spacing", None)
        volume = scan.volume
        if isinstance(recipe, Generic) and spacing is not None:
            own = _spacing_in(volume, recipe.orientation)
            if np.abs(own / np.asarray(spacing, dtype=float) - 1).max() < SAME_SPACING:
                recipe, spacing = replace(recipe, spacing=None), None
        if whole and not isinstance(recipe, Liver) and getattr(recipe, "fit", "crop_pad") == "crop_pad":
            recipe = replace(recipe, size=_whole_size(scan, spacing, recipe.orientation))
        labels = None if scan.labels is None else as_volume(scan.labels, scan.geometry)
        image, _ = recipe(volume, labels, scan.mask)
        return image


def recipe_of(description: Mapping[str, Any], path: Path | None) -> Recipe:
    """The recipe of a model's images: that of its prepared cases, or what its data set did to raw scans.

    A data set that reads raw scans neither turns nor respaces them; here a scan is brought to the orientation, and
    where the size is reached by cutting and padding to the spacing too, that were usual among those it was trained on.
    """
    made = description.get("preprocessing", {})
    if made.get("recipe"):
        return build_recipe(made["recipe"])
    if "fit" not in made:
        raise ValueError(
            f"{path or 'The model'} does not say how its images were made (they came ready, or by several recipes): "
            "name a recipe (--recipe)."
        )
    options = ("size", "fit", "pad", "intensity", "percentiles", "window")
    kept = {key: made[key] for key in options if key in made}
    spacing = made.get("spacing") if made["fit"] == "crop_pad" else None
    return Generic(orientation=made.get("orientation", "RAS"), spacing=spacing, **kept)


def intensity_warning(image: torch.Tensor, name: str) -> str | None:
    """What to say of a prepared image that does not use 0..1 as those of the training did: faint, or cut off white."""
    voxels = image.flatten()[:: max(1, image.numel() // 2**20)].float()
    low, high = torch.quantile(voxels, torch.tensor([0.005, 0.995]))
    white = float((voxels[voxels > 0] >= 1).float().mean())  # NaN where all is black, which is faint
    question = "is it of another modality, or in other units? Look at the picture before use."
    if float(high - low) < FAINT:
        return (
            f"{name} spans {100 * float(high - low):.1f} % of the intensities that the model was trained on: {question}"
        )
    if white > BLINDING:
        return (
            f"{name} lies above the intensities that the model was trained on, at {100 * white:.0f} % of it: {question}"
        )
    return None


def _spacing_in(volume: MetaTensor, orientation: str) -> np.ndarray:
    """Voxel sizes along the axes that an orientation names."""
    affine = np.asarray(volume.affine)
    found = dict(zip(io_orientation(affine)[:, 0].astype(int), voxel_sizes(affine), strict=True))
    wanted = axcodes2ornt(orientation)[:, 0].astype(int)
    return np.array([found[world] for world in wanted])


def _with_mask(recipe: Recipe, scan: Scan) -> Recipe:
    """The recipe with the mask that a scan has in place of any other way to find what counts."""
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


def _whole_size(scan: Scan, spacing: Sequence[float] | None, orientation: str) -> tuple[int, int, int]:
    """Voxels that hold all of a scan, along the axes that an orientation names."""
    along = io_orientation(scan.geometry.affine)[:, 0].tolist()
    order = [along.index(axis) for axis in axcodes2ornt(orientation)[:, 0]]
    sides = np.array(scan.geometry.shape, dtype=float)[order]
    if spacing is not None:
        sides *= np.array(scan.geometry.spacing)[order] / np.asarray(spacing, dtype=float)
    x, y, z = (max(int(np.ceil(side)) + 2, SMALLEST_SIDE) for side in sides)
    return x, y, z
