"""What an encoder gives for audio of any length, rate and container, checked against its own parts."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from asit_lab import Encoder, InputError, load_config, load_encoder, open_encoder, zoo
from asit_lab.audio import SHORTEST
from asit_lab.data.sources.synth import render_clip
from asit_lab.runs.snapshot import read_snapshot, section

RATE, WIDTH, PATCH = 16000, 48, 16


@pytest.fixture(scope="module")
def enc(smoke_run):
    """The smoke preset's encoder: 16 kHz, crops of 1 s, 96 frames of 64 bands, 6 x 4 patches."""
    return load_encoder(smoke_run.dir)


@pytest.fixture(scope="module")
def waves():
    """Two clips of 5 s: float32 [2, 80000]."""
    return torch.from_numpy(np.stack([render_clip(0, index, RATE) for index in (1, 2)]))


# --- Shapes ---------------------------------------------------------------------------------------------------------

# seconds -> patches in time: whole 10 ms frames of 25 ms, cut to whole patches of 16; at least one patch.
LENGTHS = {0.025: 1, 0.1: 1, 0.35: 2, 0.96: 5, 1.0: 6, 1.01: 6, 2.5: 15, 5.0: 31}


@pytest.mark.parametrize(("seconds", "time"), LENGTHS.items())
def test_shapes_for_every_length(enc, waves, seconds, time):
    wave = waves[:, : round(seconds * RATE)]
    assert enc.log_mel(wave, RATE).shape == (2, time * PATCH, 64)
    assert enc.embed(wave, RATE).shape == enc.embed(wave, RATE, pool="class").shape == (2, WIDTH)
    assert enc.embed(wave, RATE, pool="mean+std").shape == (2, 2 * WIDTH)
    assert enc.tokens(wave, RATE).shape == (2, time, 4, WIDTH)
    assert enc.attention(wave, RATE).map.shape == (1, 2, 2, 1 + 4 * time, 1 + 4 * time)
    assert enc.class_attention(wave, RATE).shape == (2, 2, time, 4)
    result = enc.reconstruct(wave, RATE)
    for image in (result.clean, result.corrupted, result.reconstructed, result.mask):
        assert image.shape == (2, time * PATCH, 64)
    assert result.mask.dtype == torch.bool
    assert all(torch.isfinite(x).all() for x in (enc.tokens(wave, RATE), result.reconstructed))


def test_shorter_than_a_frame_is_an_error(enc, waves):
    with pytest.raises(InputError, match="48 samples are shorter than one frame of 400"):
        enc.embed(waves[:, :48], RATE)  # 3 ms
    enc.embed(waves[:, : int(SHORTEST * RATE)], RATE)


def test_containers_give_the_same(enc, waves):
    wanted = enc.embed(waves[:1, :20000], RATE)
    numpy = waves[0, :20000].numpy()
    for wave in (waves[0, :20000], numpy, numpy[None], numpy.astype(np.float64), numpy.tolist(), [numpy.tolist()]):
        torch.testing.assert_close(enc.embed(wave, RATE), wanted)
    locked = numpy.copy()
    locked.flags.writeable = False
    for wave in (numpy[::-1].copy()[::-1], numpy.repeat(2)[::2], numpy.astype(">f4"), locked):
        torch.testing.assert_close(enc.embed(wave, RATE), wanted)
    assert torch.equal(enc.embed(torch.from_numpy(numpy).requires_grad_(), RATE), wanted)


def test_clips_do_not_mix(enc, waves):
    for wave in (waves[:, :RATE], waves):
        one_by_one = torch.cat([enc.tokens(clip, RATE) for clip in wave])
        torch.testing.assert_close(enc.tokens(wave, RATE), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [44100, 8000, 48000])
def test_other_sample_rates(enc, rate):
    """The same second at another rate gives nearly the same log-mel (where both have sound) and embedding."""
    time = np.arange(2 * rate) / rate
    wave = (0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 1500 * time)).astype(np.float32)
    there = np.arange(2 * RATE) / RATE
    here = (0.3 * np.sin(2 * np.pi * 440 * there) + 0.2 * np.sin(2 * np.pi * 1500 * there)).astype(np.float32)
    a, b = enc.log_mel(wave, rate), enc.log_mel(here, RATE)
    assert a.shape == b.shape == (1, 192, 64)
    loud = enc.front_end.denormalise(b)[:, 10:-10] > 0
    assert loud.sum() > 1000
    assert (a - b)[:, 10:-10][loud].abs().max() < 0.02
    wrong = enc.log_mel(wave, RATE)  # what it would be if the rate were not looked at
    assert wrong.shape != a.shape


