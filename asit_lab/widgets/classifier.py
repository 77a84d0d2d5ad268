"""The classifier explorer: what a classifier finds in a clip, and when; its labels can be corrected and saved."""

import html
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import torch

from .. import audio, figures
from ..data import DataSource
from ..data.labels import join
from ..errors import InputError
from ..figures.axes import MelAxes
from ..figures.style import short_name
from ..finetuning import Classifier, Corrections, Timeline, load_classifier
from ..finetuning.timeline import THRESHOLD, make_timeline
from .base import Explorer, FigureImage, Sound, labelled
from .clickable import ClickableImage
from .clips import ClipChooser
from .scene import Panel, Scene
from .spectrogram_view import SpectrogramView
from .work import LongWork, ReportProgress

_WHOLE = -1  # in the list of parts: the clip, not an event
_TOP = 5  # classes with a bar
_MOST_SECONDS = 60.0  # of a part that are shown in detail and played
_LETTERS = 12  # of a class in the list of parts
_TITLE_LETTERS = 60
_SILENT = "There are no events, since the clip is silent."


class Findings(NamedTuple):
    """A clip, and what a classifier says of it."""

    name: str
    wave: np.ndarray
    """float32 [samples], at the classifier's rate"""
    path: Path
    """its file, also where there is none before a label is saved"""
    first: float
    """where in the file it starts, s"""
    last: float | None
    """where in the file it ends, s; None: it is all of it"""
    scores: np.ndarray
    """probabilities [K] of the clip as a whole"""
    timeline: Timeline


