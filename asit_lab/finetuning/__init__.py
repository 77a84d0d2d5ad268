"""Fine-tunes encoders by AST's, ASDA's and SUPERB's recipes; loads the classifiers of fine-tuning and probes."""

from .classifier import Classifier, load_classifier
from .corrections import Corrections
from .events import covered, find_events, join_clips, write_events, write_timeline
from .export import export_model
from .over_splits import check_task, finetune
from .predict import Predictions, predict_files
from .recipe import Recipe, load_recipe, recipe_names
from .result import FinetuneResult, load_result
from .timeline import Timeline

__all__ = [
    "Classifier",
    "Corrections",
    "FinetuneResult",
    "Predictions",
    "Recipe",
    "Timeline",
    "check_task",
    "covered",
    "export_model",
    "find_events",
    "finetune",
    "join_clips",
    "load_classifier",
    "load_recipe",
    "load_result",
    "predict_files",
    "recipe_names",
    "write_events",
    "write_timeline",
]
