"""Padding after short clips: neither attended to nor in any loss, unless a configuration says otherwise."""

import dataclasses
import math

import pytest
import torch
from asit_case import CLIPS, batch_of, config, gradients

from asit_lab import registry
from asit_lab.config import load_config, preset_names
from asit_lab.data import load_manifest, make_loader
from asit_lab.data.crops import padding_note
from asit_lab.nn import ViT, build_attention
from asit_lab.objectives import ASDA, ASiT
from asit_lab.objectives.losses import contrastive_loss, latent_targets

ASDA_SETTINGS = ["objective.name=asda", "asda.visible=0.5", "asda.block=1", "asda.clones=2", "asda.decoder_width=16"]
ASDA_SETTINGS += ["asda.decoder_layers=1", "asda.decoder_groups=4", "model.attention=asda", "model.norm=post"]


def loud_padding(objective):
    """The objective's log-mel with noise in each patch that is padding alone; one that begins with audio is seen."""
    original, patch = objective.normalised_log_mel, objective.cfg.model.patch[0]

    def noisy(waves, lengths):
        log_mel = original(waves, lengths)
        audio = objective.audio_frames(lengths).unflatten(1, (-1, patch)).any(2)  # [n, T] -> [n, time]
        audio = audio.repeat_interleave(patch, dim=1)[..., None]
        return torch.where(audio, log_mel, 3 * torch.randn(log_mel.shape, generator=torch.Generator().manual_seed(1)))

    objective.normalised_log_mel = noisy


def step(objective) -> tuple[dict[str, float], torch.Tensor]:
    losses = objective(batch_of(), 0)
    losses.total.backward()
    flat = torch.cat([gradient.flatten() for gradient in gradients(objective).values()])
    return {name: loss.item() for name, loss in losses.parts.items()}, flat


