"""Recipes: the steps of `regcascade prepare` from a raw scan to a ready case, with MONAI's transforms.

Each gives an image in 0..1 and labels on one grid, whose affine leads to the world of the raw scan. A new file in this
folder that registers a class is a new recipe.
"""

import sys

from regcascade.data.preprocessing.recipes.base import RECIPES, Recipe
from regcascade.data.preprocessing.recipes.brain import Brain
from regcascade.data.preprocessing.recipes.generic import Generic
from regcascade.data.preprocessing.recipes.liver import Liver
from regcascade.utils.registry import Spec, import_package

__all__ = ["RECIPES", "Brain", "Generic", "Liver", "Recipe", "build_recipe"]

import_package(sys.modules[__name__])


def build_recipe(spec: Spec) -> Recipe:
    """Build the recipe of a name, or of a mapping with `name` and options.

    Raises:
        ValueError: for an unknown name, option or value, naming the valid ones.
    """
    name, options = RECIPES.options(spec)
    return RECIPES.get(name)(**options)
