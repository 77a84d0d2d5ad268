"""What an encoder gives beyond ASiT: both maps of differential attention, prediction errors, late class tokens."""

import numpy as np
import pytest
import torch

from asit_lab import Encoder, InputError, load_config, load_encoder
from asit_lab.data.sources.synth import render_clip
from asit_lab.encoder import open_encoder
from asit_lab.encoder.prediction import covering_masks, window_errors
from asit_lab.objectives import asda, build_objective
from asit_lab.objectives.losses import frame_loss
from asit_lab.runs.snapshot import save_snapshot

RATE = 16000
TINY = [
    "data.crop_seconds=1.0",  # 6 x 4 patches
    "model={width: 48, depth: 3, heads: 3, mlp_ratio: 3.5, attention: asda, norm: post, positions: fixed}",
    "asda.decoder_width=32",
    "asda.decoder_layers=2",
]


def made(*overrides: str) -> Encoder:
    """An ASDA encoder whose teacher is not its student."""
    cfg = load_config("micro-asda", [*TINY, *overrides])
    one, two = Encoder.random(cfg, 1), Encoder.random(cfg, 2)
    return Encoder(cfg, two.backbone, one.student, one.decoder, name="tiny")


@pytest.fixture(scope="module")
def enc():
    return made()


@pytest.fixture(scope="module")
def waves():
    """Two clips of 5 s: float32 [2, 80000]."""
    return torch.from_numpy(np.stack([render_clip(0, index, RATE) for index in (1, 2)]))


# --- Attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asda", "learned"])
def test_both_softmaxes_and_their_factor(waves, kind):
    enc = Encoder.random(load_config("smoke", [f"model.attention={kind}"]), 0)
    maps = enc.attention(waves, RATE, layers=(-1, 0))
    assert maps.map.shape == maps.first.shape == maps.second.shape == (2, 2, 2, 125, 125)
    for softmax in (maps.first, maps.second):
        torch.testing.assert_close(softmax.sum(-1), torch.ones(softmax.shape[:-1]))
    torch.testing.assert_close(maps.map, maps.first - maps.lam * maps.second)
    assert maps.lam.shape == (2, 1, 1, 1, 1) and not torch.allclose(maps.first, maps.second)
    assert torch.equal(enc.attention(waves, RATE, layers=(0,)).second[0], maps.second[1])


@pytest.mark.parametrize("overrides", [["model.norm=post"], ["model.class_token_at=1"], ["model.positions=fixed"]])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0])
def test_other_architectures_at_any_length(waves, overrides, seconds):
    enc = Encoder.random(load_config("smoke", overrides), 0)
    wave = waves[:, : round(seconds * RATE)]
    tokens = enc.tokens(wave, RATE)
    torch.testing.assert_close(enc.embed(wave, RATE), tokens.flatten(1, 2).mean(1))
    assert enc.embed(wave, RATE, pool="class").shape == (2, 48) and torch.isfinite(tokens).all()
    for layer in (0, 1):
        rows = enc.attention(wave, RATE, (layer,)).map[0, :, :, 1:]  # of the patches
        torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))


def test_layers_before_the_class_token_joins(waves):
    """Patches look at no class token there, whose own row is not a number; alone and beside later layers."""
    enc = Encoder.random(load_config("smoke", ["model.class_token_at=1", "model.attention=asda"]), 0)
    maps = enc.attention(waves, RATE, (0, 1))
    for weights in (maps.map, maps.first, maps.second):
        assert weights.shape == (2, 2, 2, 125, 125)
        assert (weights[0, :, :, 1:, 0] == 0).all() and weights[0, :, :, 0].isnan().all()
        assert (weights[1, :, :, 1:, 0] != 0).all() and not weights[1].isnan().any()
    assert enc.class_attention(waves, RATE, layer=0).isnan().all()


# --- Prediction error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "time"), {0.05: 1, 1.0: 6, 1.7: 10, 5.0: 31}.items())
def test_every_patch_has_an_error_at_any_length(enc, waves, seconds, time):
    error = enc.prediction_error(waves[:, : round(seconds * RATE)], RATE)
    assert error.shape == (2, time, 4)
    assert torch.isfinite(error).all() and (error > 0).all()


def test_the_error_under_a_mask_is_the_frame_loss(waves):
    """With the very mask (and no noise), the mean over hidden patches is what training would call the loss."""
    enc = made("asda.noise=0.0")
    wave = waves[:, :RATE]
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.7
    error = enc.prediction_error(wave, RATE, mask=mask)
    assert torch.equal(error.isnan(), ~mask.expand(2, -1, -1))  # what is not hidden has none
    clean = enc.log_mel(wave, RATE)
    target, _ = asda.targets(enc.backbone, clean, enc.config.asda)
    visible = (~mask.flatten()).nonzero().T.expand(2, -1)
    with torch.no_grad():
        _, predicted = asda.predict_targets(enc.student, enc.decoder, clean, visible, torch.zeros(2, 24, 48))
    wanted = frame_loss(predicted, target.patches, mask.flatten().expand(2, -1))
    torch.testing.assert_close(error.nanmean(), wanted)
    assert torch.equal(enc.prediction_error(wave, RATE, mask=mask.numpy()).isnan(), error.isnan())