# --- What the numbers are -------------------------------------------------------------------------------------------


def test_pools_are_of_the_tokens(enc, waves):
    for wave in (waves[:, :RATE], waves):
        tokens = enc.tokens(wave, RATE).flatten(1, 2)
        torch.testing.assert_close(enc.embed(wave, RATE), tokens.mean(1))
        std = (tokens - tokens.mean(1, keepdim=True)).square().mean(1).sqrt()
        torch.testing.assert_close(enc.embed(wave, RATE, "mean+std"), torch.cat([tokens.mean(1), std], 1))


def test_class_token(enc, waves):
    wave = waves[:, :RATE]
    torch.testing.assert_close(enc.embed(wave, RATE, "class"), enc.backbone(enc.log_mel(wave, RATE))[:, 0])
    log_mel = enc.log_mel(waves, RATE)  # 31 patches of time, so that eight windows of six share two at least
    starts = [0, 4, 7, 11, 14, 18, 21, 25]
    by_window = torch.stack([enc.backbone(log_mel[:, 16 * at : 16 * at + 96])[:, 0] for at in starts])
    torch.testing.assert_close(enc.embed(waves, RATE, "class"), by_window.mean(0))


def test_first_window_is_the_clip_cut_to_it(enc, waves):
    whole, first = enc.tokens(waves, RATE), enc.tokens(waves[:, :RATE], RATE)
    alone = slice(0, 4)  # the second window starts at the fourth patch
    torch.testing.assert_close(whole[:, alone], first[:, alone], rtol=1e-3, atol=1e-3)  # same frames but for rounding
    assert (whole[:, 4:6] - first[:, 4:6]).abs().max() > 0.05


