"""Hours-long recordings: the numbers of one piece, in memory that does not grow with the length."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from asit_lab import Encoder, InputError, audio, features, load_config
from asit_lab.cli import app
from asit_lab.embedding import files
from asit_lab.embedding.files import embed_files
from asit_lab.encoder import model, windows

RATE = 16000


@pytest.fixture(scope="module")
def enc():
    return Encoder.random(load_config("smoke"), 1)


def sound(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_log_mel_in_pieces(enc, monkeypatch):
    wave = torch.from_numpy(sound(7.3))
    expected = enc.front_end(wave[None])[0]
    pieces = torch.cat(list(enc.front_end.pieces(part.numpy() for part in wave.split(5003))))
    assert pieces.shape == expected.shape
    torch.testing.assert_close(pieces, expected, atol=2e-4, rtol=0)  # the whole has its mean removed first
    monkeypatch.setattr(features, "_FRAMES_AT_ONCE", 50)
    torch.testing.assert_close(enc.front_end(wave[None])[0], expected, atol=1e-5, rtol=0)


def test_log_mel_in_pieces_where_frames_do_not_touch():
    front_end = features.LogMel(RATE, 32, frame_ms=10, hop_ms=25)
    wave = torch.from_numpy(sound(1.0))
    for size in (100, 399, 1111):
        pieces = torch.cat(list(front_end.pieces(wave.split(size))))
        torch.testing.assert_close(pieces, front_end(wave[None])[0], atol=2e-4, rtol=0)


@pytest.mark.parametrize("length", [float("nan"), float("inf")])
def test_windows_of_no_length(enc, tmp_path, length):
    with pytest.raises(InputError, match="windows: .* is not a length in s"):
        embed_files(enc, tmp_path, tmp_path / "x.csv", windows=length)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
@pytest.mark.parametrize("patches", [3, 40, 101])
def test_pooled_window_by_window(enc, monkeypatch, overlap, patches):
    monkeypatch.setattr(windows, "AT_ONCE", 3)
    log_mel = torch.randn(patches * enc.backbone.patch[0], enc.front_end.mel_bins)
    layers = [0, len(enc.backbone.blocks)]
    [(_, tokens, class_token)] = list(windows.cover(enc.backbone, [log_mel], layers, overlap))
    tokens = tokens.flatten(1, 2)
    expected = torch.stack([class_token, tokens.mean(1), tokens.std(1, correction=0)], dim=1)
    pooled = windows.pool_long(enc.backbone, log_mel.split(37), patches, layers, overlap)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-4, equal_nan=True)


def test_a_long_waveform(enc, monkeypatch):
    waves = [sound(9.0), sound(1.0, 1), sound(12.0, 2)]
    expected = enc.pooled(waves, RATE)
    monkeypatch.setattr(model, "LONG_FRAMES", 300)
    torch.testing.assert_close(enc.pooled(waves, RATE), expected, atol=1e-5, rtol=1e-4, equal_nan=True)


def test_fewer_samples_than_announced(enc):
    with pytest.raises(InputError, match="blocks: fewer samples than announced"):
        enc.embed_blocks([sound(1.0)], 20 * RATE)


def test_a_long_file(enc, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", sound(9.0), RATE)
    soundfile.write(tmp_path / "b.wav", sound(9.0, 1), 44100)
    spoilt = sound(9.0)
    spoilt[70_000] = np.nan
    soundfile.write(tmp_path / "c.wav", spoilt, RATE, subtype="FLOAT")
    expected = embed_files(enc, tmp_path, tmp_path / "x.csv", "mean+std")
    monkeypatch.setattr(files, "LONG_SECONDS", 2.0)
    made = embed_files(enc, tmp_path, tmp_path / "x.csv", "mean+std")
    assert made.skipped == expected.skipped and len(made.skipped) == 1
    numbers = [table.filter(regex=r"^d\d").to_numpy() for table in (made.table, expected.table)]
    np.testing.assert_allclose(*numbers, atol=2e-4)


def test_a_row_a_window(enc, tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(5.0), RATE)
    made = embed_files(enc, tmp_path / "a.wav", tmp_path / "x.csv", windows=2.0)
    assert made.table[["start", "end"]].to_numpy().tolist() == [[0, 2], [2, 4], [4, 5]]
    for start, end, row in zip(made.table["start"], made.table["end"], made.table.to_numpy()[:, 3:], strict=True):
        alone = enc.embed(audio.read(tmp_path / "a.wav", RATE, start, end - start), RATE)[0]
        np.testing.assert_allclose(row.astype(np.float32), alone, atol=1e-5)
    with pytest.raises(InputError, match=r"windows: 0\.01 s are shorter than one frame"):
        embed_files(enc, tmp_path / "a.wav", tmp_path / "x.csv", windows=0.01)


def test_windows_without_sound_are_left_out_alone(enc, tmp_path):
    spoilt = sound(6.0)
    spoilt[40_000] = np.inf
    soundfile.write(tmp_path / "a.wav", spoilt, RATE, subtype="FLOAT")
    made = embed_files(enc, tmp_path / "a.wav", tmp_path / "x.csv", windows=2.0)
    assert made.table["start"].tolist() == [0.0, 4.0]
    [(path, reason)] = made.skipped
    assert path == str(tmp_path / "a.wav") and reason.endswith("2 to 4 s: 1 samples are NaN or infinite")


def test_windows_of_many_files_in_their_order_and_none_vanishes(enc, tmp_path, monkeypatch):
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", sound(1.5 + number / 2), RATE)
    soundfile.write(tmp_path / "short.wav", sound(0.01), RATE)
    (tmp_path / "text.wav").write_text("no audio")
    made = embed_files(enc, tmp_path, tmp_path / "x.csv", windows=1.0)
    monkeypatch.setattr("asit_lab.embedding.files.LONG_SECONDS", 0.1)  # read in blocks
    in_blocks = embed_files(enc, tmp_path, tmp_path / "y.csv", windows=1.0)
    pd.testing.assert_frame_equal(made.table, in_blocks.table, atol=1e-4)
    assert made.table["path"].is_monotonic_increasing and made.table.groupby("path").size().tolist() == [
        2,
        2,
        3,
        3,
        4,
        4,
    ]
    for vectors in (made, in_blocks):
        assert [path for path, _ in vectors.skipped] == [str(tmp_path / "short.wav"), str(tmp_path / "text.wav")]


def test_command(tmp_path):
    content = (sound(5.0) * 32767).astype("<i2").tobytes()
    soundfile.write(tmp_path / "a.wav", sound(5.0), RATE)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[: 44 + len(content) // 2])  # cut
    out = tmp_path / "x.csv"
    shown = CliRunner().invoke(app, ["embed", str(tmp_path / "a.wav"), "-e", "smoke", "-o", str(out), "--windows", "1"])
    assert shown.exit_code == 0 and "3 windows, 48 numbers each" in shown.output, shown.output
    assert pd.read_csv(out)["end"].tolist() == [1.0, 2.0, 2.5]
    assert "note: 1 WAVs that end before their header says: read to the end" in shown.output
    shown = CliRunner().invoke(app, ["embed", str(tmp_path / "a.wav"), "-e", "smoke", "-o", str(out)])
    assert "note: 1 WAVs that end before their header says: read to the end" in shown.output


@pytest.mark.slow
def test_ten_hours_in_a_gigabyte_and_a_half(tmp_path):
    hours, rate = 10, 4000
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(0), rate, subtype="PCM_16")
    with path.open("r+b") as file:  # sparse: a hole in the disk
        for place, size in ((4, hours * 3600 * rate * 2 + 36), (40, hours * 3600 * rate * 2)):
            file.seek(place)
            file.write(size.to_bytes(4, "little"))
        file.truncate(44 + hours * 3600 * rate * 2)
    script = (
        "import sys, torch, asit_lab; from asit_lab.embedding.files import embed_files\n"
        "from asit_lab.training.estimate import peak_memory\n"
        "settings = ['features.sample_rate=4000', 'features.mel_bins=16', 'data.crop_seconds=60']\n"
        "settings += ['features.frame_ms=200', 'features.hop_ms=100']\n"
        "enc = asit_lab.Encoder.random(asit_lab.load_config('smoke', settings))\n"
        "made = embed_files(enc, sys.argv[1], sys.argv[2])\n"
        "print(made.table['seconds'][0], peak_memory(torch.device('cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "x.csv")], capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.split()
    assert float(seconds) == hours * 3600 and int(peak) < 1.5e9


@pytest.mark.slow
def test_three_hours_are_predicted_in_little_memory(tmp_path):
    path, second = tmp_path / "long.flac", sound(1.0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(3 * 60):
            file.write(np.tile(second, 60))
    script = (
        "import sys, torch, asit_lab; from asit_lab.finetuning import classifier as of, load_recipe, predict_files\n"
        "from asit_lab.finetuning.network import build_classifier\n"
        "from asit_lab.training.estimate import peak_memory\n"
        "settings = ['features.sample_rate=4000', 'features.mel_bins=16', 'data.crop_seconds=60']\n"
        "settings += ['features.frame_ms=200', 'features.hop_ms=100']\n"
        "cfg = asit_lab.load_config('smoke', settings)\n"
        "enc, recipe, names = asit_lab.Encoder.random(cfg), load_recipe('smoke'), ['a', 'b', 'c']\n"
        "about = of.classifier_metadata('tuned', cfg, names, False, recipe)\n"
        "tuned = of.Classifier(build_classifier(enc, recipe, 3, 0), cfg, about)\n"
        "width = cfg.model.width\n"
        "parts = torch.zeros(width), torch.ones(width), torch.zeros(width, 3), torch.zeros(3), torch.ones(1)\n"
        "enc.head = of.ProbeHead(*(part.double() for part in parts))\n"
        "about = of.classifier_metadata('probe', cfg, names, False, None, {'layers': [-1], 'pool': 'mean'})\n"
        "before = peak_memory(torch.device('cpu'))\n"
        "for model in (tuned, of.Classifier(enc, cfg, about)):\n"
        "    print(len(predict_files(model, sys.argv[1], top=None).table))\n"
        "print(peak_memory(torch.device('cpu')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    *rows, grown = map(int, done.stdout.split())
    assert rows == [3, 3] and grown < 300e6  # the samples alone are 691 MB
