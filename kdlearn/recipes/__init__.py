"""Recipes: a whole distillation in one small TOML file, checked before anything runs."""

from kdlearn.recipes.build import Built, build, distiller, terms
from kdlearn.recipes.job import Job
from kdlearn.recipes.schema import Recipe, RecipeError, load, shipped

__all__ = [
    "Built",
    "Job",
    "Recipe",
    "RecipeError",
    "build",
    "distiller",
    "load",
    "shipped",
    "terms",
]
