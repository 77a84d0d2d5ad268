"""An explorer in a page: its controls as a user finds them, each moved by mouse or keys, and what that changes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lab_case import PATIENCE, OpenNotebook

QUIET = 150  # ms without a change after which an explorer counts as settled
LATEST = 60_000  # ms after which a picture that did not change never will, however busy the machine


def zigzag(count: int) -> list[str]:
    """Keys that go five large steps down, five up, and so on. Masks of ratios that are closer can be the same."""
    return [("PageDown", "PageUp")[i // 5 % 2] for i in range(count)]


@dataclass
class Control:
    """One control: `changed` collects what moving it changed (picture, marks, sound, words, controls)."""

    id: str
    kind: str
    name: str
    options: int
    changed: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}: {', '.join(sorted(self.changed)) or 'nothing'}"


class Explorer:
    """The explorer with the class `css` in a notebook whose cells have run.

    typed: what to enter into a text field or to upload, by a part of the control's name.
    """

    def __init__(self, notebook: OpenNotebook, css: str, typed: dict[str, str] | None = None):
        self.page, self.typed = notebook.page, typed or {}
        self.root = self.page.locator(f".asit-explorer.{css}")
        self.root.wait_for(state="visible")
        self.root.scroll_into_view_if_needed()
        self.settle()

    def ask(self, function: str, *arguments):
        """`asit.function(root, ...)` of explorer.js."""
        return self.root.evaluate(f"(root, rest) => asit.{function}(root, ...rest)", list(arguments))

    def controls(self) -> list[Control]:
        """What can be moved now: visible and not disabled."""
        return [Control(**found) for found in self.ask("controls")]

    def control(self, name: str, kind: str = "slider") -> Control:
        """The one control of that kind and name."""
        found = [control for control in self.controls() if (control.kind, control.name) == (kind, name)]
        assert len(found) == 1, f"{len(found)} controls are a {kind} {name!r}"
        return found[0]

    def locate(self, control: Control):
        return self.root.locator(f"[data-control='{control.id}']")

    def settle(self) -> None:
        assert self.ask("settled", QUIET, PATIENCE * 1000), "the explorer did not come to rest"

    def changes(self, before: dict[str, str]) -> set[str]:
        """What is different from `before`, once the explorer is at rest."""
        self.settle()
        now = self.ask("state")
        return {name for name in now if now[name] != before[name]}

    def move_all(self) -> list[Control]:
        """Every control moved, also those that show up only when another one is moved; each is put back after."""
        moved: dict[str, Control] = {}
        self._move_new(moved)
        there = [Control(**found) for found in self.ask("controls", True)]
        left = [str(control) for control in there if control.id not in moved and control.kind != "sound"]
        assert not left, f"never could be moved: {left}"
        return list(moved.values())

    def _move_new(self, moved: dict[str, Control]) -> None:
        new = [control for control in self.controls() if control.id not in moved and control.kind != "sound"]
        moved |= {control.id: control for control in new}
        for control in new:
            self.move(control, moved)

    def move(self, control: Control, moved: dict[str, Control] | None = None) -> set[str]:
        """Move one control to where its kind can go. What changed, also in `control.changed`."""
        before = self.ask("state")
        for _ in getattr(self, f"_{control.kind}")(control, self.locate(control)):
            control.changed |= self.changes(before)
            if moved is not None:
                self._move_new(moved)
        self.settle()
        return control.changed

    # --- One generator a kind: it moves, and yields wherever there is something to see -------------------------------

    def _slider(self, control: Control, handle) -> Iterator[None]:
        start = handle.get_attribute("aria-valuenow")
        for key in ("ArrowRight", "ArrowLeft", "PageUp", "End", "Home"):  # the first steps may round to the same
            handle.press(key)
            yield
            if "picture" in control.changed:
                break
        back = "ArrowLeft" if float(handle.get_attribute("aria-valuenow")) > float(start) else "ArrowRight"
        for _ in range(200):
            if handle.get_attribute("aria-valuenow") == start:
                return
            handle.press(back)
        raise AssertionError(f"{control}: its keys do not lead back to where it was")

    def _choice(self, control: Control, select) -> Iterator[None]:
        start = select.evaluate("select => select.selectedIndex")
        others = [i for i in range(control.options) if i != start]
        for index in others if len(others) < 9 else [others[0], others[-1]]:
            select.select_option(index=index)
            yield
        select.select_option(index=start)

    def _several(self, control: Control, select) -> Iterator[None]:
        start = select.evaluate("select => [...select.selectedOptions].map(option => option.index)")
        select.select_option(index=list(range(control.options)))
        yield
        select.select_option(index=[i for i in range(control.options) if i not in start][:1] or start[:1])
        yield
        select.select_option(index=start)

    def _check(self, control: Control, box) -> Iterator[None]:
        for _ in range(2):
            box.click()
            yield

    def _toggles(self, control: Control, group) -> Iterator[None]:
        buttons = group.locator("button")
        start = buttons.evaluate_all("all => all.findIndex(button => button.classList.contains('mod-active'))")
        for index in [i for i in range(control.options) if i != start]:
            buttons.nth(index).click()
            yield
        buttons.nth(start).click()

    def _radios(self, control: Control, group) -> Iterator[None]:
        buttons = group.locator("input")
        start = buttons.evaluate_all("all => all.findIndex(button => button.checked)")
        for index in [i for i in range(control.options) if i != start]:
            buttons.nth(index).click()
            yield
        buttons.nth(start).click()

    def _button(self, control: Control, button) -> Iterator[None]:
        button.click()
        yield

    def _upload(self, control: Control, button) -> Iterator[None]:
        with self.page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files(self._entry(control))
        button.filter(has_text="(1)").wait_for()  # the browser has read the file
        yield

    def _text(self, control: Control, entry) -> Iterator[None]:
        start = entry.input_value()
        for value in (self._entry(control), start):
            entry.fill(value)
            entry.press("Enter")
            entry.blur()
            yield

    def _number(self, control: Control, entry) -> Iterator[None]:
        start = float(entry.input_value())
        for value in (start + 1, start):
            entry.fill(f"{value:g}")
            entry.press("Enter")
            yield

    def _clickable(self, control: Control, picture) -> Iterator[None]:
        picture.focus()
        for key in ("ArrowRight", "ArrowDown", "Enter", "ArrowUp", "ArrowLeft"):
            picture.press(key)
            yield
        box = picture.bounding_box()
        for x, y in ((0.3, 0.6), (0.7, 0.4)):
            picture.click(position={"x": x * box["width"], "y": y * box["height"]})
            yield

    def _spectrogram(self, control: Control, view) -> Iterator[None]:
        view.focus()
        for key in ("+", "ArrowRight", "Home"):
            view.press(key)
            yield

    def _overview(self, control: Control, frame) -> Iterator[None]:
        for key in ("ArrowLeft", "ArrowRight"):
            frame.press(key)
            yield

    def _plane(self, control: Control, points) -> Iterator[None]:
        points.focus()
        for key in ("ArrowRight", "ArrowDown", "Home"):
            points.press(key)
            yield

    def _rows(self, control: Control, frame) -> Iterator[None]:
        frame.focus()
        for key in ("ArrowDown", "ArrowUp"):
            frame.press(key)
            yield

    def _curves(self, control: Control, frame) -> Iterator[None]:
        frame.focus()
        for key in ("+", "ArrowRight", "Home"):
            frame.press(key)
            yield

    def _entry(self, control: Control) -> str:
        known = [value for name, value in self.typed.items() if name.lower() in control.name.lower()]
        assert known, f"{control.kind} {control.name!r}: the test does not know what to enter here"
        return known[0]

    # --- How quickly it answers, and sounds ---------------------------------------------------------------------

    def answers(self, control: Control, keys: list[str]) -> list[float]:
        """Presses keys on a slider one after the other: from each key to its new picture in the page, ms."""
        times = self.ask("answers", control.id, keys, LATEST)
        assert None not in times, f"{control}: key {times.index(None) + 1} brought no new picture in {LATEST} ms"
        return times

    def play(self) -> dict[str, float]:
        """Play every sound a little: durations by name, s. Each is longer than nothing, and its time advances."""
        played = {}
        for control in [control for control in self.controls() if control.kind == "sound"]:
            sound = self.locate(control)
            self.page.wait_for_function("audio => audio.duration > 0", arg=sound.element_handle())
            sound.evaluate("audio => audio.play()")
            self.page.wait_for_function("audio => audio.currentTime > 0.05", arg=sound.element_handle())
            sound.evaluate("audio => { audio.pause(); audio.currentTime = 0; }")
            played[control.name] = sound.evaluate("audio => audio.duration")
        return played