def test_masks_come_from_the_seed_alone(enc, waves):
    wave = waves[:, :RATE]
    one, again, other = (enc.prediction_error(wave, RATE, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.allclose(one, other)
    torch.testing.assert_close(enc.prediction_error(wave[:1], RATE, seed=3), one[:1], rtol=1e-4, atol=1e-4)


def test_one_mask_a_round_is_enough_rounds(waves):
    """With a single mask a clip, masks are drawn until each patch was hidden."""
    enc = made("asda.clones=1", "asda.visible=0.5")
    visible, hidden = covering_masks(enc.config, (6, 4), torch.tensor([1, 2]))
    rounds = len(hidden) // 2
    assert rounds > 1 and visible.shape == (2 * rounds, 12)
    by_clip = hidden.unflatten(0, (2, rounds))
    assert by_clip.any(1).all() and not by_clip[:, :-1].any(1).all()  # and none more than that
    assert torch.isfinite(enc.prediction_error(waves, RATE)).all()


def test_the_last_window_reaches_back(waves):
    """10 patches of time with windows of 6: the second window is of patches 4 to 9, and those two share 4 and 5."""
    enc = made("asda.noise=0.0")
    clean = enc.log_mel(waves[:, : round(1.7 * RATE)], RATE)
    everything = torch.ones(10, 4, dtype=torch.bool)  # all hidden: nothing is drawn
    error = enc.prediction_error(waves[:, : round(1.7 * RATE)], RATE, mask=everything)
    keys = torch.zeros(2, dtype=torch.int64)
    parts = (enc.backbone, enc.student, enc.decoder, enc.config)
    windows = (clean[:, 16 * at : 16 * at + 96] for at in (0, 4))
    with torch.no_grad():
        first, last = (window_errors(*parts, window, everything[:6], keys)[0] for window in windows)
    torch.testing.assert_close(error[:, :4], first[:, :4])
    torch.testing.assert_close(error[:, 4:6], (first[:, 4:] + last[:, :2]) / 2)
    torch.testing.assert_close(error[:, 6:], last[:, 2:])


def test_who_has_no_prediction_error(enc, waves, smoke_run):
    asit = load_encoder(smoke_run.dir)
    with pytest.raises(InputError, match="smoke, step 6: has no decoder that predicts latent .*; reconstruct shows"):
        asit.prediction_error(waves, RATE)
    for overrides in ([], ["asda.weights={utterance: 1.0}"]):  # none published; none trained
        teacher = Encoder(enc.config, enc.backbone) if not overrides else Encoder.random(made(*overrides).config)
        with pytest.raises(InputError, match="there is no prediction error$"):
            teacher.prediction_error(waves, RATE)
    with pytest.raises(InputError, match="tiny: its decoder predicts latent targets .* prediction_error"):
        enc.reconstruct(waves, RATE)
    assert asit.reconstructs and not enc.reconstructs
    with pytest.raises(InputError, match=r"mask: shape \(5, 4\), but there are \(6, 4\) patches"):
        enc.prediction_error(waves[:, :RATE], RATE, mask=torch.ones(5, 4))


# --- Loading --------------------------------------------------------------------------------------------------------


def test_a_snapshot_of_asda(tmp_path, waves):
    cfg = load_config("micro-asda", TINY)
    objective = build_objective(cfg, clips=10)
    with torch.no_grad():
        objective.teacher.backbone.cls_token.add_(1.0)
    path = tmp_path / "step-1.safetensors"
    save_snapshot(path, objective.student, objective.teacher, cfg, 1)
    loaded = load_encoder(path)
    assert loaded.config == cfg and loaded.name == "micro-asda, step 1"
    made_here = Encoder(cfg, objective.teacher.backbone, objective.student.backbone, objective.student.decoder)
    assert torch.equal(loaded.embed(waves, RATE, "class"), made_here.embed(waves, RATE, "class"))
    assert torch.equal(loaded.prediction_error(waves, RATE), made_here.prediction_error(waves, RATE))


def test_a_run_a_preset_or_neither(smoke_run, waves):
    assert open_encoder(smoke_run.dir).name == "smoke, step 6"
    untrained = open_encoder("smoke", seed=3)
    assert untrained.name == "smoke, untrained"
    wanted = Encoder.random(load_config("smoke"), 3)
    assert torch.equal(untrained.embed(waves, RATE), wanted.embed(waves, RATE))
    with pytest.raises(InputError, match=r"runs/nothing: no such run, snapshot or preset. Presets: .*micro"):
        open_encoder("runs/nothing")
