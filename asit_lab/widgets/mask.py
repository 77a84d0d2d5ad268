"""The mask explorer: shows and plays what pretraining hides of a clip."""

import html
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from ..config import RunConfig, load_config
from ..data import DataSource
from ..errors import InputError
from ..features import LOG_FLOOR, LogMel
from ..figures.axes import MelAxes
from ..masking import gmml, inverse_blocks, token_mask
from ..settings import Mask
from .base import Explorer, Sound, labelled, seed_entry, whole_number
from .clips import ClipChooser
from .copy_text import CopyText
from .corruption import Donor, drawn_masks, fill, mask_key
from .mask_controls import block_controls, fit_start, ratio_slider, start_slider
from .mask_numbers import SEEDS, shares_over_seeds
from .overview import Overview
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


class ChosenMask(NamedTuple):
    """What is hidden, and what stands there; of any clip."""

    pixels: np.ndarray
    """bool [frames, mels]"""
    kind: str
    seed: int
    description: str


class MaskExplorer(Explorer):
    """Corrupt a clip as pretraining does, to see and hear the result; draw a mask by hand, compare two.

    Crop length, log-mel, patches and where the controls start are those of the configuration `preset` (a preset, a
    YAML file, a run, or a RunConfig). Seed n gives the blocks that `Encoder.reconstruct(seed=n)` draws for a clip of
    that length.
    """

    def __init__(
        self,
        data: DataSource = "synth:examples",
        preset: str | Path | RunConfig = "asit-vit-s",
        clip: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.picture = SpectrogramView()
        self.saved = (self.picture,)
        with self.errors_in_words():
            self._build(preset if isinstance(preset, RunConfig) else load_config(preset), data, clip, seed)

    def _build(self, cfg: RunConfig, data: DataSource, clip: int, seed: int) -> None:
        self.cfg = cfg
        self.front_end = LogMel.from_config(cfg.features)
        self.clean: Tensor | None = None  # [1, frames, mels], normalised, padded to a crop
        self._counted: tuple = ()  # block settings that the table over seeds is of
        self.corrupted: Tensor | None = None  # [frames, mels], NaN where nothing is seen
        self.frames = 0  # of `clean` before its padding
        self.first = 0.0  # s, where in the clip the crop starts
        self.drawn: np.ndarray | None = None  # mask drawn by hand, bool [frames, mels]
        self.kept: ChosenMask | None = None  # beside which the mask is shown
        self._clean_wave: np.ndarray | None = None
        self.chooser = ClipChooser(data, clip, cfg.features.sample_rate)
        self._make_controls(seed)
        self.summary, self.numbers = ipywidgets.HTML(), ipywidgets.HTML()
        blocks = [self.ratio, self.block, self.side, self.align, self.seed]
        masks = [self.kind, self.donor.control, *blocks, self.beside, self.over_seeds, self.overrides]
        sounds = [self.listen, self.original, self.clean_sound, self.corrupted_sound]
        self.overview = Overview(self.start)
        pictures = [self.summary, self.numbers, self.overview, self.picture]
        self.arrange([self.chooser, self.start, *masks, *sounds], pictures)
        self.chooser.observe(lambda _change: self._answer(self._take), names="changed")
        self.on(self.start, self._cut)
        self.on([self.kind, self.donor.control], self.redraw)
        self.on(blocks, lambda: self._take_drawn(None))
        self.on(self.beside, self._keep)
        self.on_click(self.over_seeds, self._count_over_seeds)
        self.on_click(self.listen, self._make_sounds)
        self.picture.drawable = True
        self.picture.on_drawn = lambda mask: self._answer(lambda: self._take_drawn(mask))
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
        self.donor = Donor(self.chooser, self.cfg.data.crop_seconds)
        self.beside = labelled(ipywidgets.ToggleButton(False, icon="columns"), "keep beside", _BESIDE)
        self.over_seeds = labelled(ipywidgets.Button(icon="bar-chart"), f"shares over {SEEDS} seeds", _OVER_SEEDS)
        self.overrides = CopyText()
        self.listen = labelled(ipywidgets.Button(icon="volume-up"), _LISTEN)
        self.original, self.clean_sound, self.corrupted_sound = map(Sound, ("recording", "clean", "corrupted"))

    # --- The clip -----------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Another clip."""
        rate = self.chooser.sample_rate
        with self._one_redraw():
            self.donor.offer()
            fit_start(self.start, self.chooser.wave, rate, self.cfg.crop_samples / rate)
            self.overview.show(self.chooser.wave, rate, self.cfg.crop_samples / rate)
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

    # --- The mask -----------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Draw the mask the controls describe, or the one drawn by hand."""
        if self._steady:
            return
        self._show_controls()
        if self.clean is None:
            raise InputError("there is no clip to corrupt yet")
        if self._counted != self._block_settings():
            self.numbers.value = ""
        chosen = self._chosen()
        self.corrupted, pixels = self._fill(chosen), chosen.pixels
        tokens = token_mask(torch.from_numpy(pixels)[None], self.cfg.model.patch)[0].numpy()
        shares = 100 * pixels.mean(), 100 * tokens.mean()
        clean = self._unpadded(self.clean[0])
        panels = [
            Panel("clean", f"clean: {self.chooser.name}", clean, sound="clean"),
            Panel(
                "corrupted",
                f"corrupted: {shares[0]:.1f} % of pixels, {chosen.description}",
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
        if self.kept is not None:
            title = f"kept: {100 * self.kept.pixels.mean():.1f} % of pixels, {self.kept.description}"
            panels.insert(1, Panel("kept", title, self._unpadded(self._fill(self.kept)), outline=True, kept=True))
            panels = [panels[place] for place in (0, 3, 2, 1)]  # both masks in one row
        features = self.cfg.features
        scene = Scene(
            panels,
            MelAxes.of(features, normalised=True, start=self.first),
            (float(features.std), float(features.mean)),
            columns=1 if self.kept is None else 2,
            mask=pixels,
            kept_mask=None if self.kept is None else self.kept.pixels,
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

    def _show_controls(self) -> None:
        """Those that the kind has."""
        inverse, alien = self.kind.value == INVERSE, self.kind.value == "alien"
        for control, visible in (
            (self.block, not inverse),
            (self.align, not inverse),
            (self.side, inverse),
            (self.donor.control, alien),
        ):
            control.layout.display = None if visible else "none"
        self.overrides.text = self.settings_as_overrides()

    def settings_as_overrides(self) -> str:
        """The controls' mask as settings of a configuration, as `pretrain` and the notebooks take them."""
        share = self.ratio.value / 100
        if self.kind.value == INVERSE:
            return f"asda.visible={1 - share:g} asda.block={self.side.value}"
        others = [f"mask.kinds.{other}=0" for other in self.cfg.mask.kinds if other != self.kind.value]
        kinds = " ".join([f"mask.kinds.{self.kind.value}=1", *others])
        ratio = f"mask.alien_ratio={share:g}" if self.kind.value == "alien" else f"mask.ratio={share:g}"
        blocks = f"mask.block={self.block.value / 100:g} mask.align={str(self.align.value).lower()}"
        return f"{kinds} {ratio} mask.ratio_min={share:g} {blocks}"

    def _take_drawn(self, mask: np.ndarray | None) -> None:
        """Show a mask drawn by hand; None: blocks of the seed."""
        if self._steady:
            return
        self.drawn = mask
        self.redraw()

    def _keep(self) -> None:
        """Keep the mask beside the ones to come, or no longer."""
        self.kept = self._chosen() if self.beside.value else None
        self.redraw()

    def _chosen(self) -> ChosenMask:
        """The mask that the controls or the mouse have drawn."""
        kind, seed = self.kind.value, whole_number(self.seed)
        if kind == INVERSE:
            side = self.side.value
            words = f"visible blocks of {side} x {side} patches" if self.drawn is None else "drawn by hand"
            return ChosenMask(self._inverse_pixels(seed), kind, seed, words)
        if self.drawn is not None:
            return ChosenMask(self.drawn, kind, seed, f"drawn by hand, {kind}")
        masks = gmml(mask_key(seed), *self.clean.shape[1:], self._settings(), self.cfg.model.patch)
        return ChosenMask(masks.pixels[0].numpy(), kind, seed, f"{int(masks.blocks)} blocks of {kind}")

    def _block_settings(self) -> tuple:
        """What masks over seeds depend on."""
        shape = tuple(self.clean.shape)
        return self.kind.value, self.ratio.value, self.block.value, self.align.value, shape

    def _settings(self) -> Mask:
        return Mask.of_one_kind(self.kind.value, self.ratio.value / 100, self.block.value / 100, self.align.value)

    def _inverse_pixels(self, seed: int) -> np.ndarray:
        """ASDA's mask, in whole patches: bool [frames, mels]."""
        patch = self.cfg.model.patch
        if self.drawn is None:
            visible = 1 - self.ratio.value / 100
            hidden = inverse_blocks(mask_key(seed), self.cfg.grid, visible, self.side.value)[1].view(self.cfg.grid)
        else:
            hidden = token_mask(torch.from_numpy(self.drawn)[None], patch)[0]
        return hidden.numpy().repeat(patch[0], axis=0).repeat(patch[1], axis=1)

    def _fill(self, chosen: ChosenMask) -> Tensor:
        """The clip, corrupted: [frames, mels]. ASDA leaves hidden patches out, so they are NaN."""
        if chosen.kind == INVERSE:
            return self.clean[0].masked_fill(torch.from_numpy(chosen.pixels), torch.nan)
        donor = self.donor.log_mel(self.front_end, self.clean.shape[1]) if chosen.kind == "alien" else None
        return fill(self.clean, drawn_masks(chosen.pixels, chosen.kind), chosen.seed, donor)[0]

    def _count_over_seeds(self) -> None:
        """Shares and sizes of the masks that other seeds draw, as a table."""
        if self.clean is None:
            raise InputError("there is no clip to corrupt yet")
        if self.kind.value == INVERSE:
            raise InputError("inverse blocks: every seed hides the same share; the kinds of GMML vary")
        shape = tuple(self.clean.shape[1:])
        self.numbers.value = shares_over_seeds(self._settings(), shape, self.cfg.model.patch, self.cfg.features.hop_ms)
        self._counted = self._block_settings()

    def _notes(self) -> list[str]:
        """What the picture does not say by itself."""
        (frames, mels), hop = self.cfg.model.patch, self.cfg.features.hop_ms / 1000
        notes = ["Ratio, block or seed draw blocks again."] if self.drawn is not None else []
        notes += [f"A token is {frames} frames ({1000 * frames * hop:.0f} ms) of {mels} bands."]
        if self.kind.value == "alien":
            notes.append(f"Alien blocks come from {self.donor.name}.")
        if self.kind.value == INVERSE:
            notes.append("Hidden patches are left out of the student's input.")
        else:
            notes.append("It counts as corrupted when at least half of its pixels are.")
        if self.frames < self.cfg.input_frames:
            clip, crop = self.frames * hop, self.cfg.input_frames * hop
            notes.append(f"Grey at the end is padding: {clip:.2f} s of audio in a crop of {crop:.2f} s.")
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
_BESIDE = "keep this mask in a second column while you change the other"
_OVER_SEEDS = "how much other seeds hide, and how large their gaps are"
_SUMMARY = (
    '<div aria-live="polite" style="line-height: 1.5"><b>{:.1f} %</b> of pixels and <b>{:.1f} %</b> of tokens'
    ' ({} of {}) are corrupted. <span style="color: var(--jp-ui-font-color2, #555)">{}</span></div>'
)
