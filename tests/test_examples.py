"""Reconstructed examples: which clips, in which order, and what is heard of them."""

import math

import numpy as np
import pytest
import soundfile
import torch

from asit_lab import Encoder, InputError, load_config, load_encoder
from asit_lab.data import load_manifest
from asit_lab.evaluation import reconstruct_clips, sounds
from asit_lab.figures import MelAxes, reconstructions


@pytest.fixture(scope="module")
def enc(smoke_run):
    return load_encoder(smoke_run.dir)


def row_of(example) -> int:
    return int(example.title.rpartition(" ")[2])


def test_examples_are_reconstructions_of_crops(enc):
    manifest = load_manifest("synth:20")
    examples = reconstruct_clips(enc, manifest, clips=5, seed=1)
    rows = [row_of(example) for example in examples]
    assert len(set(rows)) == 5 and rows == sorted(rows)
    for example, row in zip(examples, rows, strict=True):
        assert example.title == f"{manifest.table['label'][row]}, clip {row}"
        for image in example[:3]:
            assert image.shape == (96, 64) and image.dtype == np.float32
        assert example.mask.dtype == bool and 0.7 <= example.mask.mean() < 0.8
        assert (example.corrupted[example.mask] == 0).all()
        assert np.array_equal(example.corrupted[~example.mask], example.clean[~example.mask])
        # the crop is somewhere in the clip: its log-mel is that of the clip at some sample
        whole = enc.log_mel(manifest.read(row, 16000), 16000)[0].numpy()
        assert example.clean.max() <= whole.max() + 0.1 and example.clean.std() > 0
        rebuilt = enc.decoder(enc.student(torch.from_numpy(example.corrupted)[None])[:, 1:], (6, 4))[0]
        np.testing.assert_allclose(example.reconstructed, rebuilt.numpy(), rtol=1e-3, atol=1e-4)


def test_the_seed_chooses_and_masks(enc):
    manifest = load_manifest("synth:20")
    one, again, other = (reconstruct_clips(enc, manifest, clips=4, seed=seed) for seed in (1, 1, 2))
    assert [row_of(e) for e in one] == [row_of(e) for e in again] != [row_of(e) for e in other]
    assert all(
        np.array_equal(a.mask, b.mask) and np.array_equal(a.clean, b.clean) for a, b in zip(one, again, strict=True)
    )


def test_clips_of_different_lengths_stay_in_order(enc, tmp_path):
    generator = np.random.default_rng(0)
    for i in range(6):  # two lengths in turn, one too short for a patch's frame, one not a number
        (tmp_path / "x").mkdir(exist_ok=True)
        wave = 0.1 * generator.standard_normal(20000 if i % 2 else 8000)
        soundfile.write(tmp_path / f"x/{i}.wav", wave, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "x/6.wav", np.ones(800) / 2, 16000)
    soundfile.write(tmp_path / "x/7.wav", np.full(8000, math.nan), 16000, subtype="FLOAT")
    examples = reconstruct_clips(enc, load_manifest(f"folder:{tmp_path}"), clips=99)
    assert [row_of(example) for example in examples] == [0, 1, 2, 3, 4, 5]
    assert [len(example.clean) for example in examples] == [48, 96] * 3


def test_clips_without_a_label(enc, tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(16000), 16000)
    (example,) = reconstruct_clips(enc, load_manifest(f"folder:{tmp_path}"))
    assert example.title == "no label, clip 0"


def test_examples_that_cannot_be(enc, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(8000, math.nan), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="none of 1 clips could be read"):
        reconstruct_clips(enc, load_manifest(f"folder:{tmp_path}"))
    with pytest.raises(InputError, match="has no decoder"):
        reconstruct_clips(Encoder(enc.config, enc.backbone), load_manifest("synth:4"))


def test_sounds_follow_the_log_mels(enc):
    example = reconstruct_clips(enc, load_manifest("synth:10"), clips=1)[0]
    heard = sounds(enc, example)
    assert list(heard) == ["clean", "corrupted", "reconstructed"]
    for wave in heard.values():
        assert wave.dtype == np.float32 and np.isfinite(wave).all() and 0 < np.abs(wave).max() <= 1
        assert len(wave) == pytest.approx(96 * 160, abs=800)
    # Heard again, the clean one is the clean log-mel where there is sound, and nearer to it than the others are.
    inside = slice(2, 78)  # frames; the sound is a little shorter than what it was made of
    again = {what: enc.log_mel(wave, 16000)[0, inside].numpy() for what, wave in heard.items()}
    clean = example.clean[inside]
    loud = clean > np.quantile(clean, 0.75)
    errors = {what: np.abs(image - clean)[loud].mean() for what, image in again.items()}
    assert errors["clean"] < 0.15
    assert errors["clean"] < 0.5 * errors["corrupted"]


def test_reconstruction_is_heard_only_where_it_was_needed(enc):
    example = reconstruct_clips(enc, load_manifest("synth:10"), clips=1)[0]
    nothing = example._replace(mask=np.zeros_like(example.mask))
    heard = sounds(enc, nothing)
    assert np.array_equal(heard["reconstructed"], heard["clean"])


def test_examples_are_what_the_figure_takes(enc):
    examples = reconstruct_clips(enc, load_manifest("synth:10"), clips=2)
    figure = reconstructions(examples, MelAxes.of(load_config("smoke").features, normalised=True))
    titles = {text.get_text() for ax in figure.axes for text in [ax.title, ax.yaxis.label, *ax.texts]}
    titles |= {text.get_text() for text in figure.texts} | {ax.get_title(loc="left") for ax in figure.axes}
    assert any(examples[0].title in title for title in titles), titles
