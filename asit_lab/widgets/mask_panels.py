"""A clip, what a mask leaves of it, and the tokens that counts for: panels made once and changed in place."""

from dataclasses import replace

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from ..figures.axes import MelAxes, colour_bar, colour_limits, image
from ..figures.spectrograms import draw_patch_grid
from ..figures.style import new_figure, styled

_SHADE = (128, 128, 128, 215)  # RGBA of a corrupted token: unlike every colour of a log-mel, and of padding


class MaskPanels:
    """Three panels above each other, on one time axis: clean, corrupted, and the corrupted tokens over the clean clip.

    `canvas` holds the drawing. Another mask is drawn over a kept picture of all that stays, the clip and the axes,
    which takes a third of the time of drawing everything: a slider can move it.
    """

    @styled
    def __init__(self, shape: tuple[int, int], patch: tuple[int, int], axes: MelAxes, dpi: float):
        """shape: frames, mels of the log-mel, whole patches. patch: frames, mels. dpi: dots an inch of 8 x 5.4."""
        self.axes, self.patch = axes, patch
        self.figure = new_figure(8.0, 5.4)
        self.figure.set_dpi(dpi)
        self.canvas = FigureCanvasAgg(self.figure)
        panels = self.figure.subplots(3, 1, sharex=True, sharey=True)
        blank = np.zeros(shape)
        # The layout leaves room for labels of the colour bar as long as those of -1 to 1.
        self.images = [image(ax, blank, axes, (-1.0, 1.0)) for ax in panels]
        self.titles = [ax.set_title(name) for ax, name in zip(panels, ("clean", "corrupted", "tokens"), strict=True)]
        tokens = (shape[0] // patch[0], shape[1] // patch[1])
        self.grid, self._grid_start = draw_patch_grid(panels[2], tokens, patch, axes), axes.start
        self.shade = panels[2].imshow(
            np.zeros((*tokens[::-1], 4), np.uint8),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=axes.extent(shape),
        )
        # White on black is seen on dark and on bright pixels alike.
        self.outlines = [[_outline(ax, colour) for colour in ("black", "white")] for ax in panels[1:]]
        for ax in panels:
            ax.label_outer()
        colour_bar(self.figure, self.images[0], axes.unit, ax=list(panels), aspect=40)
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")  # the layout is found once
        self.moving = [
            self.images[1],
            *panels[1].spines.values(),
            self.shade,
            *sum(self.outlines, []),
            *self.titles[1:],
        ]
        for artist in self.moving:
            artist.set_animated(True)  # not drawn with the rest
        self.still = None

    def set_clean(self, clean: np.ndarray, title: str, start: float = 0.0) -> None:
        """Another clip, or another part of it from `start` (s) on: log-mel [frames, mels], NaN where it is padded."""
        limits = colour_limits(clean)
        self.axes = replace(self.axes, start=start)
        for drawn in (*self.images, self.shade):
            drawn.set_extent(self.axes.extent(clean.shape))  # the panels follow
        self.grid.set_segments([line + (start - self._grid_start, 0) for line in self.grid.get_segments()])
        self._grid_start = start
        for drawn in self.images:
            drawn.set_clim(*limits)
        for i in (0, 2):
            self.images[i].set_data(np.ma.masked_invalid(clean.T))
        self.titles[0].set_text(title)
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(self.figure.bbox)

    def set_mask(self, corrupted: np.ndarray, pixels: np.ndarray, tokens: np.ndarray, titles: tuple[str, str]) -> None:
        """Another mask of the clip that is set: log-mel [frames, mels], NaN where nothing is seen; bool [frames, mels];
        bool [time, freq]. The canvas then holds the whole drawing.
        """
        self.images[1].set_data(np.ma.masked_invalid(corrupted.T))
        shade = np.zeros((*tokens.T.shape, 4), np.uint8)
        shade[tokens.T] = _SHADE
        self.shade.set_data(shade)
        scale, offset = (self.axes.hop_seconds, 1.0), (self.axes.start, 0.0)
        edges = borders(pixels), borders(tokens) * self.patch
        for lines, places in zip(self.outlines, edges, strict=True):
            for line in lines:
                line.set_segments(places * scale + offset)
        for title, text in zip(self.titles[1:], titles, strict=True):
            title.set_text(text)
        self.canvas.restore_region(self.still)
        for artist in self.moving:
            artist.draw(self.canvas.get_renderer())


def borders(mask: np.ndarray) -> np.ndarray:
    """Straight lines around the True places of `mask` [frames, mels]: float [lines, 2 ends, (frame, mel)]."""
    padded = np.pad(mask, 1)
    upright = _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])  # left of a frame
    level = _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)  # below a band
    return np.concatenate([upright, level[..., ::-1]]).astype(float)


def _runs(edges: np.ndarray) -> np.ndarray:
    """Unbroken runs of True along each row of `edges` [rows, places]: int [runs, 2 ends, (row, place)]."""
    change = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return np.stack([np.stack([rows, starts], -1), np.stack([rows, ends], -1)], axis=1)


def _outline(ax, colour: str) -> LineCollection:
    width = {"black": 2.0, "white": 0.9}[colour]
    lines = LineCollection([], colors=colour, linewidths=width, capstyle="projecting")
    return ax.add_collection(lines, autolim=False)
