"""Draws runs of a study, with the data behind each figure: curves, masks, reconstructions, attention.

All runs are given the same held-out clips, where they are of one data set. A figure that cannot be drawn becomes a
note: a run without a decoder reconstructs nothing, a data set may have been moved since.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from .. import figures
from ..config import RunConfig
from ..data import Manifest, load_manifest
from ..encoder import Encoder, load_encoder
from ..errors import InputError
from ..evaluation import compare_attention, example_crops, reconstruct_clips
from ..figures.printed import WIDTHS, mask_strip, reconstruction_strip
from ..masking import gmml, inverse_blocks
from ..objectives import masks_as_configured
from ..random import key
from ..runs.directory import load_run
from ..settings import MASK_KINDS
from .chosen import ChosenPoint

PICTURED_CLIPS, PICTURED_MASKS, PICTURES_SEED = 2, 3, 0
_DRAWS = 32  # masks to choose from, so that each kind is among them


@dataclass(frozen=True)
class ReportFigure:
    """A figure, its data as a table, and its texts."""

    name: str
    figure: Figure
    table: pd.DataFrame
    alt: str
    caption: str


@dataclass
class RunFigures:
    """The figures of one run."""

    chosen: ChosenPoint
    figures: list[ReportFigure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """what could not be drawn, and why"""


# --- Curves ---------------------------------------------------------------------------------------------------------


def loss_curves(chosen: list[ChosenPoint]) -> ReportFigure | None:
    """The losses of these runs, in the same panels; None where nothing was logged."""
    runs = {point.setting: point.run for point in chosen if (point.run / "config.yaml").is_file()}
    metrics = {setting: load_run(run).metrics for setting, run in runs.items()}
    losses = list(
        dict.fromkeys(name for table in metrics.values() for name in map(str, table) if name.startswith("loss"))
    )
    if not losses:
        return None
    if len(losses) > 2:  # the total is their weighted sum, with weights that settings may change
        losses = [name for name in losses if name != "loss"]
    tables = {name: table[["step", *(loss for loss in losses if loss in table)]] for name, table in metrics.items()}
    endings = ", ".join(loss.removeprefix("loss_").replace("_", " ") for loss in losses)
    ends = "; ".join(f"{name} ends at {_last(table)}" for name, table in tables.items() if len(table))
    return ReportFigure(
        "curves",
        figures.compared_curves(tables, losses, width=WIDTHS["double"]),
        pd.concat([table.assign(setting=name) for name, table in tables.items()], ignore_index=True),
        f"Curves over the optimiser step of the losses {endings}: {ends}.",
        f"Losses over the optimiser step: {endings}.",
    )


def _last(table: pd.DataFrame) -> str:
    return ", ".join(
        f"{name.removeprefix('loss_')} {table[name].iloc[-1]:.3g}" for name in map(str, table) if name != "step"
    )


# --- One run --------------------------------------------------------------------------------------------------------


def run_figures(chosen: ChosenPoint) -> RunFigures:
    """Reconstructions, masks and attention of a run, on clips held out of its pretraining."""
    run = RunFigures(chosen)
    try:
        encoder = load_encoder(chosen.run)
        manifest, origin = _held_out(encoder)
        waves = example_crops(encoder, manifest, PICTURED_CLIPS, PICTURES_SEED)
    except InputError as error:
        run.notes.append(f"No pictures of this run: {error}")
        return run
    (row, wave), *_ = waves.items()
    subject = f"{manifest.table['label'].iloc[row] or 'no label'}, clip {row}"
    for draw in (
        lambda: _reconstructions(encoder, manifest, origin, chosen),
        lambda: _masks(encoder, wave, subject, chosen),
        lambda: _attention(encoder, wave, subject, chosen),
    ):
        _add(run, draw)
    return run


def _add(run: RunFigures, draw: Callable[[], ReportFigure]) -> None:
    try:
        run.figures.append(draw())
    except InputError as error:
        run.notes.append(str(error))


def _held_out(encoder: Encoder) -> tuple[Manifest, str]:
    """The clips held out of a run's pretraining, and a description; all clips where none were held out."""
    data = encoder.config.data
    manifest = load_manifest(data.source, segment_seconds=data.segment_seconds)
    _, held_out = manifest.holdout(data.holdout)
    if len(held_out):
        return held_out, "held out of pretraining"
    return manifest, "it was pretrained on, as none were held out"


def _reconstructions(encoder: Encoder, manifest: Manifest, origin: str, chosen: ChosenPoint) -> ReportFigure:
    if not encoder.reconstructs:
        latent = encoder.decoder is not None
        reason = "its decoder predicts latent targets, not log-mels" if latent else "the run has no decoder"
        raise InputError(f"No reconstructions: {reason}.")
    examples = reconstruct_clips(encoder, manifest, PICTURED_CLIPS, PICTURES_SEED)
    axes = figures.MelAxes.of(encoder.config.features, normalised=True)
    tables = []
    for clip in examples:
        pixels = {name: getattr(clip, name) for name in ("clean", "corrupted", "reconstructed", "mask")}
        tables.append(_pixels(axes, **pixels).assign(clip=clip.title))
    errors = [np.abs(clip.clean - clip.reconstructed)[clip.mask] for clip in examples]
    words = "; ".join(
        f"{clip.title}: {100 * clip.mask.mean():.0f} % corrupted, mean error {error.mean() if error.size else 0:.3f}"
        for clip, error in zip(examples, errors, strict=True)
    )
    return ReportFigure(
        f"{chosen.key}_reconstructions",
        reconstruction_strip(examples, axes),
        pd.concat(tables, ignore_index=True),
        f"{chosen.setting}. Clips {origin}: clean, corrupted, reconstructed, and the absolute error. {words}.",
        f"Reconstructions of clips {origin}; zeros stand in corrupted places. {words}.",
    )


