"""A corpus of odd files of every kind: checked, embedded and pretrained on. None crashes or hangs, none vanishes."""

import numpy as np
import odd_audio
import pandas as pd
import pytest
import soundfile
import test_audio_containers as containers
from typer.testing import CliRunner

import asit_lab
from asit_lab.cli import app
from asit_lab.data import load_manifest
from asit_lab.data.check import check

ODD_NAMES = ("[a] #1.wav", "it's 100 %.wav", 'quoted "x".wav', "emoji 🐦.wav", "é.wav", "e\u0301.wav", "$x_1$.wav")
ODD_NAMES += ("CON.wav", "a" * 240 + ".wav", "semi;colon.wav", "new\nline.wav", " space .wav", "-dash.wav", "UPPER.WAV")


def make(folder) -> dict[str, float | None]:
    """{name: seconds, None where it need not be read} of what was put into the folder."""
    seconds = odd_audio.write_all(folder)
    for suffix, codec in containers.KINDS.items():
        content = containers.write(folder / f"whole.{suffix}", codec).read_bytes()
        seconds[f"whole.{suffix}"] = 5.0
        for share in (0.02, 0.5, 0.95):
            (folder / f"cut_{share}.{suffix}").write_bytes(content[: int(share * len(content))])
            seconds[f"cut_{share}.{suffix}"] = None
        (folder / f"named_{suffix}.wav").write_bytes(content)
        seconds[f"named_{suffix}.wav"] = 5.0
    for number, name in enumerate(ODD_NAMES):
        soundfile.write(folder / name, odd_audio.tone(seed=number), 16000, format="WAV")
        seconds[name] = 5.0
    return seconds


@pytest.mark.slow
def test_checked_embedded_and_pretrained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path / "home"))
    folder = tmp_path / "set"
    seconds = make(folder)
    assert len(seconds) > 200
    manifest = load_manifest(f"folder:{folder}")
    result = check(manifest)
    decoded = result.table[result.table["reason"] == ""]["path"]
    usable, listed = set(decoded), set(manifest.bad["path"])
    damaged = set(result.table["path"]) - usable
    for name, length in seconds.items():
        path = str(folder / name)
        assert path in usable | listed | damaged or not (folder / name).exists(), name
        if length is not None:
            assert path in usable, name
            total = manifest.table.loc[manifest.table["path"] == path, "seconds"].sum()
            page = 1.2 if name.endswith((".ogg", ".opus")) else 0.3
            assert length - page < total < length + 0.3, name
    assert manifest.bad["reason"].str.len().min() > 5
    assert any("end before their header says" in note for note in manifest.notes)

    out = tmp_path / "vectors.csv"
    for options in ([], ["--windows", "5"]):
        shown = CliRunner().invoke(app, ["embed", str(folder), "-e", "smoke", "-o", str(out), *options])
        assert shown.exit_code == 0, shown.output
        assert "end before their header says" in shown.output
        vectors = pd.read_csv(out)
        assert np.isfinite(vectors.filter(regex=r"^d\d").to_numpy()).all()
        assert len(set(vectors["path"])) >= len(usable) - 2  # of two names that CSV cannot hold

    settings = [f"data.source=folder:{folder}", "data.max_bad_share=0.9", "train.steps=4", "train.snapshots=1"]
    run = asit_lab.pretrain(asit_lab.load_config("smoke", settings), tmp_path / "run")
    assert run.status == "finished" and np.isfinite(run.metrics["loss"]).all()
    assert listed <= set(run.bad_files["path"])
    with pytest.raises(asit_lab.InputError, match="more than data.max_bad_share 0.01"):
        asit_lab.pretrain(asit_lab.load_config("smoke", [*settings, "data.max_bad_share=0.01"]), tmp_path / "none")
