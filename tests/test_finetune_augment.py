"""What is done to clips while fine-tuning: against torchaudio and by hand; counted, whoever asks."""

import numpy as np
import pytest
import torch
import torchaudio

from asit_lab import random
from asit_lab.features import LogMel
from asit_lab.finetuning import load_recipe
from asit_lab.finetuning.augment import augmented, beta, masked, mixed, rolled, shifted
from asit_lab.finetuning.batches import ClipsToTest, TrainingClips, class_odds, windows

FRONT_END = LogMel(16000, 64, mean=-7.0, std=4.5)


def keys(n, *parts):
    return random.key(3, torch.arange(n), *parts)


def test_beta():
    drawn = beta(keys(4000, "beta"), 10.0)
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(1 / 84, rel=0.1)  # 1 / (4 (2 a + 1))
    np.testing.assert_array_equal(beta(keys(4000, "beta")[7:9], 10.0), drawn[7:9])


def test_mixing_waveforms():
    first, second = np.float32([1, 3, 5, 7]), np.float32([2, 4])
    np.testing.assert_allclose(mixed(first, second, 0.75), [-2.5, -0.5, 0.75, 2.25])
    np.testing.assert_allclose(mixed(second, first, 0.5), [-2.0, 0.0])


def test_rolling():
    wave = np.arange(1.0, 101.0, dtype=np.float32)
    found = [rolled(wave, key) for key in keys(300)]
    starts = np.array([(one / (one.sum() / wave.sum())).round()[0] for one in found])
    gains = np.array([one.sum() / wave.sum() for one in found])
    for one, gain in zip(found, gains, strict=True):
        np.testing.assert_allclose(np.sort(one), np.sort(wave) * gain, rtol=1e-4)
    assert len(set(starts)) > 80 and gains.mean() == pytest.approx(1.0, abs=0.03) and gains.std() > 0.08


def test_masks_are_torchaudios_and_leave_the_generator_alone():
    x = torch.rand(5, 40, 24) + 1
    before = torch.random.get_rng_state()
    ours = masked(x, 8, 20, random.key(1, "SpecAugment"))
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(int(random.key(1, "SpecAugment")))
        theirs = torchaudio.transforms.FrequencyMasking(8, iid_masks=True)(x.transpose(1, 2))
        theirs = torchaudio.transforms.TimeMasking(20, iid_masks=True)(theirs).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    hidden = ours == 0
    assert (hidden.all(1).sum(1) < 8).all() and (hidden.all(2).sum(1) < 20).all()  # whole bands, whole frames
    assert hidden.any() and len({tuple(one.all(1).tolist()) for one in hidden}) > 1  # each clip has its own
    assert masked(x, 0, 0.9, random.key(1)) is x


def test_shift():
    x = torch.arange(30.0).view(1, 30, 1).repeat(200, 1, 2)
    found = shifted(x, keys(200), 3)
    by = found[:, 0, 0]
    assert set(by.tolist()) == {0, 1, 2, 3, 27, 28, 29}
    torch.testing.assert_close(found, torch.stack([torch.roll(x[0], int(-place), 0) for place in by]))


def test_order_of_the_whole():
    """AST masks the raw log-mel, so that a stripe is at 0 before normalising; ASDA the normalised one, at 0 after."""
    raw, targets = torch.full((4, 96, 64), -20.0), torch.eye(4)
    zero = float(FRONT_END.normalise(torch.tensor(0.0)))
    recipe = load_recipe("ast-esc50")
    x, same = augmented(raw, targets, recipe, FRONT_END, keys(4))
    assert torch.equal(same, targets) and set(x.unique().tolist()) == {zero, float(FRONT_END.normalise(raw[0, 0, 0]))}
    x, _ = augmented(raw, targets, load_recipe("asda-esc50"), FRONT_END, keys(4))
    assert 0.0 in x.unique() and zero not in x.unique()
    plain, _ = augmented(raw, targets, load_recipe("superb-voxceleb1"), FRONT_END, keys(4))
    torch.testing.assert_close(plain, FRONT_END.normalise(raw))


def test_noise():
    raw = torch.zeros(50, 10, 8)
    recipe = load_recipe("superb-voxceleb1", ["noise=true"])
    noise = augmented(raw, torch.zeros(50, 2), recipe, FRONT_END, keys(50))[0] - FRONT_END.normalise(raw)
    assert noise.min() >= -1e-6 and noise.max() <= 0.1
    heights = noise.amax((1, 2))
    assert heights.min() < 0.02 and heights.max() > 0.08
    again = augmented(raw[:3], torch.zeros(3, 2), recipe, FRONT_END, keys(3))[0]
    torch.testing.assert_close(again - FRONT_END.normalise(raw[:3]), noise[:3])


