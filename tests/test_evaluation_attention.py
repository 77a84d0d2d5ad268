"""Statistics of attention against sums by hand, and the maps that are drawn against the encoder's."""

import math

import numpy as np
import pytest
import torch

from asit_lab import Encoder, InputError, load_config
from asit_lab.data import load_manifest
from asit_lab.data.sources.synth import render_clip
from asit_lab.evaluation import attention_statistics, clip_and_silence, compare_attention
from asit_lab.inspection.attention_statistics import patch_at, silent_patches, weight_statistics

RATE = 16000


@pytest.fixture(scope="module")
def encoders():
    """Softmax and differential attention, 64 bands at 16 kHz, sharp enough to differ from even."""
    made = [Encoder.random(load_config("smoke", [f"model.attention={kind}"]), 0) for kind in ("softmax", "asda")]
    with torch.no_grad():
        for block in [*made[0].backbone.blocks, *made[1].backbone.blocks]:
            (block.attn.qkv if hasattr(block.attn, "qkv") else block.attn.qk).weight.mul_(8)
    return made


@pytest.fixture(scope="module")
def wave():
    """2 s of sound, then 1 s of digital silence."""
    return np.pad(render_clip(0, 1, RATE)[: 2 * RATE], (0, RATE))


# --- Numbers --------------------------------------------------------------------------------------------------------


def test_spread_of_known_weights():
    silent = torch.tensor([False, False, True, True])
    weights = torch.tensor(
        [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.5], [0.6, 0.2, -0.2, 0.0]]
    )
    entropy, share, negative = weight_statistics(weights, silent)
    by_hand = -(0.6 * math.log(0.6) + 2 * 0.2 * math.log(0.2))  # a negative weight counts by its magnitude
    torch.testing.assert_close(entropy, torch.tensor([math.log(4), 0.0, math.log(2), by_hand]))
    torch.testing.assert_close(share, torch.tensor([0.5, 0.0, 0.5, 0.2]))
    torch.testing.assert_close(negative, torch.tensor([0.0, 0.0, 0.0, 0.2]))


def test_patches_of_digital_silence(encoders, wave):
    enc = encoders[0]
    silent = silent_patches(enc, enc.log_mel(wave, RATE))[0]
    assert silent.shape == (18, 4)  # of 0.16 s: sound up to 2 s, which is in the 13th
    assert silent[13:].all() and not silent[:12].any()
    assert silent_patches(enc, enc.log_mel(np.zeros(RATE, np.float32), RATE)).all()


def test_statistics_are_those_of_the_maps(encoders, wave):
    enc = encoders[1]
    table = attention_statistics(enc, wave, RATE)
    assert len(table) == 2 * 3 * 2 and set(table["kind"]) == {"map", "first", "second"}
    maps = enc.attention(wave, RATE, (0, 1))
    silent = torch.cat([torch.tensor([False]), silent_patches(enc, enc.log_mel(wave, RATE))[0].flatten()])
    for row in table.itertuples():
        weights = getattr(maps, row.kind)[row.layer, 0].double().abs()
        weights = (weights / weights.sum(-1, keepdim=True)).mean(0)  # over heads; the share is linear
        asked = weights[:1] if row.query == "class token" else weights[1:][~silent[1:]]
        assert row.share_on_silent == pytest.approx(asked[:, silent].sum(-1).mean().item(), rel=1e-4)
        assert row.even_share == pytest.approx(20 / 73) and silent.sum() == 20
        assert row.entropy_normalised == pytest.approx(row.entropy / math.log(73))
        assert 0 < row.entropy_normalised < 1
    assert (table.query("kind != 'map'")["negative"] == 0).all() and (table["negative"] > 0).any()


def test_softmax_has_one_kind(encoders, wave):
    table = attention_statistics(encoders[0], wave, RATE)
    assert set(table["kind"]) == {"map"} and len(table) == 2 * 2 and (table["negative"] == 0).all()


