"""Embedding a data set: right rows, every clip decoded once, unreadable ones left out, and what is kept on disk."""

import os

import numpy as np
import pytest
import soundfile
import torch

from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.embedding import cache, dataset
from asit_lab.embedding.dataset import Embedder, embed_clips, encoder_embedder, log_mel_embedder
from asit_lab.encoder import Encoder
from asit_lab.errors import InputError
from asit_lab.features import LogMel
from asit_lab.settings import Features

RATE = 16000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The project's root, where embeddings are kept."""
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def manifest(tmp_path):
    """Six clips of two lengths in two classes."""
    generator = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "clips" / "ab"[i % 2]
        folder.mkdir(exist_ok=True, parents=True)
        wave = 0.1 * generator.standard_normal(RATE if i % 3 else RATE // 2)
        soundfile.write(folder / f"{i}.wav", wave, RATE)
    return load_manifest(f"folder:{tmp_path / 'clips'}")


@pytest.fixture
def read(manifest, monkeypatch):
    """(row, rate) of every clip that is decoded."""
    read = []
    inner = type(manifest).read
    monkeypatch.setattr(type(manifest), "read", lambda self, i, rate: read.append((i, rate)) or inner(self, i, rate))
    return read


def damage(manifest, row: int) -> str:
    """Cut a file after its header was read."""
    path = manifest.table["path"].iloc[row]
    with open(path, "r+b") as file:
        file.truncate(60)
    return path


def smoke(seed: int = 0, **changes) -> Encoder:
    return Encoder.random(load_config("smoke", [f"{name}={value}" for name, value in changes.items()]), seed=seed)


def test_log_mel_statistics_are_those_of_each_clip(manifest):
    embedder = log_mel_embedder(40, RATE)
    found = embed_clips(manifest, [embedder])
    vectors = found.features[embedder.name]
    assert found.rows.tolist() == list(range(6)) and vectors.dtype == np.float32 and vectors.shape == (6, 80)
    front_end = LogMel.from_config(Features(sample_rate=RATE, mel_bins=40))
    for row in found.rows:
        raw = front_end(torch.from_numpy(manifest.read(row, RATE))[None])[0].numpy()
        np.testing.assert_allclose(vectors[row], [*raw.mean(0), *raw.std(0)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_encoder_embeddings_do_not_depend_on_the_batch(manifest, batch_size):
    enc = smoke(3)
    found = embed_clips(manifest, [encoder_embedder(enc, "x")], batch_size=batch_size, keep=False).features["x"]
    depth, width = enc.config.model.depth, enc.config.model.width
    assert found.shape == (6, depth + 1, 3, width) and found.dtype == np.float32
    for place, pool in ((0, "class"), (1, "mean")):
        expected = [enc.embed(manifest.read(row, RATE), RATE, pool=pool)[0].numpy() for row in range(6)]
        np.testing.assert_allclose(found[:, -1, place], expected, rtol=1e-4, atol=1e-5)


def test_clips_are_read_once_for_all_embedders_of_a_rate(manifest, read):
    embedders = [encoder_embedder(smoke(), "a"), encoder_embedder(smoke(1), "b"), log_mel_embedder(20)]
    found = embed_clips(manifest, embedders)
    assert sorted(read) == [(i, RATE) for i in range(6)]
    assert list(found.features) == ["a", "b", "mean+std log-mel"]
    read.clear()
    embed_clips(manifest, [log_mel_embedder(20), log_mel_embedder(20, sample_rate=8000)], keep=False)
    assert sorted(read) == sorted((i, rate) for i in range(6) for rate in (RATE, 8000))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_is_read_ahead_comes_in_order_and_one_ahead(count):
    begun = []

    def read(item):
        begun.append(item)
        return 10 * item

    seen = []
    for number, result in enumerate(dataset._ahead(read, range(count))):
        seen.append(result)
        assert set(begun) <= set(range(number + 2))
    assert seen == [10 * item for item in range(count)] and begun == list(range(count))


def test_unreadable_clips_are_left_out_and_listed(manifest, caplog):
    path = damage(manifest, 2)
    found = embed_clips(manifest, [log_mel_embedder()], batch_size=4)
    assert found.rows.tolist() == [0, 1, 3, 4, 5]
    assert [one for one, _ in found.skipped] == [path]
    assert "1 of 6 clips left out" in caplog.text and path in caplog.text


def test_a_clip_an_embedder_refuses_costs_no_other_clip(manifest):
    def embed(waves):
        if any(len(wave) < RATE for wave in waves):
            raise InputError("too short for me")
        return torch.stack([wave[:3] for wave in waves])

    found = embed_clips(manifest, [Embedder("picky", RATE, embed), log_mel_embedder(20)], batch_size=6)
    short = [row for row in range(6) if manifest.table["seconds"].iloc[row] < 1]
    assert len(short) == 2 and found.rows.tolist() == [row for row in range(6) if row not in short]
    assert found.skipped == [(manifest.table["path"].iloc[row], "too short for me") for row in short]
    assert [len(one) for one in found.features.values()] == [4, 4]


def test_no_readable_clip_is_an_error(manifest):
    paths = [damage(manifest, row) for row in range(6)]
    with pytest.raises(InputError, match=f"none of its 6 clips can be embedded: {paths[0]}"):
        embed_clips(manifest, [log_mel_embedder()])


def test_no_clip_is_an_error(manifest):
    with pytest.raises(InputError, match="none of its 0 clips can be embedded$"):
        embed_clips(manifest.subset([]), [log_mel_embedder()])


def test_an_encoder_in_bfloat16(manifest):
    single, half = (
        embed_clips(manifest, [encoder_embedder(enc, "a")]).features["a"] for enc in (smoke(), smoke().bfloat16())
    )
    np.testing.assert_allclose(np.stack(list(half)), np.stack(list(single)), atol=0.1)


# --- Kept on disk ---------------------------------------------------------------------------------------------------


def test_equal_encoder_data_and_config_are_found_again(manifest, read, home):
    first = embed_clips(manifest, [encoder_embedder(smoke(), "a")])
    assert len(read) == 6 and len(list((home / "data/embeddings").rglob("*.safetensors"))) == 1
    manifest.table["label"] = "other"  # labels are not what vectors follow from
    again = embed_clips(manifest, [encoder_embedder(smoke(), "another name")])
    assert len(read) == 6
    np.testing.assert_array_equal(again.features["another name"], first.features["a"])
    assert again.rows.tolist() == first.rows.tolist()


def test_only_what_is_not_kept_is_made(manifest, read):
    embed_clips(manifest, [encoder_embedder(smoke(), "a")])
    calls = []
    known = encoder_embedder(smoke(), "a")
    known = Embedder("a", RATE, lambda waves: calls.append(waves), known.identity)
    found = embed_clips(manifest, [known, log_mel_embedder(20)])
    assert not calls and [len(one) for one in found.features.values()] == [6, 6]


def _weights(enc, manifest):
    enc.backbone.cls_token.data[0, 0, 0] += 1e-3


def _size(enc, manifest):
    path = manifest.table["path"].iloc[3]
    before = os.stat(path)
    wave, rate = soundfile.read(path)
    soundfile.write(path, wave[:-1], rate)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _time(enc, manifest):
    path = manifest.table["path"].iloc[3]
    before = os.stat(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def _stretch(enc, manifest):
    manifest.table.loc[3, "start"] = 0.1
    manifest.table.loc[3, "seconds"] -= 0.1


def _order(enc, manifest):
    manifest.table = manifest.table.iloc[::-1].reset_index(drop=True)


@pytest.mark.parametrize("change", [_weights, _size, _time, _stretch, _order])
def test_other_weights_or_data_are_not_found(manifest, read, change):
    enc = smoke()
    embed_clips(manifest, [encoder_embedder(enc, "a")])
    change(enc, manifest)
    read.clear()
    found = embed_clips(manifest, [encoder_embedder(enc, "a")]).features["a"]
    assert len(read) == 6
    np.testing.assert_array_equal(found, embed_clips(manifest, [encoder_embedder(enc, "a")], keep=False).features["a"])


@pytest.mark.parametrize(
    "setting, found", [("features.mean=-3", False), ("data.crop_seconds=0.5", False), ("optim.rate=0.5", True)]
)
def test_only_configuration_that_shapes_the_vectors_counts(manifest, setting, found):
    name, value = setting.split("=")
    enc, other = smoke(), smoke(**{name: value})
    if not found and name == "data.crop_seconds":
        assert enc.config.input_frames != other.config.input_frames
    else:
        assert all(torch.equal(a, b) for a, b in zip(enc.parameters(), other.parameters(), strict=True))
    files = [cache.cache_folder(cache.encoder_identity(one), RATE, manifest) for one in (enc, other)]
    assert (files[0] == files[1]) is found


def test_another_version_of_the_package_is_not_found(manifest, monkeypatch):
    before = cache.cache_folder("x", RATE, manifest)
    assert cache.cache_folder("x", RATE, manifest) == before
    assert cache.cache_folder("x", 8000, manifest) != before and cache.cache_folder("y", RATE, manifest) != before
    monkeypatch.setattr(cache, "__version__", "0.0.0")
    assert cache.cache_folder("x", RATE, manifest) != before
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_code", lambda: "changed in one's own copy")
    assert cache.cache_folder("x", RATE, manifest) != before


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_made_again(manifest, read, home, caplog, how):
    expected = embed_clips(manifest, [log_mel_embedder(20)]).features
    (path,) = (home / "data/embeddings").rglob("*.safetensors")
    whole = path.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    path.write_bytes({"cut": whole[:-100], "flipped": flipped, "empty": b"", "other": b"no safetensors" * 9}[how])
    read.clear()
    found = embed_clips(manifest, [log_mel_embedder(20)]).features
    np.testing.assert_array_equal(found["mean+std log-mel"], expected["mean+std log-mel"])
    assert len(read) == 6 and str(path) in caplog.text and "made again" in caplog.text
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_a_warning(manifest, home, caplog):
    home.mkdir()
    (home / "data").write_text("a file where the folder should be")
    found = embed_clips(manifest, [log_mel_embedder(20)])
    assert len(found.rows) == 6 and "cannot be kept" in caplog.text


def test_clips_that_could_not_be_read_are_tried_again(manifest, read, monkeypatch):
    working = type(manifest).read

    def failing(self, i, rate):
        if i == 2:
            raise InputError("the disk is away")
        return working(self, i, rate)

    monkeypatch.setattr(type(manifest), "read", failing)
    assert embed_clips(manifest, [log_mel_embedder(20)]).rows.tolist() == [0, 1, 3, 4, 5]
    monkeypatch.setattr(type(manifest), "read", working)
    read.clear()
    assert embed_clips(manifest, [log_mel_embedder(20)]).rows.tolist() == list(range(6))
    assert read == [(2, RATE)]
    read.clear()
    embed_clips(manifest, [log_mel_embedder(20)])
    assert not read


# --- In shards ------------------------------------------------------------------------------------------------------


def test_an_embedding_that_is_stopped_resumes(manifest, read, home, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_CLIPS", 2)
    whole = embed_clips(manifest, [encoder_embedder(smoke(), "a")], batch_size=1, keep=False).features["a"][:]
    read.clear()
    calls = []
    embedder = encoder_embedder(smoke(), "a")

    def stopping(waves):
        calls.append(len(waves))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embedder.embed(waves)

    stopped = Embedder("a", RATE, stopping, embedder.identity, embedder.layers, embedder.depth)
    with pytest.raises(KeyboardInterrupt):
        embed_clips(manifest, [stopped], batch_size=1)
    assert len(list((home / "data/embeddings").rglob("*.safetensors"))) == 2  # one of two clips, one of what was left
    read.clear()
    found = embed_clips(manifest, [embedder], batch_size=1)
    assert read == [(3, RATE), (4, RATE), (5, RATE)]
    np.testing.assert_array_equal(found.features["a"], whole)


def test_only_the_layers_requested_are_embedded_and_read(manifest, read, home):
    enc = smoke()
    depth, width = enc.config.model.depth, enc.config.model.width
    last = embed_clips(manifest, [encoder_embedder(enc, "a", layers=(depth,))]).features["a"]
    assert last.shape == (6, depth + 1, 3, width)
    (path,) = (home / "data/embeddings").rglob("*.safetensors")
    assert path.stat().st_size < 6 * 3 * width * 4 + 1000  # one layer of six clips
    with pytest.raises(KeyError, match="layer 0 was not embedded; these were: 2"):
        last[:, 0]
    full = embed_clips(manifest, [encoder_embedder(enc, "a")]).features["a"]
    np.testing.assert_allclose(full[:, -1], last[:, -1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(full), full[:, (0, 1, 2)])
    np.testing.assert_array_equal(full[:, -1, 1:], np.asarray(full)[:, -1, 1:])
    read.clear()
    again = embed_clips(manifest, [encoder_embedder(enc, "a", layers=(0,))]).features["a"]
    assert not read  # all layers are there already
    np.testing.assert_array_equal(again[:, 0], full[:, 0])
