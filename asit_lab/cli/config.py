"""`asit-lab config`: presets."""

from typing import Annotated

import typer

from ..storage.jsonable import as_json_text
from ..storage.words import print_rows
from .options import JsonOption, OverridesOption, group

config_app = group("Configurations: list presets, show one, or compare two.")


@config_app.command("list")
def config_list(as_json: JsonOption = False) -> None:
    """List the presets."""
    from ..config import PRESETS, first_comment, load_config, preset_names

    rows = []
    for name in preset_names():
        cfg = load_config(name)
        rows.append(
            {
                "preset": name,
                "about": first_comment(PRESETS / f"{name}.yaml"),
                "width": cfg.model.width,
                "depth": cfg.model.depth,
                "heads": cfg.model.heads,
                "rate_hz": cfg.features.sample_rate,
                "crop_s": cfg.data.crop_seconds,
                "length": f"{cfg.train.steps} steps" if cfg.train.steps else f"{cfg.train.epochs:g} epochs",
            }
        )
    if as_json:
        print(as_json_text(rows))
    else:
        print_rows(rows, wrap="about")


@config_app.command("show")
def config_show(
    preset: Annotated[str, typer.Argument(help="Preset, YAML file or run directory.")],
    overrides: OverridesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every setting and what it means, as YAML."""
    from ..config import load_config

    cfg = load_config(preset, overrides)
    print(as_json_text(cfg.to_dict()) if as_json else cfg.to_yaml(explain=True).rstrip())


@config_app.command("diff")
def config_diff(
    a: Annotated[str, typer.Argument(help="Preset, YAML file or run directory.")],
    b: Annotated[str, typer.Argument(help="Preset, YAML file or run directory to compare it with.")],
    as_json: JsonOption = False,
) -> None:
    """List the settings that differ between two configurations."""
    from ..config import diff, load_config

    rows = diff(load_config(a), load_config(b))
    if as_json or not rows:
        print(as_json_text(rows) if as_json else f"{a} and {b} agree in every setting")
        return
    left, right = (a, b) if len({a, b, "about", "key"}) == 4 else ("A", "B")
    table = [{"about": row["about"], "key": row["key"], left: row["a"], right: row["b"]} for row in rows]
    print_rows(table, wrap="about")
