"""Defines what a spectrogram view shows: panels of one clip on common axes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..figures.axes import MelAxes, array, mask_array

DECIBELS = 10 / np.log(10)  # of one unit of natural log of power


class Panel(NamedTuple):
    """One panel: values float [frames, mels], NaN grey.

    name: in readouts and tables. title: the text above the panel. kind: "level" (a log-mel) or "error". outline: draw
    the outline of the mask. tokens: shade corrupted tokens. sound: name of the player for this panel.
    """

    name: str
    title: str
    values: Any
    kind: str = "level"
    outline: bool = False
    tokens: bool = False
    sound: str = ""


@dataclass(frozen=True)
class Scene:
    """Panels of one clip, `columns` per row, errors last, and what they share.

    axes: of all panels. scale: (standard deviation, mean) of the normalisation (x - mean) / (2 std), natural log. mask:
    bool [frames, mels]; tokens: bool [time, freq] of `patch` (frames, mels); True = corrupted. error_unit: what errors
    are, with names for each of several. Raises InputError for shapes that differ.
    """

    panels: Sequence[Panel]
    axes: MelAxes
    scale: tuple[float, float]
    columns: int = 1
    mask: np.ndarray | None = None
    tokens: np.ndarray | None = None
    patch: tuple[int, int] = (1, 1)
    error_unit: str = "|error|"
    names: Sequence[str] = field(default_factory=tuple)
    file: str = "spectrogram"

    def __post_init__(self):
        values = [array(panel.values, panel.title, "frames, mels") for panel in self.panels]
        if len({image.shape for image in values}) != 1:
            raise InputError(f"panels: expected some of one shape, got {sorted({image.shape for image in values})}")
        if self.mask is not None:
            mask_array(self.mask, "mask", self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """frames, mels"""
        return np.shape(self.panels[0].values)

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