@pytest.mark.parametrize(
    "settings",
    [
        ["mask.kinds={zeros: 1}"],
        ["mask.kinds={zeros: 1}", "objective.reconstruct=all", "objective.local_tokens=all"],
        ["mask.kinds={zeros: 1}", "objective.global_kind=contrastive", "objective.global_token=mean"],
        ["mask.kinds={zeros: 1}", "model.class_token_at=1", "model.attention=learned"],
    ],
)
def test_what_is_in_the_padding_of_asit_does_not_matter(settings):
    plain, loud = (ASiT(config(*settings), CLIPS) for _ in range(2))
    loud_padding(loud)
    (parts, slopes), (loud_parts, loud_slopes) = step(plain), step(loud)
    assert parts == pytest.approx(loud_parts, rel=1e-5)
    torch.testing.assert_close(slopes, loud_slopes, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("attention", ["asda", "softmax"])
def test_what_is_in_the_padding_of_asda_reaches_the_frame_loss_by_the_decoder_s_noise_alone(attention):
    plain, loud = (ASDA(config(*ASDA_SETTINGS, f"model.attention={attention}"), CLIPS) for _ in range(2))
    loud_padding(loud)
    batch = batch_of()
    for objective in (plain, loud):  # what the teacher makes of the audio, and what the student's class token sees
        audio = objective.audio_tokens(objective.audio_frames(batch.lengths[:, 0]))
        objective.tokens = objective.teacher.backbone(objective.log_mel(batch), audio=audio)[:, 1:][audio]
    torch.testing.assert_close(plain.tokens, loud.tokens)
    assert step(plain)[0]["utterance"] == pytest.approx(step(loud)[0]["utterance"], rel=1e-4)


def test_learned_padding_does_matter():
    plain, loud = (ASiT(config("data.padding=learn", "mask.kinds={zeros: 1}"), CLIPS) for _ in range(2))
    assert plain.audio_frames(batch_of().lengths.flatten()) is None
    loud.cfg = loud.cfg.with_overrides(["data.padding=ignore"])  # to know where it is
    frames = loud.audio_frames(batch_of().lengths.T.flatten())
    loud.cfg = plain.cfg
    original = loud.normalised_log_mel
    loud.normalised_log_mel = lambda *given: torch.where(frames[..., None], original(*given), 2.0)
    assert step(plain)[0] != pytest.approx(step(loud)[0], rel=1e-3)


def test_the_logged_l1_is_of_audio_alone():
    objective = ASiT(config("objective.weights={reconstruction: 1}", "objective.reconstruct=all"), CLIPS)
    batch = batch_of()
    clean = objective.log_mel(batch).flatten(0, 1)
    corrupted, _ = objective.corrupt(clean.unflatten(0, (2, -1)), batch.position, 0)
    frames = objective.audio_frames(batch.lengths.T.flatten())
    tokens = objective.student.backbone(corrupted.flatten(0, 1), audio=objective.audio_tokens(frames))
    error = (objective.student.decoder(tokens[:, 1:], objective.student.backbone.grid) - clean).abs()
    assert 0.7 < frames.float().mean() < 0.9
    assert objective(batch, 0).parts["reconstruction"].item() == pytest.approx(error[frames].mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", list(registry.BUILT_IN["attention"]))
@pytest.mark.parametrize("path", ["explicit", "fused", "blocks"])
def test_attention_without_some_tokens(kind, path):
    """As if they were not there."""
    torch.manual_seed(0)
    attention = build_attention(kind, 24, 3, path)
    x, audio = torch.randn(2, 9, 24), torch.ones(2, 9, dtype=torch.bool)
    audio[:, 6:] = False
    torch.testing.assert_close(attention(x, audio=audio)[0][:, :6], attention(x[:, :6])[0])
    assert attention(x, audio=audio, maps=True)[1].map[..., 6:].abs().max() == 0


def test_rows_without_any_audio_attend_to_all():
    cfg = config("model.class_token_at=1")
    backbone, x = ViT(cfg.model, cfg.grid), torch.randn(2, cfg.input_frames, 32)
    audio = torch.zeros(2, math.prod(cfg.grid), dtype=torch.bool)
    tokens = backbone(x, audio=audio)
    assert tokens.isfinite().all()
    torch.testing.assert_close(tokens, backbone(x))


def test_targets_are_normalised_over_audio():
    torch.manual_seed(0)
    layers, audio = [torch.randn(2, 7, 5), torch.randn(2, 8, 5)], torch.ones(2, 8, dtype=torch.bool)
    torch.testing.assert_close(latent_targets(layers, audio), latent_targets(layers))
    audio[:, 6:] = False
    changed = [layer.clone() for layer in layers]
    for layer in changed:
        layer[:, -2:] *= 100.0
    torch.testing.assert_close(latent_targets(changed, audio)[:, :6], latent_targets(layers, audio)[:, :6])


def test_presets_of_released_code_learn_from_padding():
    learning = {name for name in preset_names() if load_config(name).data.padding == "learn"}
    assert learning == {"asda-vit-b", "asit-official-vit-s", "asit-official-vit-b"}


def test_much_padding_is_noted():
    manifest = load_manifest("synth:8")
    seconds = float(manifest.table["seconds"].mean())
    assert padding_note(load_config("smoke", [f"data.crop_seconds={seconds}"]), manifest) is None
    note = padding_note(load_config("smoke", [f"data.crop_seconds={2.5 * seconds}"]), manifest)
    assert note.startswith("60% of the crops is padding, which is ignored: crops have")
    learned = load_config("smoke", [f"data.crop_seconds={2.5 * seconds}", "data.padding=learn"])
    assert "learned from like audio" in padding_note(learned, manifest)


# --- negatives of the contrastive loss ------------------------------------------------------------------------------


def test_clips_of_one_recording_are_no_negatives():
    torch.manual_seed(0)
    student, teacher = (torch.nn.functional.normalize(torch.randn(2, 4, 6), dim=-1) for _ in range(2))
    wanted = []
    for s, t in ((0, 1), (1, 0)):
        for clip in range(4):
            products = student[s, clip] @ teacher[t].T / 0.2
            others = [j for j in range(4) if j == clip or {j, clip} != {1, 3}]  # 1 and 3 are of one recording
            wanted.append(products[others].logsumexp(0) - products[clip])
    loss = contrastive_loss(student, teacher, 0.2, torch.tensor([5, 7, 6, 7]))
    torch.testing.assert_close(loss, torch.stack(wanted).mean())
    assert contrastive_loss(student, teacher, 0.2, torch.zeros(4, dtype=torch.int64)) == 0.0


def test_a_batch_larger_than_the_data_set_has_copies_and_knows_it():
    cfg = load_config("smoke", ["data.source=synth:5", "train.batch_size=8", "objective.global_kind=contrastive"])
    manifest = load_manifest("synth:5")
    batch = next(iter(make_loader(cfg, manifest, 2, stop=1)))
    assert len(batch.recording.unique()) == 5 and len(batch.recording) == 8
    objective = ASiT(cfg, 5)
    loss = objective(batch, 0).parts["global"].item()
    unaware = objective(dataclasses.replace(batch, recording=torch.arange(8)), 0).parts["global"].item()
    assert loss < unaware  # copies would be the hardest of negatives
    objective(batch, 0)
    assert objective.health()["chance_global"] < math.log(8)


def test_segments_of_a_recording_are_of_one_recording():
    manifest = load_manifest("synth:4")
    manifest.table["group"] = ["a", "b", "a", "c"]
    batch = next(iter(make_loader(load_config("smoke", ["train.batch_size=4"]), manifest, 2, stop=1)))
    by_row = dict(zip(batch.index.tolist(), batch.recording.tolist(), strict=True))
    assert by_row[0] == by_row[2] and len(set(by_row.values())) == 3
