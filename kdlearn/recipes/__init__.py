"""Recipes: a whole distillation in one small TOML file, checked before anything runs."""

from kdlearn.recipes.build import Built, build, distiller, make_augment, stored_teacher
from kdlearn.recipes.schema import Recipe, RecipeError, load, shipped

__all__ = [
    "Built",
    "Recipe",
    "RecipeError",
    "build",
    "distiller",
    "load",
    "make_augment",
    "shipped",
    "stored_teacher",
]
