"""HEAR 2021's common API. Its public validator runs in an environment of its own: `make hear`."""

import numpy as np
import pytest
import torch

from asit_lab import Encoder, InputError, load_config
from asit_lab.data.sources.synth import render_clip
from asit_lab.encoder import hear

RATE = 16000


@pytest.fixture(scope="module")
def model():
    return hear.HearModel(Encoder.random(load_config("smoke"), 1))


@pytest.fixture(scope="module")
def sounds():
    """Two sounds of 3 s, float32 [2, 48000]."""
    return torch.from_numpy(np.stack([render_clip(0, index, RATE)[: 3 * RATE] for index in (1, 2)]))


def test_the_interface(model, sounds, tmp_path):
    model.encoder.save_pretrained(tmp_path / "saved")
    loaded = hear.load_model(str(tmp_path / "saved"))
    assert isinstance(loaded, torch.nn.Module)
    assert (loaded.sample_rate, loaded.scene_embedding_size, loaded.timestamp_embedding_size) == (16000, 96, 48)
    scenes = hear.get_scene_embeddings(sounds, loaded)
    assert scenes.shape == (2, 96) and scenes.dtype == torch.float32
    assert torch.equal(scenes, model.encoder.embed(sounds, RATE, "mean+std"))
    embeddings, timestamps = hear.get_timestamp_embeddings(sounds, loaded)
    assert embeddings.shape == (2, 76, 48) and timestamps.shape == (2, 76)
    assert embeddings.dtype == timestamps.dtype == torch.float32
    with pytest.raises(InputError, match="no such run directory or snapshot"):
        hear.load_model(str(tmp_path / "nothing"))


@pytest.mark.parametrize("seconds", [0.01, 0.04, 0.1, 1.0, 1.07, 3.0])
def test_timestamps_span_the_audio(model, sounds, seconds):
    audio = sounds[:, : round(seconds * RATE)]
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    wanted = torch.arange(0, 1000 * audio.shape[1] / RATE + 1e-6, 40)  # ms: four frames, a quarter of a patch
    torch.testing.assert_close(timestamps, wanted.expand(2, -1))
    assert embeddings.shape == (2, len(wanted), 48) and torch.isfinite(embeddings).all()


def test_other_rates_do_not_drift():
    """22.05 kHz frames come every 220 samples, which are not 10 ms."""
    encoder = Encoder.random(load_config("smoke", ["features.sample_rate=22050"]), 0)
    _, timestamps = hear.get_timestamp_embeddings(torch.zeros(1, 20 * 22050), hear.HearModel(encoder))
    steps = np.arange(timestamps.shape[1])
    np.testing.assert_allclose(timestamps[0].double(), steps * 880 / 22.05, rtol=1e-6)
    assert 20000 - 50 < timestamps[0, -1] <= 20000


@pytest.mark.parametrize(
    ("patch", "frame_hop", "hop"),
    [(16, 10.0, 4), (10, 10.0, 5), (7, 10.0, 1), (4, 10.0, 4), (16, 60.0, 1), (1, 10.0, 1)],
)
def test_hop(patch, frame_hop, hop):
    assert hear.hop_frames(patch, frame_hop) == hop


def test_embeddings_are_the_tokens_of_shifted_audio(model, sounds):
    """Each pass against `Encoder.tokens` of the audio with half a patch of silence before it, cut by the shift."""
    half = (15 * 160 + 400) // 2
    audio = sounds - sounds.mean(1, keepdim=True)
    padded = torch.nn.functional.pad(audio, (half, half))
    embeddings, _ = hear.get_timestamp_embeddings(sounds, model)
    for shift in range(4):
        tokens = model.encoder.tokens(padded[:, shift * 640 :], RATE).mean(2)  # [2, 19, D]
        torch.testing.assert_close(embeddings[:, shift::4], tokens, rtol=1e-3, atol=1e-3)
    assert (embeddings[:, 0] - embeddings[:, 1]).abs().max() > 1e-3


def test_patches_are_centred_at_their_timestamps(model):
    """A click is in the patches whose centre is at most half a patch away, on both sides alike."""
    audio = torch.zeros(1, RATE)
    audio[0, 8000] = 1.0  # 500 ms
    log_mel = hear._centred_log_mels(model.encoder, audio, 25 * 4 + 16)[0]  # [T, M]
    power = log_mel.unfold(0, 16, 4).amax((1, 2))  # [timestamps]
    loud = (power > power.max() - 0.5).nonzero().flatten() * 40.0
    assert loud.min() >= 500 - 88 and loud.max() <= 500 + 88
    assert abs(loud.mean() - 500) <= 20


def test_sounds_do_not_mix_and_long_ones_have_windows(model, sounds):
    together, _ = hear.get_timestamp_embeddings(sounds, model)
    for i, sound in enumerate(sounds):
        alone, _ = hear.get_timestamp_embeddings(sound[None], model)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_what_is_no_audio(model):
    for function in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(InputError, match="NaN or infinite"):
            function(torch.full((1, RATE), torch.nan), model)
        with pytest.raises(InputError, match=r"expected \[batch, samples\]"):
            function(torch.zeros(1, 1, RATE), model)
