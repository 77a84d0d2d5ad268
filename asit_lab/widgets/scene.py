"""Defines what a spectrogram view shows: panels of one clip on common axes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..figures.axes import MelAxes, array, check_patches, mask_array

DECIBELS = 10 / np.log(10)  # of one unit of natural log of power


class Panel(NamedTuple):
    """One panel: values float [frames, mels], NaN grey, or a value for each `cell` of (frames, mels).

    name: in readouts and tables. title: the text above the panel. kind: "level" (a log-mel), "error", "weight" or
    "difference" (attention, %). over: number of the panel of weights that lies over this one, -1: none. outline: draw
    the outline of the mask. kept: that of the kept mask instead. tokens: shade corrupted tokens. sound: name of the
    player for this panel. new_row: begin a row with it, even where the one before has room.
    """

    name: str
    title: str
    values: Any
    kind: str = "level"
    outline: bool = False
    kept: bool = False
    tokens: bool = False
    sound: str = ""
    cell: tuple[int, int] = (1, 1)
    over: int = -1
    new_row: bool = False


@dataclass(frozen=True)
class Scene:
    """Panels of one clip, `columns` per row, errors last, and what they share.

    axes: of all panels. scale: (standard deviation, mean) of the normalisation (x - mean) / (2 std), natural log. mask:
    bool [frames, mels]; kept_mask: another one to compare with; tokens: bool [time, freq] of `patch` (frames, mels);
    True = corrupted. error_unit: what errors are, with names for each of several. small: panels without Hz, to compare
    many. Raises InputError for shapes that differ.
    """

    panels: Sequence[Panel]
    axes: MelAxes
    scale: tuple[float, float]
    columns: int = 1
    mask: np.ndarray | None = None
    kept_mask: np.ndarray | None = None
    tokens: np.ndarray | None = None
    patch: tuple[int, int] = (1, 1)
    error_unit: str = "|error|"
    names: Sequence[str] = field(default_factory=tuple)
    file: str = "spectrogram"
    small: bool = False

    def __post_init__(self):
        values = [array(panel.values, panel.title, "frames, mels") for panel in self.panels]
        full = {image.shape for image, panel in zip(values, self.panels, strict=True) if panel.cell == (1, 1)}
        if len(full) > 1 or not self.panels:
            raise InputError(f"panels: expected some of one shape, got {sorted(full)}")
        for image, panel in zip(values, self.panels, strict=True):
            check_patches(panel.cell, self.shape, image.shape, panel.title)
        for name in ("mask", "kept_mask"):
            if getattr(self, name) is not None:
                mask_array(getattr(self, name), name, self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """frames, mels"""
        panel = min(self.panels, key=lambda panel: panel.cell)  # a full one where there is one
        frames, mels = np.shape(panel.values)
        return frames * panel.cell[0], mels * panel.cell[1]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of each panel."""
        places, row, column = [], 0, 0
        for panel in self.panels:
            if column == self.columns or (panel.new_row and column):
                row, column = row + 1, 0
            places.append((row, column))
            column += 1
        return places

    @property
    def errors(self) -> list[Panel]:
        return [panel for panel in self.panels if panel.kind == "error"]

    @property
    def error_in_decibels(self) -> bool:
        """Whether an error is a difference of levels."""
        return self.error_unit == "|error|"

    def in_decibels(self) -> "Scene":
        """The same scene with levels in dB of power, and errors where they are differences of levels."""
        slope, offset = 2 * self.scale[0] * DECIBELS, self.scale[1] * DECIBELS
        panels = []
        for panel in self.panels:
            if panel.kind == "level":
                panel = panel._replace(values=slope * np.asarray(panel.values) + offset)
            elif self.error_in_decibels:
                panel = panel._replace(values=slope * np.asarray(panel.values))
            panels.append(panel)
        return replace(self, panels=panels)