def test_attention_is_what_mixes_the_values(enc, waves):
    """Rows sum to one; map @ v through the projection is what the hooked block's attention put out."""
    seen = []
    block = enc.backbone.blocks[1].attn
    handle = block.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output[0])))
    enc.embed(waves[:, :RATE], RATE)
    handle.remove()
    x, out = seen[0]
    for layers in ((-1,), (1,)):
        attention = enc.attention(waves[:, :RATE], RATE, layers)
        assert attention.first is attention.second is attention.lam is None
        weights = attention.map[0]  # [B, H, N, N]
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 25))
        values = block.qkv(x)[..., 2 * WIDTH :].unflatten(-1, (2, WIDTH // 2)).transpose(1, 2)  # [B, H, N, d]
        torch.testing.assert_close(block.proj((weights @ values).transpose(1, 2).flatten(2)), out, rtol=1e-4, atol=1e-5)


def test_layers_come_in_the_order_asked_for(enc, waves):
    wave = waves[:, :RATE]
    first, last = enc.attention(wave, RATE, (0,)).map[0], enc.attention(wave, RATE, (1,)).map[0]
    assert not torch.allclose(first, last)
    both = enc.attention(wave, RATE, (-1, 0, 1)).map
    assert torch.equal(both[0], both[2])
    # But for rounding: a layer that is not asked for makes no map, and so takes a faster path.
    torch.testing.assert_close(both[1:], torch.stack([first, last]), rtol=1e-5, atol=1e-7)


def test_class_attention_is_the_class_token_s_row(enc, waves):
    rows = enc.attention(waves, RATE).map[0][:, :, 0]
    shown = enc.class_attention(waves, RATE)
    assert torch.equal(shown[:, :, 2, 3], rows[:, :, 1 + 2 * 4 + 3])  # time-major, mel fastest
    torch.testing.assert_close(shown.sum((2, 3)), 1 - rows[:, :, 0])


def test_reconstruction_with_a_mask_of_one_s_own(enc, waves):
    clean = enc.log_mel(waves, RATE)
    mask = torch.zeros(clean.shape[1:], dtype=torch.bool)
    mask[20:60, 10:30] = True
    for given in (mask, mask.numpy(), mask.expand(2, -1, -1), mask.int()):
        result = enc.reconstruct(waves, RATE, mask=given)
        assert torch.equal(result.clean, clean) and torch.equal(result.mask, mask.expand(2, -1, -1))
        assert (result.corrupted[:, mask] == 0).all()
        assert torch.equal(result.corrupted[:, ~mask], clean[:, ~mask])
    window = result.corrupted[:, :96]  # the student sees what is corrupted, window by window
    rebuilt = enc.decoder(enc.student(window)[:, 1:], (6, 4))
    torch.testing.assert_close(result.reconstructed[:, :96], rebuilt)
    # What stands under the mask is not looked at.
    loud = waves.clone()
    loud[:, 400 + 25 * 160 : 400 + 50 * 160] *= 3
    covering = torch.zeros_like(mask)
    covering[20:60] = True
    quiet = enc.reconstruct(waves, RATE, mask=covering).reconstructed
    torch.testing.assert_close(enc.reconstruct(loud, RATE, mask=covering).reconstructed, quiet, rtol=1e-3, atol=1e-3)


def test_a_network_that_is_told_the_mask_gets_it_window_by_window(waves):
    told = Encoder.random(load_config("smoke", ["model.mask_input=true"]))
    mask = torch.zeros(told.log_mel(waves, RATE).shape, dtype=torch.bool)
    mask[:, 20:60, 10:30] = mask[:, 100:130, 5:40] = True
    result = told.reconstruct(waves, RATE, mask=mask)
    for window in (slice(0, 96), slice(96, 192)):
        tokens = told.student(result.corrupted[:, window], mask=mask[:, window])
        rebuilt = told.decoder(tokens[:, 1:], (tokens.shape[1] // 4, 4))
        torch.testing.assert_close(result.reconstructed[:, window], rebuilt)
    assert not torch.allclose(told.fill_in(result.corrupted), result.reconstructed, atol=1e-4)


def test_drawn_masks_are_pretraining_s(enc, waves):
    result = enc.reconstruct(waves, RATE, seed=3)
    again, other = enc.reconstruct(waves, RATE, seed=3), enc.reconstruct(waves, RATE, seed=4)
    assert torch.equal(result.mask, again.mask) and not torch.equal(result.mask, other.mask)
    assert not torch.equal(result.mask[0], result.mask[1])
    shares = [window.float().mean().item() for window in result.mask[:, :480].unflatten(1, (5, 96)).flatten(0, 1)]
    assert all(0.7 <= share < 0.8 for share in shares), shares  # every window to 70 %, and one block over it


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (torch.full((1, RATE), float("nan")), RATE, "NaN or infinite"),
        (torch.full((1, RATE), float("inf")), RATE, "NaN or infinite"),
        (torch.zeros(1, 1, RATE), RATE, r"expected \[batch, samples\] or \[samples\].* \(1, 1, 16000\)"),
        (torch.zeros(()), RATE, "expected"),
        (torch.zeros(0), RATE, r"audio in it, got \(1, 0\)"),
        (torch.zeros(0, RATE), 44100, r"audio in it, got \(0, 16000\)"),
        (torch.zeros(2, 0), 44100, "audio in it"),
        (torch.zeros(RATE, dtype=torch.int16), RATE, r"floating-point samples in \[-1, 1\], got torch.int16"),
        (torch.zeros(RATE, 2), 44100, r"\(16000, 2\) looks like \[samples, channels\].* wave.mean\(1\)"),
        (torch.zeros(RATE), 0, "sample_rate: 0 is not"),
        (torch.zeros(RATE), -8000, "sample_rate: -8000 is not"),
    ],
)
def test_waves_that_are_none(enc, wave, rate, message):
    for method in (enc.embed, enc.tokens, enc.attention, enc.reconstruct):
        with pytest.raises(InputError, match=message):
            method(wave, rate)


def test_other_wrong_arguments(enc, waves):
    wave = waves[:, :RATE]
    with pytest.raises(InputError, match="pool: 'max' is not one of mean, class, mean\\+std"):
        enc.embed(wave, RATE, pool="max")
    for layer in ("last", 1.5, 9):
        with pytest.raises(InputError, match="not among the model's 2 blocks"):
            enc.embed(wave, RATE, layer=layer)
    assert torch.equal(enc.attention(wave, RATE, -1).map, enc.attention(wave, RATE, (-1,)).map)
    for layers in ((2,), (-3,), (0, 7), (), "last", 9):
        with pytest.raises(InputError, match="not among the model's 2 blocks"):
            enc.attention(wave, RATE, layers)
    for shape in ((96, 63), (2, 80, 64), (3, 96, 64), (64,)):
        with pytest.raises(InputError, match=r"mask: shape .* log-mel has \(2, 96, 64\)"):
            enc.reconstruct(wave, RATE, mask=torch.zeros(shape, dtype=torch.bool))


def test_without_a_decoder(enc, waves):
    published = Encoder(enc.config, enc.backbone, name="published")
    assert torch.equal(published.embed(waves, RATE), enc.embed(waves, RATE))
    with pytest.raises(InputError, match="published: has no decoder"):
        published.reconstruct(waves, RATE)
    with pytest.raises(InputError, match="published: has no decoder"):
        published.fill_in(enc.log_mel(waves, RATE))


# --- Loading --------------------------------------------------------------------------------------------------------


def test_a_run_is_its_last_snapshot(enc, smoke_run, waves):
    last, first = load_encoder(smoke_run.snapshots[-1]), load_encoder(smoke_run.snapshots[0])
    assert torch.equal(last.embed(waves, RATE), enc.embed(waves, RATE))
    assert not torch.allclose(first.embed(waves, RATE), enc.embed(waves, RATE))
    assert (enc.name, first.name, enc.config) == ("smoke, step 6", "smoke, step 3", smoke_run.config)
    for source in (str(smoke_run.dir), smoke_run):
        assert torch.equal(load_encoder(source).embed(waves, RATE), enc.embed(waves, RATE))


def test_teacher_embeds_and_student_reconstructs(enc, smoke_run):
    tensors, _, _ = read_snapshot(smoke_run.snapshots[-1])
    for role, module in (
        ("teacher.backbone", enc.backbone),
        ("student.backbone", enc.student),
        ("student.decoder", enc.decoder),
    ):
        assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in section(tensors, role).items())
    assert not torch.equal(enc.backbone.blocks[0].mlp.fc1.weight, enc.student.blocks[0].mlp.fc1.weight)
    assert not enc.training and not any(parameter.requires_grad for parameter in enc.parameters())


def test_random_encoders_depend_on_the_seed_alone(enc, waves):
    cfg = load_config("smoke")
    torch.manual_seed(1)
    one = Encoder.random(cfg, seed=7)
    torch.manual_seed(2)
    again, other = Encoder.random(cfg, seed=7), Encoder.random(cfg, seed=8)
    assert torch.equal(one.embed(waves, RATE), again.embed(waves, RATE))
    assert not torch.allclose(one.embed(waves, RATE), other.embed(waves, RATE))
    assert "seed 7" in one.name
    assert one.reconstruct(waves, RATE).reconstructed.shape == (2, 496, 64)
    start = Encoder.random(cfg, seed=cfg.train.seed)  # what the run began with is not what it ended with
    assert not torch.equal(start.backbone.pos_embed, enc.student.pos_embed)
    assert (start.backbone.pos_embed - enc.student.pos_embed).abs().max() < 0.01


def test_sources_that_are_no_encoder(tmp_path, smoke_run):
    with pytest.raises(InputError, match="nowhere: no such run directory or snapshot"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a run directory"):
        load_encoder(tmp_path)
    (tmp_path / "config.yaml").write_text(smoke_run.config.to_yaml())
    with pytest.raises(InputError, match="the run has no snapshot yet"):
        load_encoder(tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: not a snapshot of asit_lab"):
        load_encoder(tmp_path / "other.safetensors")
    whole = smoke_run.snapshots[-1].read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:5], b"", b"\xff" * 100):
        (tmp_path / "torn.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match=r"torn\.safetensors: not a readable \.safetensors file"):
            load_encoder(tmp_path / "torn.safetensors")


# --- to train through, and other precisions -------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "class", "mean+std"])
def test_calling_it_is_differentiable_and_gives_what_embed_gives(pool):
    enc = Encoder.random(load_config("smoke"), 3)
    wave = (0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))).requires_grad_()
    assert enc(wave, pool).requires_grad  # by the audio; the weights are frozen
    torch.testing.assert_close(enc(wave.detach(), pool), enc.embed(wave.detach(), RATE, pool))
    enc.requires_grad_()
    enc(wave, pool).square().sum().backward()
    assert wave.grad.abs().max() > 0 and torch.isfinite(wave.grad).all()
    assert enc.backbone.patch_embed.proj.weight.grad.abs().max() > 0
    with pytest.raises(InputError, match="pool: 'median' is not one of mean, class"):
        enc(wave, "median")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", ["smoke", "micro-asda"])
