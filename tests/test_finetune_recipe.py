"""Recipes: the papers' numbers, schedules against the released code's, and what a wrong key is told."""

import json

import pytest
import torch
import yaml
from golden_case import golden

from asit_lab import Encoder, InputError, load_config
from asit_lab.cli import main
from asit_lab.finetuning import Recipe, load_recipe, recipe_names
from asit_lab.finetuning.network import build_classifier
from asit_lab.finetuning.recipe import RECIPES, recommended_recipe

# AST's table: rate, epochs, batch, mixup, bands, frames masked, frames, mean, std, loss.
AST = {
    "ast-audioset-20k": (5e-5, 25, 12, 0.5, 48, 192, 1024, -4.2677393, 4.5689974, "bce"),
    "ast-audioset-2m": (1e-5, 5, 12, 0.5, 48, 192, 1024, -4.2677393, 4.5689974, "bce"),
    "ast-esc50": (1e-4, 25, 48, 0.0, 24, 96, 512, -6.6268077, 5.358466, "ce"),
    "ast-speech-commands": (2.5e-4, 30, 128, 0.6, 48, 48, 128, -6.845978, 5.5654526, "bce"),
}
# ASDA's: rate, batch, steps, warm-up, frames, Beta of the mixup, its probability, masked, loss.
ASDA = {
    "asda-audioset-2m": (5e-5, 48, 600_000, "60000", 1024, 0.8, 0.9, 0.2, "bce"),
    "asda-audioset-20k": (5e-5, 32, 60_000, "6000", 1024, 0.8, 0.9, 0.2, "bce"),
    "asda-esc50": (5e-5, 48, 4_000, "400", 512, 0.8, 0.0, 0.4, "ce"),
    "asda-speech-commands": (2e-4, 256, 80_000, "8000", 128, 0.8, 0.9, 0.2, "bce"),
}


def test_every_recipe_loads_and_says_what_it_is():
    assert set(recipe_names()) == {*AST, *ASDA, "superb-voxceleb1", "voxceleb1-finetune", "micro", "smoke"}
    for name in recipe_names():
        assert load_recipe(name).name == name
        assert (RECIPES / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize(
    ("clips", "seconds", "multi", "name"),
    [
        (400, 5.0, False, "micro"),
        (20_000, 1.0, True, "micro"),
        (105_829, 1.0, False, "ast-speech-commands"),
        (153_516, 8.0, False, "ast-esc50"),
        (40_000, 10.0, True, "ast-audioset-20k"),
        (2_000_000, 10.0, True, "ast-audioset-2m"),
    ],
)
def test_a_recipe_by_the_size_of_the_data_set(clips, seconds, multi, name):
    recommended, changes = recommended_recipe(clips, seconds, multi)
    recipe = load_recipe(recommended, changes)
    assert recipe.name == name and recipe.task == ("multi" if multi else "single")


@pytest.mark.parametrize("name", AST)
def test_ast(name):
    r = load_recipe(name)
    found = (r.rate, r.epochs, r.batch_size, r.mixup, r.freq_mask, r.time_mask, r.frames, r.mean, r.std, r.loss)
    assert found == AST[name]
    assert (r.optimizer, r.betas, r.weight_decay, r.backbone) == ("adam", (0.95, 0.999), 5e-7, "teacher")
    assert (r.mixup_of, r.mixup_beta, r.layer_decay) == ("waveform", 10.0, 1.0)
    assert (r.noise, r.shift_frames) == ((True, 10) if name == "ast-speech-commands" else (False, 0))
    assert (r.balanced, r.average_from) == {
        "ast-audioset-20k": (False, 6),
        "ast-audioset-2m": (True, 1),
    }.get(name, (False, None))


@pytest.mark.parametrize("name", ASDA)
def test_asda(name):
    r = load_recipe(name)
    found = (r.rate, r.batch_size, r.steps, r.warmup, r.frames, r.mixup_beta, r.mixup, r.masked, r.loss)
    assert found == ASDA[name]
    assert (r.optimizer, r.betas, r.weight_decay, r.backbone) == ("adamw", (0.9, 0.95), 0.05, "student")
    assert (r.min_rate, r.layer_decay, r.drop_path, r.roll, r.head) == (1e-6, 0.65, 0.1, True, "class")
    assert r.smoothing == (0.1 if name == "asda-esc50" else 0.0)
    assert (r.balanced, r.epoch_clips) == ((True, 200_000) if name == "asda-audioset-2m" else (False, None))


def test_superb():
    r = load_recipe("superb-voxceleb1")
    assert (r.frozen, r.head, r.projector, r.rate, r.batch_size, r.accumulate) == (True, "layers", 256, 1e-4, 32, 4)
    assert (r.clip, r.steps, r.crop, r.schedule) == (1.0, 200_000, "random", "constant")
    assert r.frames == 1 + (128_000 - 400) // 160
    assert not load_recipe("voxceleb1-finetune").frozen


def test_step_decay_and_warmup():
    """AST's: halved every 5 epochs from epoch 10, in a warm-up of 1,000 steps."""
    r = load_recipe("ast-audioset-20k")
    clips, epoch = 22_000, -(-22_000 // 12)
    assert r.steps_per_epoch(clips) == epoch and r.total_steps(clips) == 25 * epoch
    assert [r.rate_at(step, clips) for step in (0, 500, 1000)] == pytest.approx([0, 2.5e-5, 5e-5])
    halvings = {0: 0, 9: 0, 10: 1, 14: 1, 15: 2, 20: 3, 24: 3}
    rates = {e: r.rate_at(e * epoch + epoch - 1, clips) for e in halvings}
    assert rates == pytest.approx({e: 5e-5 * 0.5**times for e, times in halvings.items()})
    esc = load_recipe("ast-esc50")
    assert esc.rate_at(7 * 34, 1600) == pytest.approx(1e-4 * 0.85**3)


def test_rates_of_asda_are_those_of_its_code():
    tensors, _ = golden("asda_schedules")
    names = {"as2m": "asda-audioset-2m", "as20k": "asda-audioset-20k", "esc50": "asda-esc50"}
    for short, name in {**names, "spcv2": "asda-speech-commands"}.items():
        recipe = load_recipe(name)
        ours = [recipe.rate_at(step, 10_000) for step in tensors[f"{short}.step"].tolist()]
        torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), tensors[f"{short}.lr"], rtol=1e-9, atol=0)


