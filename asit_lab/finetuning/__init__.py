"""Fine-tuning by AST's, ASDA's and SUPERB's recipes, and the classifiers that it and probes leave."""

from .classifier import Classifier, load_classifier
from .over_splits import check_task, finetune
from .predict import Predictions, predict_files
from .recipe import Recipe, load_recipe, recipe_names
from .result import FinetuneResult, load_result

__all__ = [
    "Classifier",
    "FinetuneResult",
    "Predictions",
    "Recipe",
    "check_task",
    "finetune",
    "load_classifier",
    "load_recipe",
    "load_result",
    "predict_files",
    "recipe_names",
]