class ClassifierExplorer(Explorer):
    """Classify a clip, see which classes sound when, click an event to hear it, and correct its label.

    The upper picture has the clip's log-mel and a lane of events for each class, the lower one the event that is
    chosen, or the clip. Saved labels are rows of a CSV that `folder:FILE.csv` reads, for fine-tuning.
    """

    def __init__(
        self,
        model: Classifier | str | Path,
        data: DataSource = "synth:examples",
        clip: int = 0,
        recording: str | Path | None = None,
        corrections: str | Path = "runs/corrections.csv",
        split: str | None = None,
        window_seconds: float | None = None,
        threshold: float | None = None,
    ):
        """model: a Classifier, or what `load_classifier` takes (split: of fine-tuning over several). data, clip: a data
        set and its row. recording: an audio file that is opened first. corrections: the CSV for labels; one that
        exists is continued. window_seconds: see `Classifier.timeline`. threshold: see `Timeline.events`.
        """
        super().__init__()
        self._findings: Findings | None = None
        self.events = pd.DataFrame()  # start, end (s), class, probability
        self.part = _WHOLE
        self._turn = 0  # number of the last classification
        self._drawn_events: list[int] = []  # events with a target in the picture
        self.overview, self.bars, self.detail = ClickableImage(), FigureImage(), SpectrogramView()
        self.saved = (self.overview, self.detail)
        with self.errors_in_words():
            self.classifier = model if isinstance(model, Classifier) else load_classifier(model, split)
            self.corrections = Corrections(corrections, self.classifier.multi)
            Timeline.check(threshold)
            self._make_controls(data, clip, recording, window_seconds, threshold)
            self.classify()

    def _make_controls(
        self,
        data: DataSource,
        clip: int,
        recording: str | Path | None,
        window_seconds: float | None,
        threshold: float | None,
    ) -> None:
        classifier = self.classifier
        self.chooser = ClipChooser(data, clip, classifier.sample_rate)
        if recording is not None:
            self.chooser.source.value, self.chooser.path.value = "file", str(recording)
        seconds = round(classifier.window_seconds if window_seconds is None else window_seconds, 2)
        self.window = ipywidgets.BoundedFloatText(seconds, min=audio.SHORTEST, max=600, step=0.5)
        labelled(self.window, "window (s)", "length of the windows that are classified, one every quarter of it")
        usual = THRESHOLD if classifier.thresholds is None else 0.0
        first = usual if threshold is None else threshold
        self.threshold = ipywidgets.IntSlider(round(100 * first), max=100, continuous_update=False)
        labelled(self.threshold, "threshold (%)", "probability from which a class is present; 0: the classifier's own")
        self.shortest = ipywidgets.FloatSlider(0.5, max=5, step=0.1, readout_format=".1f", continuous_update=False)
        labelled(self.shortest, "shortest (s)", "events that are shorter are left out")
        self.parts = labelled(ipywidgets.Dropdown(options=[("clip", _WHOLE)]), "part", "the clip, or one of its events")
        self.sound = Sound("sound")
        several = ", several with ; between them" if classifier.multi else ""
        self.label = ipywidgets.Combobox(options=classifier.classes, placeholder="class", continuous_update=False)
        labelled(self.label, "label", f"a class of the classifier, or a new one{several}")
        self.save = labelled(ipywidgets.Button(icon="check"), "save label", "write this label to the CSV")
        self.remove = labelled(ipywidgets.Button(icon="trash"), "remove label", "take this part out of the CSV")
        self.facts, self.work = ipywidgets.HTML(), LongWork()
        controls = [self.chooser, self.work, self.window, self.threshold, self.shortest, self.parts, self.sound]
        controls += [self.bars, self.label, self.save, self.remove, self.facts]
        self.arrange(controls, [self.overview, self.detail])
        self.chooser.observe(lambda _: self._answer(lambda: self.classify(background=True)), names="changed")
        self.on(self.window, lambda: self.classify(background=True))
        self.on([self.threshold, self.shortest], self._new_events)
        self.on(self.parts, self._choose_from_list)
        self.overview.observe(lambda _: self._answer(self._choose_in_picture), names="selected")
        self.overview.on_again = lambda: self._answer(self._choose_in_picture)
        self.on_click(self.save, self._save)
        self.on_click(self.remove, self._remove)

    # --- classifying ------------------------------------------------------------------------------------------------

    def classify(self, background: bool = False) -> None:
        """Classify the chosen clip and show what was found. background: while the page stays responsive."""
        self._turn += 1
        turn, name, wave, window = self._turn, self.chooser.name, self.chooser.wave, self.window.value
        origin = self._origin()
        classifier, rate = self.classifier, self.classifier.sample_rate

        def compute(report: ReportProgress) -> Findings:
            def latest(steps: int, total: int) -> None:
                if turn != self._turn:
                    raise InputError("another clip was chosen")
                report(steps, total)

            timeline = make_timeline(classifier, wave, rate, window, report=latest)
            return Findings(name, wave, *origin, classifier.scores(wave, rate)[0], timeline)

        def show(result: Findings | Exception) -> None:
            if turn == self._turn:
                self._answer(lambda: self._show(result))

        self.work.run("classifying", compute, show, background)

    def _show(self, result: Findings | Exception) -> None:
        if isinstance(result, InputError) and self._findings is not None:
            raise InputError(f"{result}; the pictures still show {self._findings.name}") from result
        if isinstance(result, Exception):
            raise result
        self._findings = result
        self._new_events()

    @property
    def findings(self) -> Findings:
        """The clip that is shown. Raises InputError while there is none."""
        if self._findings is None:
            raise InputError("there is no clip to show yet")
        return self._findings

    def _origin(self) -> tuple[Path, float, float | None]:
        """See `Findings`: path, first, last."""
        chooser = self.chooser
        if chooser.file is not None:
            return chooser.file, 0.0, None
        if chooser.row is not None:
            row = chooser.manifest.table.iloc[chooser.row]
            path, end = Path(row["path"]), float(row["start"] + row["seconds"])
            if path.is_file():
                full = row["start"] == 0 and abs(audio.info(path).seconds - end) < 0.01
                return path, float(row["start"]), None if full else end
        return self.corrections.audio_path(chooser.wave, chooser.sample_rate, chooser.name), 0.0, None

    # --- events and parts -------------------------------------------------------------------------------------------

    def _new_events(self) -> None:
        """Merge the timeline's events anew; the clip is the chosen part."""
        if self._findings is None:
            self.classify()
            return
        self.events = self.findings.timeline.events(self.threshold.value / 100 or None, self.shortest.value)
        self.part = _WHOLE
        self._draw_timeline()
        self.redraw()

    def _choose_from_list(self) -> None:
        if not self._steady and self.parts.value is not None:
            self._take(self.parts.value)

    def _choose_in_picture(self) -> None:
        if not self._steady and self.overview.selected >= 0:
            self._take(self._drawn_events[self.overview.selected])

    def _take(self, part: int) -> None:
        """Make a part the chosen one, and play it."""
        self.part = part
        self.redraw(play=True)

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of the chosen part in the clip, s."""
        if self.part == _WHOLE:
            return 0.0, len(self.findings.wave) / self.classifier.sample_rate
        event = self.events.iloc[self.part]
        return float(event["start"]), float(event["end"])

    @property
    def scores(self) -> np.ndarray:
        """Probabilities [K] of the chosen part: of an event, the mean of the timeline's steps in it."""
        timeline = self.findings.timeline
        if self.part == _WHOLE:
            return self.findings.scores
        first, last = (round(second / timeline.step_seconds) for second in self.span)
        return timeline.scores[first : max(last, first + 1)].mean(0)

    def _predicted(self) -> tuple[str, float]:
        """What the classifier says of the chosen part, and how probable its (likeliest) class is."""
        if self.part != _WHOLE:
            event = self.events.iloc[self.part]
            return event["class"], float(event["probability"])
        table = self.classifier.table(self.scores)
        named = table.loc[table["predicted"], "class"]
        return join(named) if self.classifier.multi else named.iloc[0], float(table["probability"].iloc[0])

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _draw_timeline(self) -> None:
        timeline, events, features = self.findings.timeline, self.events, self.classifier.config.features
        axes = MelAxes(timeline.column_seconds, features.sample_rate, features.low_hz, features.high_hz)
        found = f"{len(events)} event{'' if len(events) == 1 else 's'}"
        title = f"{short_name(self.findings.name, _TITLE_LETTERS)}: {found}, windows of {timeline.window_seconds:.2f} s"
        figure = figures.timeline_figure(timeline.log_mel, axes, events, title)
        lanes = {name: lane for lane, name in enumerate(figures.event_lanes(events))}
        self._drawn_events = [number for number, name in enumerate(events["class"]) if name in lanes]
        drawn = events.iloc[self._drawn_events]
        middles = np.stack([(drawn["start"] + drawn["end"]) / 2, drawn["class"].map(lanes)], axis=1).astype(float)
        upper, lower = figure.axes[:2]
        labels = [self._words(number) for number in self._drawn_events]
        with self._one_redraw():
            self.overview.selected = -1
            alt = f"Log-mel of {self.findings.name} with {found}."
            self.overview.draw(figure, [(upper, np.empty((0, 2))), (lower, middles)], labels, dpi=110, alt=alt)

    def _words(self, number: int) -> str:
        event = self.events.iloc[number]
        probability = f"{100 * event['probability']:.0f} %"
        return f"{event['class']}, {event['start']:.2f} to {event['end']:.2f} s, {probability}"

    def redraw(self, play: bool = False) -> None:
        """Show the chosen part: its log-mel, scores and label. play: play it as well."""
        start, end = self.span
        rate, front_end = self.classifier.sample_rate, self.classifier.front_end
        first, last = round(start * rate), round(min(end, start + _MOST_SECONDS) * rate)
        first = max(0, min(first, len(self.findings.wave) - front_end.frame))
        wave = self.findings.wave[first : max(last, first + front_end.frame)]
        log_mel = front_end.normalise(front_end(torch.from_numpy(wave)[None].to(front_end.window.device)))[0].cpu()
        name, probability = self._predicted()
        shown = "" if end - start <= _MOST_SECONDS else f", the first {_MOST_SECONDS:g} s"
        words = f"{name or 'none of the classes'}, {100 * probability:.0f} %"
        title = f"{'clip' if self.part == _WHOLE else 'event'}: {words} ({start:.2f} to {end:.2f} s{shown})"
        features = self.classifier.config.features
        scene = Scene(
            [Panel("part", title, log_mel.numpy(), sound="sound")],
            MelAxes.of(features, normalised=True, start=first / rate),
            (float(features.std), float(features.mean)),
            file=f"{Path(self.findings.name).stem} {start:.2f}-{end:.2f} s",
        )
        self.detail.fit(log_mel.numpy())
        self.detail.show(scene, f"Log-mel of {self.findings.name}, {start:.2f} to {end:.2f} s: {words}.")
        self.bars.draw(figures.class_bars(self.classifier.table(self.scores, _TOP)), alt=f"Probabilities: {words}.")
        self.sound.load(wave, rate, play)
        self._show_label(name)

    def _show_label(self, predicted: str) -> None:
        """The list of parts, the label of the chosen one, and what is saved."""
        labels = self.corrections.labels(self.findings.path)
        saved = {part: labels.get(self._place(part), "") for part in range(_WHOLE, len(self.events))}
        options = [(f"clip{' ✓' if saved[_WHOLE] else ''}", _WHOLE)]
        for number, event in enumerate(self.events.to_dict("records")):
            mark = " ✓" if saved[number] else ""
            options.append((f"{event['start']:.1f} s: {short_name(event['class'], _LETTERS)}{mark}", number))
        with self._one_redraw():
            self.parts.options = options
            self.parts.value = self.part
            self.overview.selected = self._drawn_events.index(self.part) if self.part in self._drawn_events else -1
            self.label.value = saved[self.part] or self._suggested(predicted)
        self.remove.disabled = not saved[self.part]
        count = len(self.corrections.table)
        has_label = bool(saved[self.part])
        lines = [f"Saved label of this part: {saved[self.part]}." if has_label else "No label is saved for this part."]
        if self.events.empty:
            step = self.findings.timeline.table.sort_values("probability").iloc[-1]
            best = f"{step['class']}, {100 * step['probability']:.0f} % at {step['start']:.1f} s"
            lines.append(f"There are no events: the most probable class is {best}." if step["class"] else _SILENT)
        if count:
            lines.append(f"{count} label{'s' * (count > 1)} in {self.corrections.path}, for --data folder:FILE.")
        lines.append(f"Classifier: {self.classifier.name}; {len(self.classifier.classes)} classes.")
        text = "<br>".join(map(html.escape, lines))
        self.facts.value = f'<div aria-live="polite" style="line-height: 1.5; overflow-wrap: anywhere">{text}</div>'

    # --- labels -----------------------------------------------------------------------------------------------------

    def _suggested(self, predicted: str) -> str:
        """A label for the chosen part that has none yet: what is predicted, with all classes of its start and end."""
        if self.part == _WHOLE:
            return predicted
        same = (self.events[["start", "end"]] == self.events.loc[self.part, ["start", "end"]]).all(axis=1)
        return join(self.events.loc[same, "class"])

    def _place(self, part: int) -> tuple[float | None, float | None]:
        """Start and end in the file, s, under which a part's label is saved; both None for all of it."""
        clip = self.findings
        if part == _WHOLE:
            return (None, None) if clip.last is None else (round(clip.first, 4), round(clip.last, 4))
        event = self.events.iloc[part]
        return round(clip.first + float(event["start"]), 4), round(clip.first + float(event["end"]), 4)

    def _save(self) -> None:
        clip, (start, end), (predicted, probability) = self.findings, self._place(self.part), self._predicted()
        self.corrections.add(clip.path, self.label.value, start, end, predicted, probability)
        if not clip.path.is_file():  # of an upload, or made by the data set
            self.corrections.keep_audio(clip.wave, self.classifier.sample_rate, clip.name)
        self._show_label(predicted)

    def _remove(self) -> None:
        self.corrections.remove(self.findings.path, *self._place(self.part))
        self._show_label(self._predicted()[0])
