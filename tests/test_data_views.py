"""Batches of crops: the same whoever makes them, and honest about what they hold."""

import numpy as np
import pytest
import soundfile
import torch

from asit_lab.config import load_config
from asit_lab.data import crops as views
from asit_lab.data import load_manifest, make_loader
from asit_lab.errors import InputError

RATE = 8000


def config(*overrides):
    base = ["features.sample_rate=8000", "features.mel_bins=32", "data.crop_seconds=1.0", "train.batch_size=8"]
    return load_config("smoke", [*base, *overrides])


def ramp_file(path, seconds):
    """A file whose samples tell where they come from: sample k holds k / 2**20."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.arange(round(seconds * RATE)) / 2**20, RATE, subtype="FLOAT")
    return path


def starts(batch):
    """First sample of each view of ramp files."""
    return (batch.waves[:, :, 0] * 2**20).round().long()


def same(a, b):
    return (
        a.step == b.step
        and torch.equal(a.waves, b.waves)
        and torch.equal(a.lengths, b.lengths)
        and torch.equal(a.index, b.index)
        and torch.equal(a.position, b.position)
    )


@pytest.fixture(scope="module")
def synth():
    return load_manifest("synth:20")


def test_an_epoch_shows_every_clip_once():
    rows = torch.cat([views.batch_indices(5, step, 4, 12) for step in range(3)])
    assert sorted(rows.tolist()) == list(range(12))
    second = torch.cat([views.batch_indices(5, step, 4, 12) for step in range(3, 6)])
    assert sorted(second.tolist()) == list(range(12)) and second.tolist() != rows.tolist()
    assert views.batch_indices(6, 0, 4, 12).tolist() != rows[:4].tolist()


def test_the_rest_of_an_epoch_is_left_out_and_few_clips_are_repeated():
    assert len({int(i) for step in range(2) for i in views.batch_indices(0, step, 5, 14)}) == 10
    assert torch.bincount(views.batch_indices(0, 0, 7, 3), minlength=3).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


def test_shapes_and_types(synth):
    (batch,) = make_loader(config(), synth, stop=1)
    assert batch.waves.shape == (8, 2, 8000) and batch.waves.dtype == torch.float32
    assert batch.lengths.shape == (8, 2) and batch.lengths.dtype == torch.int64
    assert batch.position.tolist() == list(range(8)) and batch.step == 0 and batch.bad == []
    moved = batch.to("meta")
    assert moved.waves.device.type == "meta" and moved.step == 0
    one = next(iter(make_loader(config(), synth, views=1, stop=1)))
    assert one.waves.shape == (8, 1, 8000)


def test_batches_do_not_depend_on_start_or_history(synth):
    cfg = config("data.circular_shift=0.5")
    whole = list(make_loader(cfg, synth, stop=6))
    resumed = list(make_loader(cfg, synth, start=3, stop=6))
    uncached = list(make_loader(cfg.with_overrides(["data.cache_mb=0"]), synth, stop=6))
    assert len(whole) == 6 and len(resumed) == 3
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert all(same(a, b) for a, b in zip(whole, uncached, strict=True))
    assert not torch.equal(whole[0].waves, whole[1].waves)


def test_batches_do_not_depend_on_loader_processes(synth):
    here = list(make_loader(config(), synth, stop=5))
    loader = make_loader(config("data.workers=2"), synth, stop=5)
    assert all(same(a, b) for a, b in zip(here, loader, strict=True))
    assert all(same(a, b) for a, b in zip(here, loader, strict=True))  # once more, from the same processes


def test_the_global_generator_is_left_alone(synth):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    list(make_loader(config(), synth, stop=1))
    assert torch.equal(torch.rand(1), expected)


def test_processes_share_a_global_batch(synth):
    cfg = config()
    whole = list(make_loader(cfg, synth, stop=3))
    parts = [list(make_loader(cfg, synth, stop=3, rank=rank, world=2)) for rank in (0, 1)]
    for all_of_it, first, second in zip(whole, *parts, strict=True):
        for name in ("waves", "lengths", "index", "position"):
            joined = torch.cat([getattr(first, name), getattr(second, name)])
            assert torch.equal(getattr(all_of_it, name), joined)
    with pytest.raises(InputError, match="train.batch_size: 8 is not a multiple of the 3 processes"):
        make_loader(cfg, synth, stop=1, world=3)


@pytest.mark.parametrize("seconds", [20.0, 100.0])  # decoded whole, and only where needed
def test_crops_of_long_clips_lie_within_the_gap(tmp_path, seconds):
    ramp_file(tmp_path / "x" / "long.wav", seconds)
    found = load_manifest(f"folder:{tmp_path}", segment_seconds=1000.0)
    cfg = config("data.max_gap_seconds=2.0")
    first = torch.cat([starts(batch) for batch in make_loader(cfg, found, stop=30)])
    gaps = (first[:, 0] - first[:, 1]).abs()
    assert gaps.max() <= 2 * RATE and gaps.max() > 1.5 * RATE and (gaps > 0).float().mean() > 0.9
    assert first.min() < 0.1 * seconds * RATE and first.max() > (0.9 * seconds - 1) * RATE
    assert first.max() <= (seconds - 1) * RATE


def test_a_crop_is_a_stretch_of_its_clip(tmp_path):
    for seconds in (3.0, 50.0):
        ramp_file(tmp_path / str(seconds) / "a.wav", seconds)
        found = load_manifest(f"folder:{tmp_path / str(seconds)}")
        (batch,) = make_loader(config(), found, stop=1)
        expected = starts(batch)[..., None] + torch.arange(RATE)
        assert torch.equal((batch.waves * 2**20).round().long(), expected)
        assert (batch.lengths == RATE).all()


def test_segments_are_cropped_within_themselves(tmp_path):
    ramp_file(tmp_path / "x" / "long.wav", 12.0)
    found = load_manifest(f"folder:{tmp_path}", segment_seconds=4.0)
    for batch in make_loader(config(), found, stop=10):
        inside = starts(batch) - batch.index[:, None] * 4 * RATE
        assert inside.min() >= 0 and inside.max() <= 3 * RATE


def test_short_clips_are_padded_at_the_end(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(round(0.4 * RATE), 0.5), RATE, subtype="FLOAT")
    (batch,) = make_loader(config(), load_manifest(f"folder:{tmp_path}"), stop=1)
    assert (batch.lengths == 3200).all()
    assert (batch.waves[..., :3200] == 0.5).all() and (batch.waves[..., 3200:] == 0).all()


def test_circular_shift_rolls_the_audio_and_not_the_padding(tmp_path):
    ramp_file(tmp_path / "short.wav", 0.5)
    (batch,) = make_loader(config("data.circular_shift=1.0"), load_manifest(f"folder:{tmp_path}"), stop=1)
    ramp = torch.arange(4000)
    found = (batch.waves * 2**20).round().long()
    assert (found[..., 4000:] == 0).all() and starts(batch).unique().numel() > 8
    for clip, view in np.ndindex(8, 2):
        assert torch.equal(found[clip, view, :4000].roll(-int((found[clip, view, :4000] == 0).nonzero())), ramp)


@pytest.fixture
def spoilt(tmp_path):
    """Six recordings, two of which have a good header and samples that are not numbers."""
    for number in range(6):
        wave = np.full(2 * RATE, 0.1 + 0.1 * number)
        wave[100] = np.nan if number in (1, 4) else 0
        (tmp_path / "x").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "x" / f"{number}.wav", wave, RATE, subtype="FLOAT")
    return load_manifest(f"folder:{tmp_path}")


def test_a_bad_file_is_replaced_and_reported(spoilt):
    batches = list(make_loader(config(), spoilt, stop=4))
    assert all(not set(batch.index.tolist()) & {1, 4} for batch in batches)
    assert all(torch.isfinite(batch.waves).all() for batch in batches)
    for batch in batches:  # the clip is what `index` says
        np.testing.assert_allclose(batch.waves[:, 0, -1], 0.1 + 0.1 * batch.index, rtol=1e-5)
    reported = {path.rsplit("/", 1)[1]: reason for batch in batches for path, reason in batch.bad}
    assert set(reported) == {"1.wav", "4.wav"} and reported["1.wav"] == "1 samples are NaN or infinite"
    again = list(make_loader(config("data.workers=2"), spoilt, start=2, stop=4))
    assert all(same(a, b) and a.bad == b.bad for a, b in zip(batches[2:], again, strict=True))


def test_a_bad_file_is_read_once(spoilt, monkeypatch):
    asked = []
    read = views.read_row
    monkeypatch.setattr(views, "read_row", lambda *row: asked.append(row[0]) or read(*row))
    list(make_loader(config(), spoilt, stop=6))
    assert len(asked) == len(set(asked)) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_files(spoilt, workers):
    with pytest.raises(InputError, match=r"^20 files drawn one after the other cannot be read: .*\.wav: 1 samples"):
        list(make_loader(config(f"data.workers={workers}"), spoilt.subset([1, 4]), stop=1))


def test_no_clips(synth):
    with pytest.raises(InputError, match="no clips"):
        make_loader(config(), synth.subset([]), stop=1)


def test_the_cache_keeps_to_its_limit():
    cache = views.AudioCache(limit=1000)
    for row in range(4):
        cache.put(row, np.zeros(100, np.float32))
        cache.get(0)
    assert list(cache.waves) == [3, 0] and cache.size == 800
    cache.put(9, np.zeros(1000, np.float32))
    assert cache.get(9) is None and cache.size == sum(wave.nbytes for wave in cache.waves.values())


@pytest.mark.parametrize(
    ("crop", "words"), [(6.0, "covers all of the median clip (5 s)"), (4.0, "covers 80%"), (3.0, None), (2.0, None)]
)
def test_overlap_note(synth, crop, words):
    note = views.overlap_note(config(f"data.crop_seconds={crop}"), synth, 2)
    assert note is None if words is None else words in note and note.endswith("data.crop_seconds=2.5")


@pytest.mark.parametrize("scale", [1, 6])  # a long clip is never decoded as a whole
def test_trimmed_crops_lie_between_the_first_and_the_last_sound(tmp_path, scale):
    lengths = [scale * seconds * RATE for seconds in (2, 2, 4)]
    padded = np.concatenate([np.zeros(lengths[0]), np.full(lengths[1], 0.5), np.zeros(lengths[2])])
    soundfile.write(tmp_path / "a.wav", padded, RATE, subtype="FLOAT")
    manifest = load_manifest(f"folder:{tmp_path}")

    def silent(*overrides):
        """Share of silent samples in the crops of six steps."""
        loader = make_loader(config("train.batch_size=8", *overrides), manifest, 2, stop=6)
        return np.mean([float((batch.waves == 0).float().mean()) for batch in loader])

    assert silent("data.trim=true") == 0 < silent()


def test_one_recording_and_less_than_a_batch_are_said(tmp_path, synth):
    ramp_file(tmp_path / "a.wav", 3.0)
    manifest = load_manifest(f"folder:{tmp_path}")
    words = "1 training clips are fewer than a batch of 8, so some come more than once in a step"
    assert views.few_note(config("train.batch_size=8"), manifest) == f"{words}; all training clips are of one recording"
    contrast = config("train.batch_size=1", "objective.global_kind=contrastive")
    assert views.few_note(contrast, manifest).endswith("so the contrastive global loss has nothing to tell apart")
    assert views.few_note(config("train.batch_size=2"), synth) is None


def test_a_range_of_corruption_ratios_is_said():
    note = "the corruption ratio of a view is drawn between mask.ratio_min=0.7 and mask.ratio=0.9"
    assert views.ratio_note(config("mask.ratio=0.9")).startswith(note)
    assert views.ratio_note(config()) is views.ratio_note(config("mask.ratio=0.5")) is None
    assert views.ratio_note(config("mask.ratio=0.9", "mask.kinds={alien: 1}")) is None


def test_files_of_a_lower_rate_than_the_features_are_said(tmp_path, synth):
    ramp_file(tmp_path / "a.wav", 3.0)
    manifest = load_manifest(f"folder:{tmp_path}")
    (note,) = [note for note in views.crop_notes(config("features.sample_rate=16000"), manifest, 1) if "rate" in note]
    assert note.startswith("1 of 1 clips have a sample rate below features.sample_rate 16000 Hz (down to 8000 Hz)")
    assert (
        views.rate_note(config(), manifest) is None
        and views.rate_note(config("features.sample_rate=44100"), synth) is None
    )
