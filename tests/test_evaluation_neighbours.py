"""Who is near whom: planted vectors, and embeddings of a data set by layer and pooling."""

import numpy as np
import pytest
import soundfile
import torch

from asit_lab import Encoder, load_config
from asit_lab.data import load_manifest
from asit_lab.embedding.space import EmbeddingSpace, nearest_vectors
from asit_lab.errors import InputError

RATE = 16000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The project's root, where embeddings are kept."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def enc():
    return Encoder.random(load_config("smoke"), 0)


def test_planted_neighbours():
    """Angles of 0, 5, 20, 90 and 180 degrees, at lengths that would mislead a distance."""
    angles, lengths = np.radians([0, 20, 180, 5, 90]), np.array([1.0, 50.0, 1.0, 9.0, 1.0])
    vectors = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    order, similarity = nearest_vectors(vectors, vectors[0], 5)
    assert order.tolist() == [0, 3, 1, 4, 2]
    np.testing.assert_allclose(similarity, np.cos(np.radians([0, 5, 20, 90, 180])), atol=1e-12)
    assert nearest_vectors(vectors, vectors[2], 3)[0].tolist() == [2, 4, 1]


def test_equal_and_empty_vectors():
    vectors = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    order, similarity = nearest_vectors(vectors, vectors[0], 9)
    assert order.tolist() == [0, 2, 3, 1] and similarity.tolist() == [1, 1, 1, 0]


def test_vectors_are_those_of_the_encoder(enc):
    manifest = load_manifest("synth:12")
    space = EmbeddingSpace(enc, manifest)
    assert space.rows.tolist() == list(range(12)) and space.labels == manifest.table["label"].tolist()
    waves = [manifest.read(row, RATE) for row in range(12)]
    for layer, pool in ((2, "mean+std"), (0, "mean"), (1, "class")):
        made = enc.embed(waves, RATE, pool=pool, layer=layer).double().numpy()
        expected = (made - made.mean(0)) / made.std(0)
        np.testing.assert_allclose(space.vectors(layer, pool), expected, rtol=1e-2, atol=1e-3)
    near, similarity = space.nearest(3, 4, 2, "mean")
    units = space.vectors(2, "mean") / np.linalg.norm(space.vectors(2, "mean"), axis=1, keepdims=True)
    cosines = units @ units[3]
    assert 3 not in near and similarity.tolist() == pytest.approx(sorted(cosines, reverse=True)[1:5])
    np.testing.assert_allclose(cosines[near], similarity)
    points = space.points(2, "mean")
    assert points.shape == (12, 2) and np.isfinite(points).all() and space.points(2, "mean") is points


def test_a_sound_from_elsewhere_has_the_neighbours_it_has_as_a_clip(enc):
    manifest = load_manifest("synth:12")
    space = EmbeddingSpace(enc, manifest)
    pooled = enc.pooled([torch.from_numpy(manifest.read(7, RATE))], RATE)[0].numpy()
    for layer, pool in ((2, "mean+std"), (1, "class")):
        near, similarity = space.nearest_to(pooled, 5, layer, pool)
        others, _ = space.nearest(7, 4, layer, pool)
        assert near.tolist() == [7, *others.tolist()] and similarity[0] == pytest.approx(1, abs=1e-3)


def test_the_label_of_most_neighbours_is_predicted(enc, monkeypatch):
    """In blocks, the same as clip by clip."""
    space = EmbeddingSpace(enc, load_manifest("synth:40"))
    monkeypatch.setattr("asit_lab.embedding.space._BLOCK", 7)
    for clip, label in enumerate(space.predicted(5, 2, "mean")):
        votes = [space.labels[near] for near in space.nearest(clip, 5, 2, "mean")[0]]
        assert label == max(votes, key=votes.count)


def test_a_large_data_set_is_drawn_from(enc):
    manifest = load_manifest("synth:30")
    space = EmbeddingSpace(enc, manifest, clips=8, seed=1)
    assert len(space.rows) == 8 and (np.diff(space.rows) > 0).all()
    assert space.labels == manifest.table["label"].iloc[space.rows].tolist()
    assert space.manifest.table["path"].tolist() == manifest.table["path"].iloc[space.rows].tolist()
    assert EmbeddingSpace(enc, manifest, clips=8, seed=2).rows.tolist() != space.rows.tolist()


def test_clips_that_cannot_be_read_are_left_out(enc, tmp_path):
    for number in range(4):
        folder = tmp_path / "clips" / "ab"[number % 2]
        folder.mkdir(exist_ok=True, parents=True)
        soundfile.write(folder / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, RATE), RATE)
    manifest = load_manifest(f"folder:{tmp_path / 'clips'}")
    path = manifest.table["path"].iloc[1]
    with open(path, "r+b") as file:
        file.truncate(60)
    space = EmbeddingSpace(enc, manifest)
    assert space.rows.tolist() == [0, 2, 3] and len(space.skipped) == 1 and space.skipped[0][0] == path
    assert space.labels == ["a", "b", "b"] and space.manifest.table["path"].iloc[1] == manifest.table["path"].iloc[2]


def test_choices_that_are_none(enc):
    space = EmbeddingSpace(enc, load_manifest("synth:5"))
    with pytest.raises(InputError, match=r"layer 3, pool 'mean': expected 0 to 2 \(the final output\)"):
        space.vectors(3, "mean")
    with pytest.raises(InputError, match=r"pool 'median': expected .* mean\+std, mean, class"):
        space.points(0, "median")
    with pytest.raises(InputError, match="clips: 1 are too few"):
        EmbeddingSpace(enc, load_manifest("synth:5"), clips=1)
    with pytest.raises(InputError, match="only 1 clip can be embedded"):
        EmbeddingSpace(enc, load_manifest("synth:1"))
    late = Encoder.random(load_config("smoke", ["model.class_token_at=1"]), 0)
    with pytest.raises(InputError, match="layer 0 has no class token, which joins at block 1"):
        EmbeddingSpace(late, load_manifest("synth:5")).vectors(0, "class")
