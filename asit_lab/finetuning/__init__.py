"""Fine-tuning by AST's, ASDA's and SUPERB's recipes."""

from .over_splits import check_task, finetune
from .recipe import Recipe, load_recipe, recipe_names
from .result import FinetuneResult, load_result

__all__ = ["FinetuneResult", "Recipe", "check_task", "finetune", "load_recipe", "load_result", "recipe_names"]
