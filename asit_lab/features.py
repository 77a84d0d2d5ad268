"""Batched log-mel equal to Kaldi's fbank, on any device, and its inverse for listening.

Both papers use Kaldi's filter bank: 25 ms Hann frames every 10 ms, pre-emphasis 0.97, frame mean removed, power
spectrum, mel triangles from 20 Hz to half the sample rate, natural log floored at float32's epsilon
(ASiT, arXiv 2211.13189, section IV; torchaudio.compliance.kaldi.fbank with htk_compat=True, use_energy=False,
dither=0 gives the same numbers one clip at a time). The window and the mel bank are built once a module.

Shapes: B clips, S samples, T frames, M mel bands. "raw" is the natural log of mel power; "normalised" is
(raw - mean) / (2 std), as both released code bases do, so that its standard deviation is 0.5.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InputError
from .mel import mel_of
from .settings import Features

_UPDATES = 30  # of the spectrum for a log-mel, after which log energies are off by 0.02 in the mean
PREEMPHASIS = 0.97
LOG_FLOOR = math.log(torch.finfo(torch.float32).eps)  # -15.9424, what a frame of digital silence gives
PAD = 0.0  # raw value of frames past the end of a clip; the released code pads before it normalises
_FRAMES_AT_ONCE = 1 << 14  # of one clip
_CPU_CHUNK = (
    1 << 19
)  # frame samples a CPU works on at once, so that its cache holds them; a large batch is then 1.6 x faster


def mel_bank(mel_bins: int, fft_size: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangular mel filters over power bins, float32 [fft_size // 2 + 1, mel_bins]; the last row (Nyquist) is zero.

    high_hz <= 0 means half the sample rate. As in Kaldi, a filter narrower than a bin may cover none (the second of 128
    at 16 kHz does) and is then always at the floor. Raises InputError for edges out of order or above half the rate.
    """
    high_hz = high_hz if high_hz > 0 else sample_rate / 2
    if not low_hz < high_hz <= sample_rate / 2:
        raise InputError(
            f"features.low_hz {low_hz} and high_hz {high_hz}: need low < high <= {sample_rate / 2} Hz, half the rate"
        )
    edges = np.linspace(mel_of(low_hz), mel_of(high_hz), mel_bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = mel_of(np.arange(fft_size // 2) * sample_rate / fft_size)[:, None]
    weights = np.maximum(0.0, np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)))
    return torch.from_numpy(np.vstack([weights, np.zeros((1, mel_bins))])).float()


class LogMel(nn.Module):
    """Waveform batch -> log-mel batch. Holds no parameters and no saved buffers."""

    def __init__(
        self,
        sample_rate: int = 32000,
        mel_bins: int = 128,
        frame_ms: float = 25.0,
        hop_ms: float = 10.0,
        low_hz: float = 20.0,
        high_hz: float = 0.0,
        mean: float | str = -4.2677393,
        std: float | str = 4.5689974,
    ):
        super().__init__()
        self.sample_rate, self.mel_bins = sample_rate, mel_bins
        self.frame, self.hop = int(sample_rate * frame_ms / 1000), int(sample_rate * hop_ms / 1000)  # samples
        if self.frame < 2 or self.hop < 1:
            raise InputError(f"features: {frame_ms} ms frames every {hop_ms} ms are too short at {sample_rate} Hz")
        self.fft_size = 1 << (self.frame - 1).bit_length()  # Kaldi's round_to_power_of_two
        if isinstance(mean, str) or isinstance(std, str):
            raise InputError("features.mean, features.std: auto is measured when pretraining starts; give numbers here")
        self.mean, self.std = mean, std
        window = torch.hann_window(self.frame, periodic=False, dtype=torch.float64).float()
        self.register_buffer("window", window, persistent=False)
        bank = mel_bank(mel_bins, self.fft_size, sample_rate, low_hz, high_hz)
        self.register_buffer("bank", bank, persistent=False)

    @classmethod
    def from_config(cls, features: Features) -> "LogMel":
        """The front end a configuration describes."""
        return cls(**features.model_dump())

    def frames_of(self, samples: int | Tensor) -> int | Tensor:
        """Whole frames in a number of samples (int or int64 tensor); Kaldi's snip_edges."""
        if isinstance(samples, Tensor):
            return torch.clamp(1 + (samples - self.frame).div(self.hop, rounding_mode="floor"), min=0)
        return max(0, 1 + (samples - self.frame) // self.hop)

    def _apply(self, fn, recurse: bool = True) -> "LogMel":
        """`half()` and `bfloat16()` of a model leave the front end in float32: a log-mel in less is another one."""

        def in_full(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype.itemsize >= 4 else tensor.to(moved.device)

        return super()._apply(in_full, recurse)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """float [B, S] in [-1, 1] -> raw log-mel float32 [B, T, M] (float64 after `double()`).

        lengths: int64 [B], valid samples of each clip; frames past them become `PAD`, as in the released code.
        Raises InputError when a clip is shorter than one frame.
        """
        if not isinstance(wave, Tensor) or not wave.is_floating_point():
            kind = wave.dtype if isinstance(wave, Tensor) else type(wave).__name__
            raise InputError(f"wave: expected a floating-point tensor, got {kind}")
        if wave.ndim != 2:
            raise InputError(f"wave: expected [batch, samples], got shape {tuple(wave.shape)}")
        frames = self.frames_of(wave.shape[1])
        if frames == 0:
            raise InputError(f"wave: {wave.shape[1]} samples are shorter than one frame of {self.frame}")
        with torch.autocast(wave.device.type, enabled=False):
            wave = wave.to(self.window.dtype)  # float32, or float64 after double()
            if lengths is None:
                wave = wave - wave.mean(1, keepdim=True)
            else:
                valid = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
                mean = (wave * valid).sum(1, keepdim=True) / lengths[:, None].clamp(min=1)
                wave = (wave - mean) * valid
            chunk = max(1, _CPU_CHUNK // (frames * self.fft_size)) if wave.device.type == "cpu" else len(wave)
            log_mel = torch.cat([self._in_pieces(part, frames) for part in wave.split(chunk)])
        if lengths is not None:
            past = torch.arange(frames, device=wave.device) >= self.frames_of(lengths)[:, None]  # [B, T]
            log_mel = log_mel.masked_fill(past[..., None], PAD)
        return log_mel

    def _in_pieces(self, wave: Tensor, frames: int) -> Tensor:
        """Of hours, a few minutes at a time: the frames and their spectra take 12 times the memory of the samples."""
        pieces = [
            self._raw(wave[:, first * self.hop : (min(first + _FRAMES_AT_ONCE, frames) - 1) * self.hop + self.frame])
            for first in range(0, frames, _FRAMES_AT_ONCE)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def pieces(self, waves: Iterable[np.ndarray | Tensor]) -> Iterator[Tensor]:
        """Raw log-mel of a recording whose samples come one block [samples] after the other: a piece float [T', M] for
        each block that ends a frame, all together `forward` of the whole."""
        waiting, skipped = (
            torch.zeros(0, device=self.window.device),
            0,
        )  # skipped: samples between frames, still to come
        for block in waves:
            waiting = torch.cat([waiting, torch.as_tensor(block).to(self.window)[skipped:]])
            skipped = max(0, skipped - len(block))
            frames = int(self.frames_of(len(waiting)))
            if frames:
                yield self._in_pieces(waiting[None], frames)[0]
                skipped = max(0, frames * self.hop - len(waiting))
                waiting = waiting[frames * self.hop :]

    def _raw(self, wave: Tensor) -> Tensor:
        # Kaldi removes each frame's mean m and then pre-emphasises: x[t] - m - 0.97 (x[t-1] - m). The pre-emphasis of
        # the whole signal is shared by the overlapping frames, and what is left of the mean is 0.03 m. The first
        # sample of a frame would need its own rule, but the Hann window is zero there.
        emphasised = torch.cat([wave[:, :1], wave[:, 1:] - PREEMPHASIS * wave[:, :-1]], dim=1)
        frame_mean = wave.unfold(1, self.frame, self.hop).mean(-1, keepdim=True)  # [b, T, 1]
        frames = emphasised.unfold(1, self.frame, self.hop) - (1.0 - PREEMPHASIS) * frame_mean  # [b, T, frame]
        spectrum = torch.fft.rfft(frames * self.window, n=self.fft_size)  # [b, T, fft/2 + 1]
        power = torch.view_as_real(spectrum).square().sum(-1)
        return (power @ self.bank).clamp_(min=torch.finfo(torch.float32).eps).log_()

    def normalise(self, raw: Tensor) -> Tensor:
        """(raw - mean) / (2 std); any shape."""
        return (raw - self.mean) / (2.0 * self.std)

    def denormalise(self, normalised: Tensor) -> Tensor:
        """Inverse of `normalise`; any shape."""
        return normalised * (2.0 * self.std) + self.mean

    def fit(self, raw: Tensor, frames: int) -> Tensor:
        """Cut [B, T, M] to `frames` or pad it with `PAD`, before normalising."""
        missing = frames - raw.shape[1]
        return raw[:, :frames] if missing <= 0 else nn.functional.pad(raw, (0, 0, 0, missing), value=PAD)

    def invert(self, raw, iterations: int = 16) -> np.ndarray:
        """Raw log-mel [T, M] -> waveform float32 [samples], to hear it: non-negative least squares for the spectrum
        (multiplicative updates of Lee and Seung 2001), Griffin-Lim with momentum for its phase, then the pre-emphasis
        undone. Peak at most 1."""
        from scipy.signal import lfilter
        from torchaudio.functional import griffinlim

        raw = torch.as_tensor(np.asarray(raw, dtype=np.float64))
        if raw.ndim != 2 or raw.shape[1] != self.mel_bins:
            raise InputError(f"log-mel: expected [frames, {self.mel_bins}], got shape {tuple(raw.shape)}")
        bank = self.bank.cpu().double()  # [bins, M]
        power = target = bank @ raw.T.exp() + 1e-30  # [bins, T]
        for _ in range(_UPDATES):
            power = power * target / (bank @ (bank.T @ power) + 1e-30)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the phases that it begins with
            emphasised = griffinlim(
                power.sqrt().float()[None],
                window=torch.hann_window(self.frame),
                n_fft=self.fft_size,
                hop_length=self.hop,
                win_length=self.frame,
                power=1.0,
                n_iter=iterations,
                momentum=0.99,
                length=None,
                rand_init=True,
            )[0].numpy()
        wave = lfilter([1.0], [1.0, -PREEMPHASIS], emphasised)
        return (wave / max(1.0, np.abs(wave).max())).astype(np.float32)

    def extra_repr(self) -> str:
        return f"{self.sample_rate} Hz, {self.mel_bins} mel, frame {self.frame}, hop {self.hop} samples"
