"""What the attention explorer shows: a token's attention over the log-mel, and all layers and heads in small.

Tokens are counted with the class token first: K = 1 + time * freq.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..figures.attention import HEAD_ROOM
from ..figures.axes import MelAxes
from ..inspection.clip_attention import ClipAttention
from .scene import Panel, Scene


class Look(NamedTuple):
    """One model's attention, as far as it is shown."""

    attention: ClipAttention
    weights: dict[str, np.ndarray]
    """title of a kind of weights -> [query K, key K]"""
    token: int
    """whose row and column are shown, 0: class token"""

    @property
    def patch(self) -> tuple[int, int]:
        return self.attention.config.model.patch


def token_place(token: int, grid: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int, int, int]:
    """First frame, first band, frames and bands of a patch."""
    time, freq = divmod(token - 1, grid[1])
    return time * patch[0], freq * patch[1], *patch


def token_of(frame: int, band: int, grid: tuple[int, int], patch: tuple[int, int]) -> int:
    """The token of the patch at a place; beyond the last patch that one."""
    time, freq = min(frame // patch[0], grid[0] - 1), min(band // patch[1], grid[1] - 1)
    return 1 + time * grid[1] + freq


def weights_scene(looks: Sequence[Look], clip: str, axes: MelAxes, scale: tuple[float, float], heading: str) -> Scene:
    """A column for each kind of weights of each model: over the log-mel, what the token attends to, what attends to it.

    clip: its name. axes, scale: of the log-mel, see `Scene`. heading: of the weights, for file names.
    """
    columns = [(look, title, weights) for look in looks for title, weights in look.weights.items()]
    log_mel, count = looks[0].attention.log_mel, len(columns)
    panels = [
        Panel(f"log-mel, {title}", f"{clip}; attends to, {title}", log_mel, over=count + number, sound="window")
        for number, (_, title, _) in enumerate(columns)
    ]
    for verb, of_token in (("attends to", 0), ("attended by", 1)):
        for look, title, weights in columns:
            shares = 100 * (weights[look.token] if of_token == 0 else weights[:, look.token])
            kind = "difference" if np.nanmin(weights, initial=0.0) < 0 else "weight"
            named = "–" if np.isnan(shares[0]) else f"{shares[0]:.1f} %"
            values = shares[1:].reshape(look.attention.grid)
            panels.append(
                Panel(f"{verb}, {title}", f"{verb}, {title}; class token {named}", values, kind, cell=look.patch)
            )
    return Scene(panels, axes, scale, columns=count, file=f"attention {heading}")


def heads_scene(attention: ClipAttention, token: int, axes: MelAxes, scale: tuple[float, float]) -> Scene:
    """What the token attends to in every layer (a row) and head (a column)."""
    panels = []
    for layer in range(attention.layers):
        for head in range(attention.heads):
            weights = attention.weights("map", layer, head)
            kind = "difference" if len(attention.kinds) > 1 else "weight"
            values = 100 * weights[token, 1:].reshape(attention.grid)
            name, short = f"layer {layer}, head {head}", f"L{layer} H{head}"  # the pictures are small
            panels.append(Panel(name, short, values, kind, cell=attention.config.model.patch))
    return Scene(panels, axes, scale, columns=attention.heads, file="attention of all heads", small=True)


def peak(scene: Scene) -> float:
    """Where the colours of a scene's weights end, percent. Even attention stays dark, or all were one bright block."""
    weights = [np.asarray(panel.values) for panel in scene.panels if panel.cell != (1, 1)]
    sizes = np.abs(np.concatenate([np.zeros(1), *(values.ravel() for values in weights)]))
    even = 100 / (1 + weights[0].size)
    return float(f"{max(np.nanpercentile(sizes, 99.5), HEAD_ROOM * even):.2g}")
