"""The reconstruction explorer: what a model fills in for hidden parts of a clip, snapshot by snapshot."""

import html
from pathlib import Path

import ipywidgets
import numpy as np
import torch

from ..data import DataSource
from ..encoder import Encoder
from ..errors import InputError
from ..figures import MelAxes
from ..masking import gmml, token_mask
from ..settings import MASK_KINDS, Mask
from . import snapshots_compared as compared
from .base import Explorer, Sound, labelled, seed_entry, whole_number
from .clips import ClipChooser
from .corruption import Donor, drawn_masks, fill, mask_key
from .mask_controls import block_controls, fit_start, ratio_slider, start_slider
from .overview import Overview
from .reconstruction_numbers import error_table
from .scene import Panel, Scene
from .spectrogram_view import SpectrogramView

_LISTEN = "Hear the log-mels"


class ReconstructionExplorer(Explorer):
    """Corrupt a clip and see what an encoder puts in its place: clean, corrupted, reconstructed, pasted, error.

    Pasted is the clip with its reconstruction where it was corrupted. A run can be stepped through, snapshot by
    snapshot; a second encoder of the same features fills in the same mask beside the first. Encoders of ASDA predict
    features, not log-mels: shown is then the error of each hidden patch. Where a clip is longer than the crops of
    pretraining, a crop is shown, with a slider for its place. Seed n gives the blocks that
    `Encoder.reconstruct(seed=n)` draws for a clip of that length.
    """

    def __init__(
        self,
        encoder_or_run: Encoder | str | Path,
        other: Encoder | str | Path | None = None,
        data: DataSource = "synth:examples",
        clip: int = 0,
        seed: int = 0,
    ):
        """encoder_or_run, other: an Encoder, a run (all of its snapshots), or what `zoo.open_source` takes. data, clip:
        a data set and its row. seed: of the mask, and of a preset's untrained weights.
        """
        super().__init__()
        self.picture = SpectrogramView()
        self.saved = (self.picture,)
        self.clean: torch.Tensor | None = None  # the crop's log-mel, normalised [1, T, M]
        self.results: list = []  # of each encoder: its reconstruction, or the error of its features [T, M]
        self.baselines: list[tuple[str, np.ndarray, float]] = []  # name, log-mel [T, M], L1 on corrupted pixels
        self.drawn: np.ndarray | None = None  # mask drawn by hand, bool [T, M]
        with self.errors_in_words():
            sources = [encoder_or_run] if other is None else [encoder_or_run, other]
            self.sources = [compared.Snapshots(source, seed) for source in sources]
            self._make_controls(data, clip, seed)
            self._take()

    # --- Controls ---------------------------------------------------------------------------------------------------

    def _make_controls(self, data: DataSource, clip: int, seed: int) -> None:
        first = [source.encoder(len(source) - 1) for source in self.sources]
        if len(first) == 2:
            compared.check_pair(*first)
        self.reconstructs, self.cfg = compared.predicts_pixels(first[0]), first[0].config
        self.seconds = max(enc.config.data.crop_seconds for enc in first)
        mask, asda = self.cfg.mask, self.cfg.asda
        kinds = {kind: mask.odds[kind] > 0 for kind in MASK_KINDS if kind != "none"}  # whether it was pretrained on
        first_kind = "zeros" if kinds["zeros"] else max(kinds, key=kinds.get)
        share = mask.ratio if self.reconstructs else 1 - asda.visible
        self.chooser = ClipChooser(data, clip, self.cfg.features.sample_rate)
        self.start = start_slider()
        self.overview = Overview(self.start)
        self.snapshots = [self._snapshot_slider(source) for source in self.sources]
        self.ratio = ratio_slider(share)
        options = [(kind + " (pretrained)" * pretrained, kind) for kind, pretrained in kinds.items()]
        self.kind = ipywidgets.Dropdown(options=options, value=first_kind)
        self.donor = Donor(self.chooser, self.seconds)
        self.block, self.side, self.align = block_controls(self.cfg)
        self.seed = seed_entry(seed)
        self.with_baselines = ipywidgets.Checkbox(True, indent=True)
        labelled(self.with_baselines, "baselines", "show a straight line in time, and the mean of each band, as panels")
        for slider, text in zip(self.snapshots, ("step", "step, 2nd run"), strict=False):
            labelled(slider, text, "step of the run after which these weights were kept")
        labelled(self.ratio, "ratio (%)", "corruption ratio: share of the pixels (ASDA: of the patches) that is hidden")
        labelled(self.kind, "kind", "what stands in the corrupted blocks; time and frequency: zeros in full strips")
        self.listen = labelled(ipywidgets.Button(icon="volume-up"), _LISTEN, "Griffin-Lim: takes a few seconds")
        names = ("recording", "clean", "corrupted", *("filled in", "filled in, 2nd")[: len(first)])
        self.recording, *self.sounds = map(Sound, names)
        self.summary = ipywidgets.HTML()
        blocks = [self.ratio, *([self.block, self.align] if self.reconstructs else [self.side]), self.seed]
        others = [self.kind, self.donor.control, self.with_baselines] if self.reconstructs else []
        sounds = [self.listen, self.recording, *self.sounds] if self.reconstructs else [self.recording]
        self.picture.layout.max_width = "920px" if len(first) == 1 else "1300px"
        self.arrange(
            [self.chooser, self.start, *self.snapshots, *others, *blocks, *sounds],
            [self.summary, self.overview, self.picture],
            narrowest=520 if len(first) == 1 else 600,
        )
        self.chooser.observe(lambda _change: self._answer(self._take), names="changed")
        self.on(self.start, self._cut)
        self.on([*self.snapshots, *others], self.redraw)
        self.on(blocks, lambda: self._take_drawn(None))
        self.picture.drawable = True
        self.picture.on_drawn = lambda mask: self._answer(lambda: self._take_drawn(mask))
        self.on_click(self.listen, self._make_sounds)

    @staticmethod
    def _snapshot_slider(source: compared.Snapshots) -> ipywidgets.SelectionSlider:
        last = len(source) - 1
        slider = ipywidgets.SelectionSlider(options=[(step, i) for i, step in enumerate(source.steps or ["0"])])
        slider.value = last
        slider.layout.display = None if last else "none"
        return slider

    # --- The clip ---------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Another clip."""
        with self._one_redraw():
            self.donor.offer()
            fit_start(self.start, self.chooser.wave, self.chooser.sample_rate, self.seconds)
            self.overview.show(self.chooser.wave, self.chooser.sample_rate, self.seconds)
        self._cut()

    def _cut(self) -> None:
        """The crop that starts where the slider stands, on colour scales of its own."""
        if self._steady:
            return
        rate = self.chooser.sample_rate
        self.first = round(self.start.value * rate)
        self.crop = self.chooser.wave[self.first : self.first + round(self.seconds * rate)]
        self.clean, self.results = compared.log_mel(self._encoders(), self.crop), []
        if self.drawn is not None and self.drawn.shape != tuple(self.clean.shape[1:]):
            self.drawn = None  # it was for a clip of another length
        self.recording.load(self.crop, rate)
        self._fill_in()
        self._fit_colours()
        self._paint()

    def _encoders(self) -> list[Encoder]:
        return [source.encoder(slider.value) for source, slider in zip(self.sources, self.snapshots, strict=True)]

    def _titles(self) -> list[str]:
        return [source.title(slider.value) for source, slider in zip(self.sources, self.snapshots, strict=True)]

    # --- What is filled in ------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Corrupt, fill in and draw as the controls say."""
        if self._steady:
            return
        self._fill_in()
        self._paint()

    def _take_drawn(self, mask: np.ndarray | None) -> None:
        """Fill in a mask drawn by hand; None: blocks of the seed."""
        if not self._steady:
            self.drawn = mask
            self.redraw()

    def _fill_in(self) -> None:
        if self.clean is None:
            raise InputError("there is no clip to fill in yet")
        self.donor.control.layout.display = None if self.kind.value == "alien" else "none"
        named = list(zip(self._encoders(), self._titles(), strict=True))
        if self.reconstructs:
            corrupted, mask = self._corrupt(named[0][0])
            self.results = [compared.reconstruct_crop(enc, self.clean, corrupted, mask, name) for enc, name in named]
            self.baselines = compared.clip_baselines(self.results[0])
        else:
            shape, seed, hidden = tuple(self.clean.shape[1:]), whole_number(self.seed), self._hide()
            self.results = [compared.feature_error(enc, self.crop, hidden, shape, seed) for enc, _ in named]
        for player in self.sounds:  # they were of something else
            if player.layout.display != "none":
                player.load(None, 0)

    def _corrupt(self, enc: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
        """The corrupted log-mel and its mask, [1, T, M]."""
        kind, share, seed = self.kind.value, self.ratio.value / 100, whole_number(self.seed)
        if self.drawn is None:
            settings = Mask.of_one_kind(kind, share, self.block.value / 100, self.align.value)
            masks = gmml(mask_key(seed), *self.clean.shape[1:], settings, self.cfg.model.patch)
        else:
            masks = drawn_masks(self.drawn, kind)
        alien = kind == "alien"
        donor = self.donor.log_mel(enc.front_end, self.clean.shape[1], enc.device) if alien else None
        return fill(self.clean, masks, seed, donor), masks.pixels

    def _hide(self) -> torch.Tensor:
        """ASDA's mask: bool [time, freq], True = hidden."""
        patch = self.cfg.model.patch
        grid = (self.clean.shape[1] // patch[0], self.cfg.grid[1])
        if self.drawn is None:
            return compared.hidden_patches(grid, self.ratio.value / 100, self.side.value, whole_number(self.seed))
        hidden = token_mask(torch.from_numpy(self.drawn)[None, : grid[0] * patch[0]], patch)[0]
        if hidden.all() or not hidden.any():
            raise InputError("draw a mask that hides some patches and leaves others: at least half of a patch hides it")
        return hidden

    # --- The picture ------------------------------------------------------------------------------------------------

    def _fit_colours(self) -> None:
        """Colour scales for this crop. They stay from move to move, so that colours compare."""
        self.picture.fit(self.clean[0].numpy(), () if self.reconstructs else self.results)

    def _paint(self) -> None:
        if not self.results:
            raise InputError("there is nothing to draw yet")
        panels = self._pixel_panels() if self.reconstructs else self._feature_panels()
        features = self.cfg.features
        scene = Scene(
            panels,
            MelAxes.of(features, normalised=True, start=self.first / self.chooser.sample_rate),
            (float(features.std), float(features.mean)),
            columns=len(self.results),
            mask=self.results[0].mask if self.reconstructs else np.isfinite(self.results[0]),
            patch=self.cfg.model.patch,
            error_unit="|error|" if self.reconstructs else "squared error",
            names=self._titles(),
            file=f"reconstruction {self.chooser.name}",
        )
        self.picture.show(scene, f"{self.chooser.name}: {'; '.join(panel.title for panel in scene.errors)}.")
        self.summary.value = _SUMMARY.format(self._numbers(), html.escape(" ".join(self._words())))

    def _pixel_panels(self) -> list[Panel]:
        """Row by row, as many a row as there are encoders."""
        clip, several = self.results[0], len(self.results) > 1
        ends = ("", ", 2nd")[: len(self.results)]  # of names
        filled = list(zip(self.results, ends, strict=True))
        panels = [
            Panel("clean", f"clean: {self.chooser.name}", clip.clean, sound="clean"),
            Panel(
                "corrupted",
                f"corrupted: {100 * clip.mask.mean():.0f} % of pixels",
                clip.corrupted,
                outline=True,
                sound="corrupted",
            ),
        ]
        panels += [
            Panel(f"reconstructed{end}", f"reconstructed: {result.title}", result.reconstructed)
            for result, end in filled
        ]
        title = "pasted where it was corrupted" if several else "pasted: the reconstruction where it was corrupted"
        panels += [
            Panel(f"pasted{end}", title, compared.pasted(result), outline=True, sound=f"filled in{end}")
            for result, end in filled
        ]
        if self.with_baselines.value:
            panels += [Panel(name, f"{name}: L1 {l1:.3f}", image, outline=True) for name, image, l1 in self.baselines]
        grey = "" if several else " (grey: not corrupted)"
        panels += [
            Panel(f"error{end}", f"error: {result.summary()}{grey}", result.error(), "error") for result, end in filled
        ]
        return panels

    def _feature_panels(self) -> list[Panel]:
        clean = self.clean[0].numpy()
        visible = np.where(np.isnan(self.results[0]), clean, np.nan)
        share = 100 * np.isfinite(self.results[0]).mean()
        panels = [Panel("clean", f"clean: {self.chooser.name}", clean)]
        panels.append(
            Panel("visible", f"what the student sees ({share:.0f} % of patches hidden)", visible, outline=True)
        )
        for title, error in zip(self._titles(), self.results, strict=True):
            panels.append(Panel(f"error, {title}", f"error of predicted features: {title}", error, "error"))
        return panels

    def _numbers(self) -> str:
        """The errors, as a table."""
        if not self.reconstructs or not self.results[0].mask.any():
            return ""
        errors = {clip.title: float(np.nanmean(clip.error())) for clip in self.results}
        return error_table(errors, {name: l1 for name, _, l1 in self.baselines}, self.cfg.features.std)

    def _words(self) -> list[str]:
        """What picture and table do not say by themselves."""
        if not self.reconstructs:
            pairs = zip(self._titles(), self.results, strict=True)
            means = [f"{title}: {np.nanmean(error):.3g}" for title, error in pairs]
            return [f"Mean error over hidden patches: {'; '.join(means)}.", *_ABOUT_FEATURES]
        if not self.results[0].mask.any():
            return ["There are no corrupted pixels."]
        words = ["The mask is drawn by hand; ratio, block or seed draw blocks again."] if self.drawn is not None else []
        if self.kind.value == "alien":
            words.append(f"Alien blocks come from {self.donor.name}.")
        return words

    # --- The sound --------------------------------------------------------------------------------------------------

    def _make_sounds(self) -> None:
        """Make the log-mels audible: clean, corrupted, and the clip with each reconstruction pasted in."""
        if not self.results:
            raise InputError("there is nothing to hear yet")
        clip = self.results[0]
        images = [clip.clean, clip.corrupted, *(compared.pasted(filled) for filled in self.results)]
        front_end = self._encoders()[0].front_end
        self.listen.disabled, self.listen.description = True, "making the sounds ..."
        try:
            for player, image in zip(self.sounds, images, strict=True):
                wave = front_end.invert(front_end.denormalise(torch.from_numpy(image)))
                player.load(wave, self.cfg.features.sample_rate)
        finally:
            self.listen.disabled, self.listen.description = False, _LISTEN


_ABOUT_FEATURES = (
    "ASDA predicts the teacher's features of hidden patches, not log-mels, so there is nothing to paste or to hear:",
    "the map shows each hidden patch's squared error over the root of the width; grey patches were visible.",
)
_SUMMARY = '<div aria-live="polite" style="line-height: 1.5">{}{}</div>'
