"""The reconstruction explorer: what a model fills in for hidden parts of a clip, snapshot by snapshot."""

import html
from collections.abc import Callable, Hashable, Sequence
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
from .best_and_worst import BestAndWorst
from .clips import ClipChooser, loudest
from .corruption import Donor, drawn_masks, fill, log_mel_of, mask_key
from .mask_controls import block_controls, fit_start, ratio_slider, start_slider
from .overview import Overview
from .reconstruction_numbers import error_table
from .scene import Panel, Scene
from .spectrogram_view import SpectrogramView
from .step_player import StepPlayer

_LISTEN = "Hear the log-mels"


class ReconstructionExplorer(Explorer):
    """Corrupt a clip and see what an encoder puts in its place: clean, corrupted, reconstructed, pasted, error.

    Pasted is the clip with its reconstruction where it was corrupted. The snapshots of a run can be stepped through or
    played; other encoders of the same features fill in the same mask beside the first. Encoders of ASDA predict
    features, not log-mels: shown is then the error of each hidden patch. Where a clip is longer than the crops of
    pretraining, a crop is shown, with a slider for its place. Seed n gives the blocks that
    `Encoder.reconstruct(seed=n)` draws for a clip of that length.
    """

    def __init__(
        self,
        encoder_or_run: Encoder | str | Path,
        other: Encoder | str | Path | Sequence[Encoder | str | Path] | None = None,
        data: DataSource = "synth:examples",
        clip: int = 0,
        seed: int = 0,
    ):
        """encoder_or_run: an Encoder, a run (all of its snapshots), or what `zoo.open_source` takes. other: another one
        beside it, or a list of them; the same run again compares its snapshots. data, clip: a data set and its row.
        seed: of the mask, and of a preset's untrained weights.
        """
        super().__init__()
        self.picture = SpectrogramView()
        self.saved = (self.picture,)
        self.clean: torch.Tensor | None = None  # the crop's log-mel, normalised [1, T, M]
        self.results: list = []  # of each encoder: its reconstruction, or the error of its features [T, M]
        self.baselines: list[tuple[str, np.ndarray, float]] = []  # name, log-mel [T, M], L1 on corrupted pixels
        self.drawn: np.ndarray | None = None  # mask drawn by hand, bool [T, M]
        with self.errors_in_words():
            others = [] if other is None else [other] if isinstance(other, Encoder | str | Path) else list(other)
            self.sources = [compared.Snapshots(source, seed) for source in (encoder_or_run, *others)]
            self._make_controls(data, clip, seed)
            self._take()

    # --- Controls ---------------------------------------------------------------------------------------------------

    def _make_controls(self, data: DataSource, clip: int, seed: int) -> None:
        first = [source.encoder(len(source) - 1) for source in self.sources]
        for enc in first[1:]:
            compared.check_pair(first[0], enc)
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
        for number, slider in enumerate(self.snapshots, 1):
            text = f"step, {_ordinal(number)} run" if number > 1 else "step"
            labelled(slider, text, "step of the run after which these weights were kept")
        self.steps = sorted({step for source in self.sources for step in source.steps})
        self.player = StepPlayer(len(self.steps), self._present_step, self._show_step)
        labelled(self.ratio, "ratio (%)", "corruption ratio: share of the pixels (ASDA: of the patches) that is hidden")
        labelled(self.kind, "kind", "what stands in the corrupted blocks; time and frequency: zeros in full strips")
        self.search = BestAndWorst(self.chooser, self._answer, self._scorer)
        self.listen = labelled(ipywidgets.Button(icon="volume-up"), _LISTEN, "Griffin-Lim: takes a few seconds")
        self.ends = [
            "",
            *(f", {_ordinal(number)}" for number in range(2, len(first) + 1)),
        ]  # of names, for each encoder
        filled = [f"filled in{end}" for end in self.ends]
        self.recording, *self.sounds = map(Sound, ("recording", "clean", "corrupted", *filled))
        self.summary = ipywidgets.HTML()
        blocks = [self.ratio, *([self.block, self.align] if self.reconstructs else [self.side]), self.seed]
        others = [self.kind, self.donor.control, self.with_baselines] if self.reconstructs else []
        searches = [self.search] if self.reconstructs else []
        sounds = [self.listen, self.recording, *self.sounds] if self.reconstructs else [self.recording]
        self.picture.layout.max_width = "920px" if len(first) == 1 else f"{650 * len(first)}px"
        self.arrange(
            [self.chooser, self.start, *self.snapshots, self.player, *others, *blocks, *searches, *sounds],
            [self.summary, self.overview, self.picture],
            narrowest=520 if len(first) == 1 else max(600, 200 * len(first)),
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
        slider = ipywidgets.SelectionSlider(options=[(str(step), i) for i, step in enumerate(source.steps or [0])])
        slider.value = last
        slider.layout.display = None if last else "none"
        return slider

    def _present_step(self) -> int:
        """Place of the latest step that is shown."""
        pairs = zip(self.sources, self.snapshots, strict=True)
        return self.steps.index(max(source.steps[slider.value] for source, slider in pairs if source.steps))

    def _show_step(self, place: int) -> bool:
        """Show every run as it was at a step. Returns whether that went well."""
        with self._one_redraw():
            for source, slider in zip(self.sources, self.snapshots, strict=True):
                slider.value = source.place_at(self.steps[place])
        self._answer(self.redraw)
        return not self.message.text

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
        if self.reconstructs:  # before what may fail: the scales depend on the crop alone
            self._fit_colours()
        self._fill_in()
        if not self.reconstructs:
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
            alien, enc = self.kind.value == "alien", named[0][0]
            donor = self.donor.log_mel(enc.front_end, self.clean.shape[1], enc.device) if alien else None
            corrupted, mask = self._corrupter()(self.clean, donor)
            self.results = [compared.reconstruct_crop(enc, self.clean, corrupted, mask, name) for enc, name in named]
            self.baselines = compared.clip_baselines(self.results[0])
        else:
            shape, seed, hidden = tuple(self.clean.shape[1:]), whole_number(self.seed), self._hide()
            self.results = [compared.feature_error(enc, self.crop, hidden, shape, seed) for enc, _ in named]
        self.search.follow(self._scored())
        for player in self.sounds:  # they were of something else
            if player.layout.display != "none":
                player.load(None, 0)

    def _corrupter(self) -> Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]:
        """What corrupts a log-mel as the controls say now: clean and donor -> corrupted and mask, [1, T, M]."""
        kind, seed, drawn, patch = self.kind.value, whole_number(self.seed), self.drawn, self.cfg.model.patch
        settings = Mask.of_one_kind(kind, self.ratio.value / 100, self.block.value / 100, self.align.value)

        def corrupt(clean: torch.Tensor, donor: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
            by_hand = drawn is not None and drawn.shape == tuple(clean.shape[1:])
            masks = drawn_masks(drawn, kind) if by_hand else gmml(mask_key(seed), *clean.shape[1:], settings, patch)
            return fill(clean, masks, seed, donor), masks.pixels

        return corrupt

    def _scorer(self) -> Callable[[int], float]:
        """What gives a row of the data set its relative error, by the first encoder and the controls as they are."""
        encoders, corrupt, seconds = self._encoders(), self._corrupter(), self.seconds
        manifest, rate, alien = self.chooser.manifest, self.cfg.features.sample_rate, self.kind.value == "alien"
        donors = [self.donor.row_for(row) for row in range(len(manifest))] if alien else []

        def score(row: int) -> float:
            wave = manifest.read(row, rate)
            first = round(loudest(wave, rate, seconds) * rate)
            clean, donor = compared.log_mel(encoders, wave[first : first + round(seconds * rate)]), None
            if alien:
                wave = torch.from_numpy(manifest.read(donors[row], rate, 0.0, seconds))[None]
                donor = log_mel_of(wave, encoders[0].front_end, clean.shape[1], encoders[0].device)
            return compared.relative_error(encoders[0], clean, *corrupt(clean, donor))

        return score

    def _scored(self) -> Hashable:
        """All that the scores depend on."""
        controls = (self.chooser.data, self.kind, self.donor.control, self.ratio, self.block, self.align, self.seed)
        drawn = None if self.drawn is None else self.drawn.tobytes()
        return self.snapshots[0].value, drawn, *(control.value for control in controls)

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
        features = self.cfg.features
        axes = MelAxes.of(features, normalised=True, start=self.first / self.chooser.sample_rate)
        scene = Scene(
            self._pixel_panels(axes) if self.reconstructs else self._feature_panels(),
            axes,
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

    def _pixel_panels(self, axes: MelAxes) -> list[Panel]:
        """Row by row, as many columns as there are encoders."""
        clip, several = self.results[0], len(self.results) > 1
        visible = clip.visible()
        hidden = " (grey: hidden)" if np.isnan(visible).any() else ""
        filled = list(zip(self.results, self.ends, strict=True))
        panels = [
            Panel("clean", f"clean: {self.chooser.name}", clip.clean, sound="clean"),
            Panel(
                "corrupted",
                f"corrupted: {100 * clip.mask.mean():.0f} % of pixels{hidden}",
                visible,
                outline=True,
                sound="corrupted",
            ),
        ]
        panels += [
            Panel(f"reconstructed{end}", f"reconstructed: {result.title}", result.reconstructed, new_row=not end)
            for result, end in filled
        ]
        words = [result.summary(axes) for result, _ in filled]
        words = [text.split(" on ")[0] if several else text for text in words]
        panels += [
            Panel(
                f"pasted{end}",
                f"pasted where it was corrupted: {text}",
                compared.pasted(result),
                outline=True,
                sound=f"filled in{end}",
                new_row=not end,
            )
            for (result, end), text in zip(filled, words, strict=True)
        ]
        if self.with_baselines.value:
            panels += [
                Panel(name, f"{name}: L1 {axes.error_in_words(l1)}", image, outline=True, new_row=not number)
                for number, (name, image, l1) in enumerate(self.baselines)
            ]
        grey = "" if several else " (grey: not corrupted)"
        panels += [
            Panel(f"error{end}", f"error: {text}{grey}", result.error(), "error", new_row=not end)
            for (result, end), text in zip(filled, words, strict=True)
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
        for number, (title, error) in enumerate(zip(self._titles(), self.results, strict=True)):
            name, heading = f"error, {title}", f"error of predicted features: {title}"
            panels.append(Panel(name, heading, error, "error", new_row=not number))
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


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


_ABOUT_FEATURES = (
    "ASDA predicts the teacher's features of hidden patches, not log-mels, so there is nothing to paste or to hear:",
    "the map shows each hidden patch's squared error over the root of the width; grey patches were visible.",
)
_SUMMARY = '<div aria-live="polite" style="line-height: 1.5">{}{}</div>'