def _masks(encoder: Encoder, wave: torch.Tensor, subject: str, chosen: ChosenPoint) -> ReportFigure:
    config = encoder.config
    if not masks_as_configured(config):
        raise InputError(f"No picture of masks: {config.objective.name} corrupts by code of its own.")
    log_mel = encoder.log_mel(wave, config.features.sample_rate)[0].float().cpu()  # [T, M]
    masks, titles = _draw_masks(config, *log_mel.shape)
    axes = figures.MelAxes.of(config.features, normalised=True)
    named = {f"mask_{number}": mask for number, mask in enumerate(masks.numpy(), start=1)}
    return ReportFigure(
        f"{chosen.key}_masks",
        mask_strip(log_mel.numpy(), masks.numpy(), titles, axes),
        _pixels(axes, log_mel=log_mel.numpy(), **named),
        f"{chosen.setting}. Masks over the log-mel of one clip ({subject}): {'; '.join(titles)}.",
        f"What is hidden from the student, draws over one clip ({subject}): {'; '.join(titles)}.",
    )


def _draw_masks(config: RunConfig, frames: int, mels: int) -> tuple[torch.Tensor, list[str]]:
    """Masks as pretraining draws them, bool [PICTURED_MASKS, T, M], and a title for each."""
    keys = key(PICTURES_SEED, torch.arange(_DRAWS), "report")
    p, q = config.model.patch
    if config.objective.name == "asda":
        grid = (frames // p, mels // q)
        _, hidden = inverse_blocks(keys[:PICTURED_MASKS], grid, config.asda.visible, config.asda.block)  # [MASKS, N]
        masks = hidden.unflatten(1, grid).repeat_interleave(p, 1).repeat_interleave(q, 2)
        return masks, [f"{100 * float(mask.float().mean()):.0f} % of patches" for mask in hidden]
    generated = gmml(keys, frames, mels, config.mask, config.model.patch)
    kinds = [MASK_KINDS[kind] for kind in generated.kind.tolist()]
    selected = _of_each_kind(kinds)
    titles = []
    for number in selected:
        odds = config.mask.odds[kinds[number]]
        often = f", in {100 * odds:.0f} % of views" if odds < 1 else ""
        titles.append(f"{kinds[number]}{often}: {100 * float(generated.pixels[number].float().mean()):.0f} %")
    return generated.pixels[selected], titles


def _of_each_kind(kinds: list[str]) -> list[int]:
    """PICTURED_MASKS of these draws: the first of each kind, then the second; uncorrupted views come last."""
    order = sorted(range(len(kinds)), key=lambda n: (kinds[:n].count(kinds[n]), kinds[n] == "none", n))
    corrupted = [n for n in order if kinds[n] != "none"]
    plain = [n for n in order if kinds[n] == "none"][: PICTURED_MASKS if not corrupted else 1]
    room = PICTURED_MASKS - min(len(plain), PICTURED_MASKS)
    return corrupted[:room] + plain


def _attention(encoder: Encoder, wave: torch.Tensor, subject: str, chosen: ChosenPoint) -> ReportFigure:
    config = encoder.config
    (attention,) = compare_attention([encoder], wave, config.features.sample_rate)
    axes = figures.MelAxes.of(config.features, normalised=True)
    figure = figures.attention_comparison([attention._replace(title=chosen.setting)], [axes], [config.model.patch])
    rows = []
    for kind, weights in attention.maps.items():  # [2, time, freq]
        query, time, freq = (index.ravel() for index in np.indices(weights.shape))
        names = np.array(["class token", "framed patch"])[query]
        places = {"patch_time": time, "patch_frequency": freq, "weight": weights.ravel()}
        rows.append(pd.DataFrame({"kind": kind, "query": names, **places}))
    strongest = np.unravel_index(np.nanargmax(np.abs(attention.maps["map"][0])), attention.maps["map"][0].shape)
    return ReportFigure(
        f"{chosen.key}_attention",
        figure,
        pd.concat(rows, ignore_index=True),
        f"{chosen.setting}. Attention of the last block over one clip ({subject}), for class token and loudest patch. "
        f"The class token attends most to patch {strongest[0]} along time, {strongest[1]} along frequency.",
        f"Attention of the last block, mean over heads, over {subject}: of the class token, and of the loudest patch.",
    )


def _pixels(axes: figures.MelAxes, **images: np.ndarray) -> pd.DataFrame:
    """Images [frames, mels] as a table with a row per pixel: time (s), band, and a column for each."""
    frames, mels = next(iter(images.values())).shape
    frame, band = (index.ravel() for index in np.indices((frames, mels)))
    columns = {
        name: values.ravel().astype(int) if values.dtype == bool else values.ravel().round(4)
        for name, values in images.items()
    }
    return pd.DataFrame({"time_s": (frame * axes.hop_seconds).round(4), "band": band, **columns})
