"""`asit-lab recipes`: fine-tuning recipes."""

from typing import Annotated

import typer

from ..storage.jsonable import as_json_text
from ..storage.words import print_rows
from .options import JsonOption, OverridesOption, group

recipes_app = group("Fine-tuning recipes: list them, or show one.")


@recipes_app.command("list")
def recipes_list(as_json: JsonOption = False) -> None:
    """List the recipes."""
    from ..config import first_comment
    from ..finetuning.recipe import RECIPES, load_recipe, recipe_names

    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        rows.append(
            {
                "recipe": name,
                "about": first_comment(RECIPES / f"{name}.yaml"),
                "task": recipe.task,
                "head": recipe.head,
                "frames": recipe.frames,
                "length": f"{recipe.steps} steps" if recipe.steps else f"{recipe.epochs} epochs",
                "rate": recipe.rate,
            }
        )
    if as_json:
        print(as_json_text(rows))
    else:
        print_rows(rows, wrap="about")


@recipes_app.command("show")
def recipes_show(
    recipe: Annotated[str, typer.Argument(help="Recipe or YAML file.")],
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every key of a recipe and what it means, as YAML."""
    from ..finetuning.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    print(as_json_text(loaded.to_dict()) if as_json else loaded.to_yaml(explain=True).rstrip())
