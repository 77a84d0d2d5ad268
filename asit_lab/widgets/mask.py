"""The mask explorer: shows and plays what pretraining hides of a clip."""

import html

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from ..config import RunConfig, load_config
from ..data import DataSource
from ..errors import InputError
from ..features import LOG_FLOOR, LogMel
from ..figures.axes import MelAxes
from ..masking import corrupt, gmml, inverse_blocks
from ..random import key
from ..settings import Mask
from .base import Explorer, Sound, labelled, seed_entry, whole_number
from .clips import ClipChooser, clip_name
from .mask_controls import block_controls, fit_start, ratio_slider, start_slider
from .scene import Panel, Scene
from .spectrogram_view import SpectrogramView

INVERSE = "inverse"
KIND_LABELS = {
    "zeros (mean level)": "zeros",
    "noise": "noise",
    "alien (another clip)": "alien",
    "time strips": "time",
    "frequency strips": "frequency",
    "inverse (ASDA)": INVERSE,
}


class MaskExplorer(Explorer):
    """Corrupt a clip as pretraining does, to see and hear the result.

    Crop length, log-mel, patches and where the controls start are those of the configuration `preset` (a preset, a
    YAML file or a run). Seed n gives the blocks that `Encoder.reconstruct(seed=n)` draws for a clip of that length.
    """

    def __init__(self, data: DataSource = "synth:examples", preset: str = "asit-vit-s", clip: int = 0, seed: int = 0):
        super().__init__()
        self.picture = SpectrogramView()
        self.saved = (self.picture,)
        with self.errors_in_words():
            self._build(load_config(preset), data, clip, seed)

    def _build(self, cfg: RunConfig, data: DataSource, clip: int, seed: int) -> None:
        self.cfg = cfg
        self.front_end = LogMel.from_config(cfg.features)
        self.clean: Tensor | None = None  # [1, frames, mels], normalised, padded to a crop
        self.corrupted: Tensor | None = None  # [frames, mels], NaN where nothing is seen
        self.frames = 0  # of `clean` before its padding
        self.first = 0.0  # s, where in the clip the crop starts
        self._donor: tuple[str, int, Tensor] | None = None  # data set, row and log-mel that alien blocks come from
        self._clean_wave: np.ndarray | None = None
        self.chooser = ClipChooser(data, clip, cfg.features.sample_rate)
        self._make_controls(seed)
        self.summary = ipywidgets.HTML()
        masks = [self.kind, self.ratio, self.block, self.side, self.align, self.seed]
        sounds = [self.listen, self.original, self.clean_sound, self.corrupted_sound]
        self.arrange([self.chooser, self.start, *masks, *sounds], [self.summary, self.picture])
        self.chooser.observe(lambda _change: self._answer(self._take), names="changed")
        self.on(self.start, self._cut)
        self.on(masks, self.redraw)
        self.on_click(self.listen, self._make_sounds)
        self._take()

    def _make_controls(self, seed: int) -> None:
        mask, asda = self.cfg.mask, self.cfg.asda
        usual = max(KIND_LABELS.values(), key=lambda kind: mask.odds.get(kind, -1.0))
        first = INVERSE if self.cfg.objective.name == "asda" else usual
        share = {INVERSE: 1 - asda.visible, "alien": mask.alien_ratio}.get(first, mask.ratio)
        self.start = start_slider()
        self.kind = ipywidgets.Dropdown(options=list(KIND_LABELS.items()), value=first)
        self.ratio = ratio_slider(share)
        self.block, self.side, self.align = block_controls(self.cfg)
        self.seed = seed_entry(seed)
        labelled(self.kind, "kind", "what stands in the corrupted blocks")
        labelled(self.ratio, "ratio (%)", "corruption ratio: share of the pixels (inverse blocks: of the patches)")
        self.listen = labelled(ipywidgets.Button(icon="volume-up"), _LISTEN)
        self.original, self.clean_sound, self.corrupted_sound = map(Sound, ("recording", "clean", "corrupted"))

    # --- The clip -----------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Another clip."""
        rate = self.chooser.sample_rate
        with self._one_redraw():
            fit_start(self.start, self.chooser.wave, rate, self.cfg.crop_samples / rate)
        self._cut()

    def _cut(self) -> None:
        """The crop that starts where the slider stands."""
        if self._steady:
            return
        first = round(self.start.value * self.chooser.sample_rate)
        crop = self.chooser.wave[first : first + self.cfg.crop_samples]
        self.clean, self.frames = self._log_mel(crop)
        self.first = first / self.chooser.sample_rate
        self.picture.fit(self._unpadded(self.clean[0]))
        self.original.load(crop, self.chooser.sample_rate)
        self._clean_wave = None
        self.clean_sound.load(None, 0)
        self.redraw()

    def _log_mel(self, crop: np.ndarray) -> tuple[Tensor, int]:
        """(normalised log-mel [1, frames, mels] padded to a crop as in pretraining, frames before the padding)."""
        raw = self.front_end(torch.from_numpy(crop)[None])
        fitted = self.front_end.fit(raw, self.cfg.input_frames)
        return self.front_end.normalise(fitted), min(raw.shape[1], self.cfg.input_frames)

    def _donor_log_mel(self) -> Tensor:
        """Log-mel [1, frames, mels] of the clip after this one in the data set, where alien blocks come from."""
        manifest, row = self.chooser.manifest, self.chooser.row
        if manifest is None or (row is not None and len(manifest) < 2):
            raise InputError("kind alien: blocks of another clip need a data set of at least two clips")
        row = 0 if row is None else (row + 1) % len(manifest)
        if self._donor is None or self._donor[:2] != (manifest.source, row):
            crop = manifest.read(row, self.cfg.features.sample_rate, 0.0, self.cfg.data.crop_seconds)
            self._donor = (manifest.source, row, self._log_mel(crop)[0])
        return self._donor[2]

    # --- The mask -----------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Draw the mask the controls describe."""
        inverse = self.kind.value == INVERSE
        for control, visible in ((self.block, not inverse), (self.align, not inverse), (self.side, inverse)):
            control.layout.display = None if visible else "none"
        if self.clean is None:
            raise InputError("there is no clip to corrupt yet")
        self.corrupted, pixels, tokens, how = self._inverse() if inverse else self._blocks()
        shares = 100 * pixels.mean(), 100 * tokens.mean()
        clean = self._unpadded(self.clean[0])
        panels = [
            Panel("clean", f"clean: {self.chooser.name}", clean, sound="clean"),
            Panel(
                "corrupted",
                f"corrupted: {shares[0]:.1f} % of pixels, {how}",
                self._unpadded(self.corrupted),
                outline=True,
                sound="corrupted",
            ),
            Panel(
                "tokens",
                f"corrupted tokens (grey): {shares[1]:.1f} %, {tokens.sum()} of {tokens.size}",
                clean,
                tokens=True,
            ),
        ]
        features = self.cfg.features
        scene = Scene(
            panels,
            MelAxes.of(features, normalised=True, start=self.first),
            (float(features.std), float(features.mean)),
            mask=pixels,
            tokens=tokens,
            patch=self.cfg.model.patch,
            file=f"mask {self.chooser.name}",
        )
        alt = f"{self.chooser.name}: log-mel clean, corrupted on {shares[0]:.0f} % of pixels, and its corrupted tokens."
        self.picture.show(scene, alt)
        self.summary.value = _SUMMARY.format(*shares, tokens.sum(), tokens.size, html.escape(" ".join(self._notes())))
        if self.corrupted_sound.layout.display != "none":  # it was that of another mask
            self.corrupted_sound.load(None, 0)

    def _unpadded(self, log_mel: Tensor) -> np.ndarray:
        """[frames, mels] with NaN where a short clip is padded."""
        unpadded = log_mel.clone()
        unpadded[self.frames :] = torch.nan
        return unpadded.numpy()

    def _keys(self) -> Tensor:
        return key(whole_number(self.seed), 0, torch.arange(1), "reconstruct")  # as Encoder.draw_mask

    def _blocks(self) -> tuple[Tensor, np.ndarray, np.ndarray, str]:
        """GMML's corruption: log-mel, pixel mask, token mask, and how it was made in words."""
        kind, share = self.kind.value, self.ratio.value / 100
        settings = Mask.of_one_kind(kind, share, self.block.value / 100, self.align.value)
        keys, patch = self._keys(), self.cfg.model.patch
        masks = gmml(keys, *self.clean.shape[1:], settings, patch)
        if kind == "alien":
            corrupted = torch.where(masks.pixels, self._donor_log_mel(), self.clean)
        else:
            corrupted = corrupt(self.clean, masks, keys)
        how = f"{int(masks.blocks)} blocks of {kind}"
        return corrupted[0], masks.pixels[0].numpy(), masks.tokens(patch)[0].numpy(), how

    def _inverse(self) -> tuple[Tensor, np.ndarray, np.ndarray, str]:
        """ASDA's mask, as `_blocks`: hidden patches are not corrupted but left out, so they are NaN."""
        visible = 1 - self.ratio.value / 100
        hidden = inverse_blocks(self._keys(), self.cfg.grid, visible, self.side.value)[1]
        tokens = hidden.view(self.cfg.grid).numpy()
        pixels = tokens.repeat(self.cfg.model.patch[0], axis=0).repeat(self.cfg.model.patch[1], axis=1)
        corrupted = self.clean[0].masked_fill(torch.from_numpy(pixels), torch.nan)
        return corrupted, pixels, tokens, f"visible blocks of {self.side.value} x {self.side.value} patches"

    def _notes(self) -> list[str]:
        """What the picture does not say by itself."""
        (frames, mels), hop = self.cfg.model.patch, self.cfg.features.hop_ms / 1000
        notes = [f"A token is {frames} frames ({1000 * frames * hop:.0f} ms) of {mels} bands."]
        if self.kind.value == "alien":
            notes.append(f"Alien blocks come from {clip_name(self.chooser.manifest, self._donor[1])}.")
        if self.kind.value == INVERSE:
            notes.append("Hidden patches are left out of the student's input.")
        else:
            notes.append("It counts as corrupted when at least half of its pixels are.")
        if self.frames < self.cfg.input_frames:
            clip, crop = self.frames * hop, self.cfg.input_frames * hop
            notes.append(f"Pale grey at the end is padding: {clip:.2f} s of audio in a crop of {crop:.2f} s.")
        return notes

    # --- The sound ----------------------------------------------------------------------------------------------

    def _make_sounds(self) -> None:
        """Make the clean and the corrupted log-mel audible; what is hidden is silent."""
        if self.clean is None:
            raise InputError("there is no clip to hear yet")
        self.listen.disabled, self.listen.description = True, "making the sounds ..."
        try:
            if self._clean_wave is None:
                self._clean_wave = self._audible(self.clean[0])
            self.clean_sound.load(self._clean_wave, self.cfg.features.sample_rate)
            self.corrupted_sound.load(self._audible(self.corrupted), self.cfg.features.sample_rate)
        finally:
            self.listen.disabled, self.listen.description = False, _LISTEN

    def _audible(self, log_mel: Tensor) -> np.ndarray:
        raw = self.front_end.denormalise(log_mel[: self.frames])
        return self.front_end.invert(torch.nan_to_num(raw, nan=LOG_FLOOR))


_LISTEN = "Hear the log-mels"
_SUMMARY = (
    '<div aria-live="polite" style="line-height: 1.5"><b>{:.1f} %</b> of pixels and <b>{:.1f} %</b> of tokens'
    ' ({} of {}) are corrupted. <span style="color: var(--jp-ui-font-color2, #555)">{}</span></div>'
)