def test_without_silence_there_is_no_share(encoders, wave):
    table = attention_statistics(encoders[0], wave[:RATE], RATE)
    assert table["share_on_silent"].isna().all() and table["even_share"].isna().all() and table["entropy"].notna().all()
    both = torch.from_numpy(np.stack([wave[: 2 * RATE], wave[RATE:]]))  # without, and with: the share is of the second
    alone = attention_statistics(encoders[0], wave[RATE:], RATE)
    np.testing.assert_allclose(
        attention_statistics(encoders[0], both, RATE)["share_on_silent"], alone["share_on_silent"], rtol=1e-3
    )


# --- Clip and maps --------------------------------------------------------------------------------------------------


def test_a_clip_with_silence_behind_it():
    manifest = load_manifest("synth:5")
    wave, rate = clip_and_silence(manifest, 2, silence=0.5, seconds=3.0)
    assert rate == 32000 and len(wave) == 3.5 * rate
    np.testing.assert_array_equal(wave[: 3 * rate], manifest.read(2, rate, seconds=3.0))
    assert (wave[3 * rate :] == 0).all() and wave.dtype == np.float32
    assert len(clip_and_silence(manifest, 2, silence=0.0)[0]) == 5 * rate
    for clip in (5, -1):
        with pytest.raises(InputError, match=rf"clip: {clip} is not a row of synth:5, which has 0 to 4"):
            clip_and_silence(manifest, clip)
    with pytest.raises(InputError, match="silence: expected at least 0 s"):
        clip_and_silence(manifest, 0, silence=-1.0)


def test_what_is_drawn_is_what_the_encoder_attends_to(encoders, wave):
    one, two = compare_attention(encoders, wave, RATE, layer=0, patch="1.0,700")
    assert set(one.maps) == {"map"} and one.lam is None
    assert set(two.maps) == {"map", "first", "second"} and two.lam == pytest.approx(0.1)
    time, freq = two.query
    assert time == 6  # 1 s is frame 100
    maps = encoders[1].attention(wave, RATE, (0,))
    for kind, drawn in two.maps.items():
        weights = getattr(maps, kind)[0, 0].mean(0)  # over heads
        np.testing.assert_allclose(drawn[0].ravel(), weights[0, 1:], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(drawn[1].ravel(), weights[1 + time * 4 + freq, 1:], rtol=1e-4, atol=1e-7)
    assert two.log_mel.shape == (288, 64) and two.silent.shape == (18, 4)


def test_every_encoder_is_asked_for_the_same_place(encoders):
    """A tone of 1 kHz from 1 s on is loudest in its own patch, also of an encoder with other bands and rate."""
    wave = np.zeros(2 * RATE, np.float32)
    wave[RATE : RATE + 2400] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2400) / RATE)
    fine = Encoder.random(load_config("smoke", ["features.sample_rate=32000", "features.mel_bins=128"]), 0)
    first, second = compare_attention([encoders[0], fine], wave, RATE)
    assert first.query == patch_at(encoders[0], 192, 1.07, 1000) and first.query[0] in (6, 7)
    low, high = second.query[1] * 16, second.query[1] * 16 + 16  # its bands
    mels = [1127 * math.log1p(hz / 700) for hz in (20, 1000, 16000)]
    band = (mels[1] - mels[0]) / (mels[2] - mels[0]) * 129 - 1  # of 1 kHz among 128
    assert low - 8 <= band <= high + 8 and second.query[0] == first.query[0]


def test_places_that_are_none(encoders, wave):
    with pytest.raises(InputError, match='patch: \'here\' is neither "loudest" nor "SECONDS,HZ"'):
        compare_attention(encoders, wave, RATE, patch="here")
    for place in ("9,500", "-1,500", "1,9000", "1,3"):
        with pytest.raises(InputError, match=r"is outside random init \(seed 0\)'s clip of 2\.88 s, 20 to 8000 Hz"):
            compare_attention(encoders, wave, RATE, patch=place)
    with pytest.raises(InputError, match="2 clips, expected one"):
        compare_attention(encoders, np.stack([wave, wave]), RATE)
    with pytest.raises(InputError, match="not among the model's 2 blocks"):
        compare_attention(encoders, wave, RATE, layer=2)
