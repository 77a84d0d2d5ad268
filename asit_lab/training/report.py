"""What a run shows on its way: progress line, TensorBoard, pictures. TensorBoard and matplotlib are used if present."""

import csv
import sys
from pathlib import Path

from ..config import RunConfig
from ..data import Batch
from ..objectives import Objective
from .files import whole


def bar_style() -> dict:
    """Settings of the progress bar: quick in a terminal, an occasional line where output is kept (logs, notebooks)."""
    live = sys.stderr.isatty()
    return {"mininterval": 0.5 if live else 20.0, "dynamic_ncols": live, "smoothing": 0.05}


def passing_bar_style() -> dict:
    """The same for what is over soon, or done many times. Nothing for the first second; no notebook keeps it."""
    if not _in_kernel():
        return {**bar_style(), "delay": 1.0}
    return {"file": _Place(), "leave": False, "delay": 1.0, "mininterval": 0.5}


class _Place:
    """A file to tqdm: one output of a notebook, which holds what was written last, so a cleared bar leaves it empty."""

    encoding = "utf-8"  # else bars are drawn with #

    def __init__(self):
        self.shown = None

    def write(self, text: str) -> None:
        content = {"text/plain": text.strip()}
        if self.shown:
            self.shown.update(content, raw=True)
        elif text.strip():
            from IPython.display import display

            self.shown = display(content, raw=True, display_id=True)


def _in_kernel() -> bool:
    """Whether this is a notebook's process. IPython may be missing, and is there already where it is one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return "IPKernelApp" in getattr(shell, "config", {})


def one_line(row: dict) -> str:
    """Losses and speed of a metrics row in a few words."""
    losses = [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in row.items() if name.startswith("loss")]
    speed = [f"{row['clips_per_second']:.1f} clips/s"] if "clips_per_second" in row else []
    return ", ".join(losses + speed)


def tensorboard(folder: Path, start: int):
    """A SummaryWriter into the run directory that forgets events from step `start` on, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start)


def write_scalars(board, row: dict) -> None:
    """A metrics row to TensorBoard."""
    if board is not None:
        for name, value in row.items():
            if name != "step":
                board.add_scalar(name, value, row["step"])


def save_samples(path: Path, objective: Objective, batch: Batch | None, cfg: RunConfig, board, step: int) -> None:
    """Draw clean, corrupted, reconstructed and error of a few clips to a PNG (and TensorBoard); needs matplotlib."""
    if batch is None:
        return
    try:
        from .. import figures
    except ImportError:
        return
    device = next(objective.parameters()).device
    tensors = {name: t.float().cpu().numpy() for name, t in objective.samples(batch.to(device)).items()}
    if not tensors:
        return
    axes = figures.MelAxes.of(cfg.features, normalised=True)
    clips = [
        (clean, corrupted, rebuilt, mask > 0)
        for clean, corrupted, rebuilt, mask in zip(
            tensors["clean"], tensors["corrupted"], tensors["reconstructed"], tensors["mask"], strict=True
        )
    ]
    figure = figures.reconstructions(clips, axes, title=f"held-out clips after {step} steps")
    figures.save(figure, path)
    if board is not None:
        board.add_figure("reconstructions", figure, step)


def write_table(path: Path, header: list[str], rows: list[tuple]) -> None:
    """A small CSV, written whole or not at all."""
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