def test_half_the_precision_gives_nearly_the_same(dtype, preset):
    small = ["data.crop_seconds=1.0", "model.width=48", "model.depth=2", "model.heads=3"]
    small += ["asda.decoder_width=32", "asda.decoder_layers=2"]
    enc = Encoder.random(load_config(preset, small), 3)
    wave = 0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    before, log_mel, maps = enc.embed(wave, RATE), enc.log_mel(wave, RATE), enc.attention(wave, RATE).map
    enc = enc.half() if dtype == torch.float16 else enc.bfloat16()
    assert enc.backbone.cls_token.dtype == dtype and torch.equal(enc.log_mel(wave, RATE), log_mel)
    assert enc(wave).dtype == dtype
    torch.testing.assert_close(enc.embed(wave, RATE), before, rtol=0, atol=0.05)
    torch.testing.assert_close(enc.attention(wave, RATE).map.float(), maps, rtol=0, atol=0.01)
    assert enc.tokens(wave, RATE).isfinite().all()
    if enc.reconstructs:
        assert enc.reconstruct(wave, RATE).reconstructed.isfinite().all()
    else:
        assert enc.prediction_error(wave, RATE).isfinite().all()


@pytest.mark.parametrize("preset", ["smoke", "micro-asda"])
@pytest.mark.parametrize("part", ["backbone", "student", "decoder"])
def test_one_part_alone_in_half_precision(part, preset):
    small = ["data.crop_seconds=1.0", "model.width=48", "model.depth=2", "model.heads=3"]
    small += ["asda.decoder_width=32", "asda.decoder_layers=2"]
    made = Encoder.random(load_config(preset, small), 3)
    enc = Encoder(made.config, made.backbone, copy.deepcopy(made.backbone), made.decoder)
    wave = 0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    before = enc.embed(wave, RATE)
    getattr(enc, part).half()
    assert enc(wave).dtype == (torch.float16 if part == "backbone" else torch.float32)
    torch.testing.assert_close(enc.embed(wave, RATE), before, rtol=0, atol=0.05)
    if enc.reconstructs:
        assert enc.reconstruct(wave, RATE).reconstructed.isfinite().all()
    else:
        assert enc.prediction_error(wave, RATE).isfinite().all()