def test_mixing_log_mels():
    recipe = load_recipe("asda-audioset-20k", ["masked=0"])
    raw, targets = torch.rand(4, 16, 8), torch.eye(4)
    plain, shares = FRONT_END.normalise(raw), []
    for step in range(60):
        x, soft = augmented(raw, targets, recipe, FRONT_END, random.key(step, torch.arange(4)))
        share = float(soft[0, 0])
        torch.testing.assert_close(x, share * plain + (1 - share) * plain.flip(0))
        torch.testing.assert_close(soft, share * targets + (1 - share) * targets.flip(0))
        shares.append(share)
    assert 0.7 < np.mean(np.array(shares) < 1) < 1.0  # nine in ten


# --- Which clips ----------------------------------------------------------------------------------------------------


class Counted:
    """A reader whose clip n is all n, 10 samples long."""

    rows = [(str(n), 0.0, 1.0) for n in range(40)]

    def stretch(self, row, samples, place=0.0):
        return np.full(10, row, np.float32) + np.linspace(0, 0.5, 10, dtype=np.float32)


def clips(overrides, rows=None, targets=None):
    rows = np.arange(5, 25) if rows is None else rows
    targets = torch.eye(40).bool() if targets is None else targets
    recipe = load_recipe("superb-voxceleb1", ["accumulate=1", "batch_size=6", "crop=start", *overrides])
    return TrainingClips(Counted(), rows, targets, recipe, 10, seed=0)


def test_an_epoch_sees_every_training_clip_once():
    data = clips([])
    epochs = [np.concatenate([data.chosen(4 * epoch + i) for i in range(4)]) for epoch in range(2)]
    assert [len(data.chosen(i)) for i in range(4)] == [6, 6, 6, 2]
    for epoch in epochs:
        assert sorted(epoch) == list(range(5, 25))
    assert list(epochs[0]) != list(epochs[1])
    batch = data.batch(1)
    np.testing.assert_array_equal(batch.waves[:, 0].numpy(), data.chosen(1))
    assert torch.equal(batch.targets, torch.eye(40)[data.chosen(1)])


def test_mixed_labels_follow_the_waves():
    data = clips(["mixup=1.0", "mixup_beta=1.0"])
    batch = data.batch(0)
    for wave, target, row in zip(batch.waves, batch.targets, data.chosen(0), strict=True):
        assert target.sum() == pytest.approx(1.0) and 0 < target[row] <= 1
        assert abs(float(wave.mean())) < 1e-5
    partners = [int(t.argsort()[-2]) for t in batch.targets if t.max() < 1]
    assert partners and set(partners) <= set(range(5, 25))  # training clips alone
    assert (clips(["mixup=0.5"]).batch(0).targets.amax(1) < 1).any()


def test_balanced_sampling():
    """One class has 18 clips, the other two: both are drawn as often."""
    targets = torch.zeros(40, 2).bool()
    targets[:23, 0], targets[23:, 1] = True, True
    data = clips(["balanced=true", "epoch_clips=600"], targets=targets)
    assert data.recipe.steps_per_epoch(20) == 100
    drawn = np.concatenate([data.chosen(step) for step in range(100)])
    assert set(drawn) <= set(range(5, 25))
    assert (drawn >= 23).mean() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_allclose(
        class_odds(torch.tensor([[1, 0], [1, 1], [1, 0], [0, 0]]).bool()), [1 / 3, 4 / 3, 1 / 3, 0]
    )


def test_an_unreadable_clip_is_replaced_and_named():
    from asit_lab import InputError

    class Broken(Counted):
        def stretch(self, row, samples, place=0.0):
            if row == 7:
                raise InputError("7: broken")
            return super().stretch(row, samples, place)

    data = clips(["mixup=0"])
    data.reader = Broken()
    batches = [data.batch(step) for step in range(4)]
    assert [bad for batch in batches for bad in batch.bad] == [("7", "broken")]
    assert 7 not in {int(wave[0]) for batch in batches for wave in batch.waves}
    for batch in batches:
        np.testing.assert_array_equal(batch.waves[:, 0].numpy(), batch.targets.argmax(1).numpy())


def test_windows_cover_a_clip():
    wave = np.arange(25, dtype=np.float32)
    found, length = windows(wave, 10)
    assert length == 10 and [one[0] for one in found] == [0, 10, 15]
    assert windows(wave[:20], 10)[0].shape == (2, 10)
    short, length = windows(wave[:7], 10)
    assert length == 7 and short.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 0, 0]]
    tests = ClipsToTest(Counted(), np.arange(7), load_recipe("micro", ["batch_size=4", "crop=start"]), 10)
    assert tests.batches == 2 and [row for row, *_ in tests[1]] == [4, 5, 6]
