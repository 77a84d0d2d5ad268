"""The monitor of runs: curves, health and the last reconstructions, followed while a run is being trained."""

import asyncio
import html
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ipywidgets

from ..errors import InputError
from ..figures.training import compared_curves, curve_names, curve_title
from ..runs.directory import Run
from .base import Explorer, FigureImage, labelled
from .curves_view import CurvesView, curve_panels
from .run_curves import ALONG, metrics_along, run_lines, same_but_for_the_seed
from .run_files import UNDER_WAY, Glance, Watched, missing_runs, runs_below, runs_named, worth_watching
from .run_samples import last_until, step_of, under_names
from .run_table import run_table, settings_table

CURVES_WIDTH, CURVES_DPI = 9.0, 125  # of the static curves, inches and dots an inch
_LISTED = 12  # entries a list shows at most without scrolling
_AXES = {"automatic": None, "linear": False, "logarithmic": True}
_NO_SAMPLES = ("-", "")
_ALL = "all chosen runs"


class RunMonitor(Explorer):
    """Curves, health and last samples of one run, or of several over each other.

    runs: run directories or opened runs, or one; None: those in and below `folder`, of which the running ones are
    chosen at first, else the most recent. A run that does not exist yet is waited for. While a chosen run is
    training, its files are checked every `seconds` by a task on the kernel's loop, between cells and in a thread of
    its own, and drawn when they changed. That ends when all have ended, on Watch, on `close`, and when another monitor
    starts to watch: a cell that is run again leaves its old one behind. Where there is no loop (outside a notebook)
    everything is drawn once.
    """

    _watching: "weakref.ref[RunMonitor] | None" = None

    def __init__(
        self,
        runs: Run | str | Path | Sequence[Run | str | Path] | None = None,
        folder: str = "runs",
        seconds: float = 3.0,
    ):
        super().__init__()
        self.sources = runs
        self.folder, self.seconds = folder, seconds
        self.watched, self.folders = Watched(), {}
        self.waiting = False  # for a run that does not exist yet
        self._numbers: dict[Path, int] = {}  # of the runs' colours, which they keep
        self._lock = threading.RLock()  # the frontend's messages may be handled in another thread than the task
        self._filling = self._paused = False
        self._task: asyncio.Future | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._make_controls()
        with self.errors_in_words():
            self._choose()
        self._begin()

    # --- Controls ---------------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        hint = "; with Ctrl or Shift several"
        self.runs = labelled(ipywidgets.SelectMultiple(), "runs", f"which runs are drawn{hint}")
        self.curves = labelled(ipywidgets.SelectMultiple(), "curves", f"which curves are drawn{hint}")
        # The names are long: they take the width, below the label.
        self.curves.layout.flex_flow, self.curves.layout.align_items = "column", "stretch"
        self.axis = labelled(ipywidgets.Dropdown(options=list(_AXES)), "axis", "of the values")
        self.smoothing = labelled(
            ipywidgets.IntSlider(5, min=0, max=30),
            "smoothing, %",
            "share of a run's rows that the running mean goes over; 0: as logged",
        )
        self.along = labelled(ipywidgets.Dropdown(options=list(ALONG)), "along", "what the curves are drawn over")
        self.grouped = ipywidgets.Checkbox(False, indent=True)
        labelled(self.grouped, "group seeds", "runs that differ in their seed alone: their mean, and a band of all")
        self.filter = ipywidgets.Text(placeholder="part of a name", continuous_update=False)
        labelled(self.filter, "filter", "only runs whose name has this in it are listed")
        self.watch = labelled(ipywidgets.ToggleButton(False), "Watch", "look for changes every few seconds, or pause")
        self.sampled = labelled(ipywidgets.Dropdown(), "samples of", "the run whose reconstructions are shown")
        self.sample = labelled(
            ipywidgets.SelectionSlider(options=[_NO_SAMPLES]), "after step", "when the reconstructions were made"
        )
        self.state = ipywidgets.HTML()
        self.table, self.reconstructions = ipywidgets.HTML(), FigureImage()
        self.picture = CurvesView(CURVES_WIDTH, CURVES_DPI)
        self.saved = (self.picture, self.reconstructions)
        lines = [self.filter, self.runs, self.curves, self.axis, self.along, self.smoothing, self.grouped]
        controls = [*lines, self.watch, self.state, self.sampled, self.sample]
        self.arrange(controls, [self.table, self.picture], below=[self.reconstructions])
        self.on(self.runs, self._look)
        self.on([self.curves, self.axis, self.along, self.smoothing, self.grouped], self.redraw)
        self.on(self.filter, self._filter)
        self.on([self.sampled, self.sample], self._show_samples)
        self.watch.observe(lambda _change: self._toggled(), names="value")

    def _choose(self) -> None:
        """The first choice of runs."""
        folders = self._find()
        self._list(folders, list(folders) if self.sources else worth_watching(folders))
        self._look()

    def _find(self) -> dict[str, Path]:
        """The runs there are. Raises InputError while there is none."""
        self.waiting = True
        folders = runs_named(self.sources) if self.sources else runs_below(self.folder)
        self.waiting = bool(self.sources and missing_runs(self.sources))
        return folders

    def _find_new(self) -> None:
        """Add a run that is waited for as soon as it exists."""
        folders = self._find()
        new = [name for name, folder in folders.items() if folder not in self.folders.values()]
        if new:
            self._list(folders, [*self.runs.value, *new])

    def _list(self, folders: dict[str, Path], chosen: Sequence[str]) -> None:
        """Offer `folders`, of which `chosen` are looked at."""
        listed = [name for name in folders if self.filter.value.lower() in name.lower()]
        if folders != self.folders or listed != list(self.runs.options):
            with self._quietly():
                self.folders, self.runs.options = folders, listed
                self.runs.rows = max(2, min(_LISTED, len(listed)))
        with self._quietly():
            self.runs.value = [name for name in chosen if name in listed]

    def _filter(self) -> None:
        """List the runs whose name has the filter in it; those that stay listed stay chosen."""
        self._list(self.folders, self.runs.value or list(self.folders)[:1])
        self._look()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Inside, controls are set by the monitor itself, which is no reason to draw."""
        before, self._filling = self._filling, True
        try:
            yield
        finally:
            self._filling = before

    # --- Watching ---------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> bool:
        """Whether a chosen run may still change by itself."""
        return any(
            self.watched.glances[name].status in UNDER_WAY for name in self.runs.value if name in self.watched.glances
        )

    def _toggled(self) -> None:
        """Watch or Pause was pressed: look for new runs and changes at once, and go on; or stop."""
        if self._filling:
            return
        self._paused = not self.watch.value
        if self._paused:
            self._end("paused")
        else:
            with self.errors_in_words():
                folders = self._find()
                self._list(folders, self.runs.value or worth_watching(folders))
                self._look()
            self._begin()

    def _begin(self) -> None:
        """Watch, where there is something to watch and a loop to do it on."""
        going_on = self.under_way or self.waiting
        if not going_on or self._loop is None or self._loop.is_closed():
            self._end("" if not self.runs.value else "drawn once" if going_on else _ended())
            return
        predecessor = RunMonitor._watching and RunMonitor._watching()
        if predecessor is not None and predecessor is not self and predecessor.watch.value:
            predecessor._end("paused: another monitor is watching")
        RunMonitor._watching = weakref.ref(self)
        prefix = "waiting for a run to start, " if self.waiting else ""
        self._say(True, f"{prefix}looking every {self.seconds:g} s")
        if self._task is None or self._task.done():
            self._task = asyncio.run_coroutine_threadsafe(self._keep_looking(), self._loop)

    def _end(self, reason: str) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._say(False, reason)

    def _say(self, watching: bool, text: str) -> None:
        with self._quietly():
            self.watch.value, self.watch.icon = watching, "pause" if watching else "play"
            self.watch.description = "Pause" if watching else "Watch"
            self.state.value = html.escape(text)

    async def _keep_looking(self) -> None:
        """Until every chosen run has ended: wait, read what changed in a thread, draw it here."""
        try:
            while self.under_way or self.waiting:
                await asyncio.sleep(self.seconds)
                with self.errors_in_words():
                    if self.waiting:
                        self._find_new()
                    if await asyncio.to_thread(self._read):
                        self.redraw()
                    else:
                        self._complain()
        except Exception as error:
            self._task = None
            self._end("stopped by the error above")
            # The task's own result is read by nobody.
            self._loop.call_exception_handler({"message": "the monitor of runs stopped", "exception": error})
            return
        self._task = None
        self._end(_ended())

    def close(self) -> None:
        """Stop watching and take the widget away."""
        self._end("")
        super().close()

    # --- Reading and drawing ----------------------------------------------------------------------------------------

    def _read(self) -> bool:
        with self._lock:
            return self.watched.look({name: self.folders[name] for name in self.runs.value})

    def _look(self) -> None:
        """Other runs were chosen: read and draw them, and watch the running ones."""
        if self._filling:
            return
        self._read()
        self.redraw()
        if self.under_way and not self.watch.value and not self._paused:
            self._begin()

    def redraw(self) -> None:
        """Draw the chosen runs as last read. Raises InputError where one could not be read."""
        if self._filling:
            return
        with self._lock:
            runs = {name: self.watched.glances[name] for name in self.runs.value if name in self.watched.glances}
            for name in runs:
                self._numbers.setdefault(self.folders[name], len(self._numbers))
            settings = {name: run.settings for name, run in runs.items()}
            self.table.value = run_table(runs, self._colours(runs)) + settings_table(settings)
            self._draw(runs)
        self._complain()

    def _colours(self, runs: dict[str, Glance]) -> dict[str, int]:
        return {name: self._numbers[self.folders[name]] for name in runs}

    def _complain(self) -> None:
        """Raise InputError with what is wrong with the choice, as long as it is."""
        if not self.runs.value:
            raise InputError("choose a run in the list")
        if self.curves.options and not self.curves.value:
            raise InputError("choose a curve in the list")
        if self.watched.problems:
            raise InputError("\n".join(self.watched.problems))

    def _draw(self, runs: dict[str, Glance]) -> None:
        self._offer_curves(runs)
        self._offer_samples(runs)
        self._show_samples()
        if not runs:
            self.picture.show([], "step", "automatic", None)
            return
        lines: dict[str, list[tuple[float, str]]] = {}
        for run in runs.values():
            for column, reference in run.references.items():
                if reference not in lines.setdefault(column, []):
                    lines[column].append(reference)
        smoothing, names, log, colours = (
            self.smoothing.value / 100,
            self.curves.value,
            self.axis.value,
            self._colours(runs),
        )
        along, groups = self.along.value, same_but_for_the_seed(runs) if self.grouped.value else None
        try:
            drawn = run_lines(runs, names, colours, along, smoothing, self.grouped.value)
        except InputError:  # runs that have no epochs
            with self._quietly():
                self.along.value = "step"
            self._draw(runs)
            raise
        panels = curve_panels(names, drawn, lines)

        def figure():
            look = {"width": CURVES_WIDTH, "numbers": colours, "references": lines, "along": along}
            return compared_curves(metrics_along(runs, along), names, _AXES[log], smoothing, groups=groups, **look)

        self.picture.show(panels, along, log, figure)

    def _offer_curves(self, runs: dict[str, Glance]) -> None:
        """List every curve of the chosen runs; the losses are chosen where no previous choice exists."""
        names = curve_names([run.metrics for run in runs.values()])
        if [value for _, value in self.curves.options] == names:
            return
        chosen = [name for name in self.curves.value if name in names]
        with self._quietly():
            self.curves.options = [(_short_title(name), name) for name in names]
            self.curves.rows = max(2, min(_LISTED, len(names)))
            self.curves.value = chosen or [name for name in names if name.startswith("loss")]

    def _offer_samples(self, runs: dict[str, Glance]) -> None:
        """The runs that have pictures; the last picture stays chosen as newer ones come."""
        names = [name for name, run in runs.items() if run.samples]
        options = [*names, *([_ALL] if len(names) > 1 else [])]
        with self._quietly():
            if list(self.sampled.options) != options:
                chosen = self.sampled.value
                self.sampled.options = options
                self.sampled.value = chosen if chosen in options else (names[0] if names else None)
        for control in (self.sampled, self.sample):
            control.layout.display = None if names else "none"

    def _show_samples(self) -> None:
        """Show the chosen run's pictures after the chosen step, or those of all runs, each the last until that step."""
        if self._filling:
            return
        name = self.sampled.value
        names = [run for run in self.sampled.options if run != _ALL] if name == _ALL else [name]
        paths = {run: self.watched.glances[run].samples for run in names if run in self.watched.glances}
        steps = sorted({step_of(path) for pictures in paths.values() for path in pictures})
        options = [(str(step), step) for step in steps] or [_NO_SAMPLES]
        if list(self.sample.options) != options:
            before, last = self.sample.value, self.sample.options[-1][1]
            with self._quietly():
                self.sample.options = options
                self.sample.value = before if before in steps and before != last else options[-1][1]
        pictures = {
            run: path.read_bytes() for run, of in paths.items() if steps and (path := last_until(of, self.sample.value))
        }
        alt = f"reconstructions of held-out clips, {', '.join(pictures)}, after step {self.sample.label}"
        several = len(pictures) > 1
        png = under_names(pictures) if several else next(iter(pictures.values()), b"")
        self.reconstructions.show(png, alt if pictures else "")


def _ended() -> str:
    """With the time, so that a press on Watch is seen to have looked again."""
    return f"all runs ended ({time.strftime('%H:%M:%S')})"


def _short_title(name: str) -> str:
    """What a curve is called in a list that is as narrow as the controls."""
    title = curve_title(name)
    for long, short in ((" (nat)", ""), ("effective rank", "rank"), (" about the clip", "")):
        title = title.replace(long, short)
    return title