def test_layers_of_asda_learn_at_the_rates_of_its_code():
    tensors, _ = golden("asda_schedules")
    recipe = load_recipe("asda-audioset-20k", ["frames=64"])
    cfg = load_config("smoke", ["model.depth=12", "model.width=16", "model.heads=2"])
    network = build_classifier(Encoder.random(cfg), recipe, 527, seed=0)
    groups = network.param_groups(recipe.layer_decay)
    scale_of = {id(p): group["scale"] for group in groups for p in group["params"]}
    assert scale_of.keys() == {id(p) for p in network.parameters()}
    outside = [p for name, p in network.named_parameters() if ".blocks." not in name]
    assert {scale_of[id(p)] for p in outside} == {1.0}
    for block in (0, 5, 11):
        scale = {scale_of[id(p)] for p in network.backbone.blocks[block].parameters()}
        assert len(scale) == 1
        ours = [recipe.rate_at(step, 10_000, *scale) for step in (0, 100, 400, 1000, 4000, 20000, 59999)]
        wanted = tensors[f"as20k_block{block}.lr"]
        torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), wanted, rtol=1e-9, atol=0)


def test_overrides_as_a_dictionary():
    given = load_recipe("ast-esc50", {"rate": 2e-4, "name": "mine"})
    assert given == load_recipe("ast-esc50", "rate=2e-4 name=mine") and given.rate == 2e-4
    with pytest.raises(InputError, match="raet: unknown key; did you mean rate"):
        load_recipe("ast-esc50", {"raet": 1})


def test_overrides_files_and_bases(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: micro\nrate: 1e-3\nfreq_mask: 5\n")
    mine = load_recipe(path, "epochs=3 'betas=[0.5, 0.9]'")
    micro = load_recipe("micro")
    assert mine == micro.model_copy(
        update={"name": "mine", "rate": 1e-3, "freq_mask": 5, "epochs": 3, "betas": (0.5, 0.9)}
    )
    assert load_recipe(mine, ["rate=2e-3"]).rate == 2e-3
    assert Recipe.model_validate(yaml.safe_load(yaml.safe_dump(mine.to_dict()))) == mine


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mixupp=0.5"], "recipe ast-esc50: mixupp: unknown key; did you mean mixup\\?"),
        (["rate=fast"], "rate: 'fast' is not valid: .*learning rate"),
        (["rate"], "'rate': expected key=value"),
        (["task=multi"], "loss: ce is for one class a clip"),
        (["loss=bce", "smoothing=0.1"], "smoothing: there is none with loss=bce"),
        (["statistics=recipe", "mean=null"], "statistics: recipe needs mean and std"),
        (["accumulate=5"], "accumulate: 5 does not divide batch_size 48"),
        (["warmup=soon"], "warmup: 'soon' is not valid: .*a duration is"),
    ],
)
def test_wrong_keys(overrides, message):
    with pytest.raises(InputError, match=message):
        load_recipe("ast-esc50", overrides)


def test_unknown_recipe():
    with pytest.raises(InputError, match="'ast-esc5': no such recipe or file; did you mean ast-esc50"):
        load_recipe("ast-esc5")


@pytest.mark.parametrize(
    "arguments",
    [["list", "--json"], ["list"], ["show", "micro", "-s", "rate=0.5"], ["show", "micro", "--json"]],
    ids=str,
)
def test_recipes_from_the_shell(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["asit-lab", "recipes", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr().out
    assert not end.value.code
    if arguments[0] == "list":
        names = {row["recipe"] for row in json.loads(shown)} if "--json" in arguments else shown.split()
        assert set(recipe_names()) <= set(names)
    elif "--json" in arguments:
        assert json.loads(shown) == load_recipe("micro").to_dict()
    else:
        assert Recipe.model_validate(yaml.safe_load(shown)) == load_recipe("micro", ["rate=0.5"])
        comments = " ".join(" ".join(line[2:] for line in shown.splitlines() if line.startswith("# ")).split())
        assert all(" ".join(field.description.split()) in comments for field in Recipe.model_fields.values())