def test_the_shipped_encoder_by_name():
    shipped = load_encoder("shipped")
    assert shipped.pretrained and shipped.name == zoo.shipped().name
    assert open_encoder("shipped").name == shipped.name


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(object),
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(">f4"),
        lambda x: np.repeat(x, 2)[::2],
        lambda x: pd.Series(x.tolist(), dtype=object),
        lambda x: torch.tensor(x).bfloat16(),
        lambda x: np.array([x, x[:8000]], dtype=object),
    ],
)
def test_samples_of_any_type_of_numbers(change):
    enc, x = Encoder.random(load_config("smoke")), np.random.default_rng(0).uniform(-1, 1, 16000).astype("float32")
    assert torch.allclose(enc.embed(change(x), 16000)[:1], enc.embed(x, 16000), atol=2e-2)


def test_samples_at_the_level_of_integers_are_warned_of():
    enc = Encoder.random(load_config("smoke"))
    with pytest.warns(UserWarning, match="samples reach ±32767, the level of integers"):
        enc.embed(32767 * np.sin(np.arange(16000) / 20), 16000)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e, x: e.embed(x, 1), "sample_rate: 1 is not a sample rate of sound"),
        (lambda e, x: e.embed(x.to_sparse(), 16000), "a sparse tensor"),
        (lambda e, x: e.embed(x.to("meta"), 16000), "a meta tensor"),
        (lambda e, x: e.embed(x, 16000, overlap="0.25"), "overlap: '0.25' is not a share of a window"),
        (lambda e, x: e.attention(x, 16000, layers=None), "layers: "),
        (lambda e, x: e.attention(x, 16000, layers=0.5), "layers: "),
        (lambda e, x: e.reconstruct(x, 16000, seed=None), "seed: expected a whole number, got None"),
        (lambda e, x: e.reconstruct(x, 16000, mask="all"), "mask: expected an array of True and False, got a str"),
        (lambda e, x: Encoder.random(e.config, 2**70), "seed: .* is not within"),
        (lambda e, x: e.front_end(x.numpy()[None]), "wave: expected a floating-point tensor, got ndarray"),
    ],
)
def test_numbers_of_another_kind_are_refused_in_words(call, words):
    with pytest.raises(InputError, match=words):
        call(Encoder.random(load_config("smoke")), torch.zeros(16000))


def test_numbers_of_numpy_and_torch_are_numbers():
    enc, x = Encoder.random(load_config("smoke"), np.int64(0)), torch.ones(16000)
    assert enc.attention(x, np.float32(16000), layers=np.array(0)).map.shape[0] == 1
    assert torch.equal(enc.reconstruct(x, 16000, seed=torch.tensor(3)).mask, enc.reconstruct(x, 16000, seed=3).mask)
