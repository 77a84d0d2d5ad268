"""Embedding a data set: right rows, every clip decoded once, unreadable ones left out and listed."""

import numpy as np
import pytest
import soundfile
import torch

from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.encoder import Encoder
from asit_lab.errors import InputError
from asit_lab.evaluation.embeddings import (
    embed_clips,
    embed_manifest,
    encoder_embedder,
    log_mel_embedder,
    log_mel_statistics,
)
from asit_lab.features import LogMel
from asit_lab.settings import Features

RATE = 16000


@pytest.fixture
def manifest(tmp_path):
    """Six clips of two lengths in two classes."""
    generator = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        wave = 0.1 * generator.standard_normal(RATE if i % 3 else RATE // 2)
        soundfile.write(folder / f"{i}.wav", wave, RATE)
    return load_manifest(f"folder:{tmp_path}")


def damage(manifest, row: int) -> str:
    """Cut a file after its header was read."""
    path = manifest.table["path"].iloc[row]
    with open(path, "r+b") as file:
        file.truncate(60)
    return path


def test_log_mel_statistics_are_those_of_each_clip(manifest):
    found, rows = log_mel_statistics(manifest, mel_bins=40)
    assert rows.tolist() == list(range(6)) and found.dtype == np.float32 and found.shape == (6, 80)
    front_end = LogMel.from_config(Features(sample_rate=RATE, mel_bins=40))
    for row in rows:
        raw = front_end(torch.from_numpy(manifest.read(row, RATE))[None])[0].numpy()
        np.testing.assert_allclose(found[row], [*raw.mean(0), *raw.std(0)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_encoder_embeddings_do_not_depend_on_the_batch(manifest, batch_size):
    enc = Encoder.random(load_config("smoke"), seed=3)
    found, rows = embed_manifest(enc, manifest, pool="class", batch_size=batch_size)
    expected = [enc.embed(manifest.read(row, RATE), RATE, pool="class")[0].numpy() for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_clips_are_read_once_for_all_embedders_of_a_rate(manifest, monkeypatch):
    read = []
    inner = type(manifest).read
    monkeypatch.setattr(type(manifest), "read", lambda self, i, rate: read.append((i, rate)) or inner(self, i, rate))
    enc = Encoder.random(load_config("smoke"))
    embedders = [encoder_embedder(enc, "mean", "a"), encoder_embedder(enc, "class", "b"), log_mel_embedder(20)]
    found = embed_clips(manifest, embedders)
    assert sorted(read) == [(i, RATE) for i in range(6)]
    assert {name: x.shape for name, x in found.features.items()} == {
        "a": (6, 48),
        "b": (6, 48),
        "mean+std log-mel": (6, 40),
    }
    read.clear()
    embed_clips(manifest, [log_mel_embedder(20), log_mel_embedder(20, sample_rate=8000)])
    assert sorted(read) == sorted((i, rate) for i in range(6) for rate in (RATE, 8000))


def test_unreadable_clips_are_left_out_and_listed(manifest, caplog):
    path = damage(manifest, 2)
    found = embed_clips(manifest, [log_mel_embedder()], batch_size=4)
    assert found.rows.tolist() == [0, 1, 3, 4, 5]
    assert [one for one, _ in found.skipped] == [path]
    assert "1 of 6 clips left out" in caplog.text and path in caplog.text


def test_no_readable_clip_is_an_error(manifest):
    paths = [damage(manifest, row) for row in range(6)]
    with pytest.raises(InputError, match=f"none of its 6 clips can be embedded: {paths[0]}"):
        log_mel_statistics(manifest)
