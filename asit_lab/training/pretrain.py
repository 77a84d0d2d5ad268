"""The training loop: any objective (objectives/base.py), on Lightning Fabric for device, precision and processes.

One process on the best device by default; under torchrun as many as it started. Everything that follows from the step
number (batch, crops, masks, rates) is computed from it, so a run continues where its saved state says.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from lightning.fabric import Fabric
from tqdm import tqdm

from ..config import RunConfig
from ..data import Batch, Manifest, load_manifest, make_loader
from ..data.views import overlap_note
from ..errors import InputError
from ..objectives import Objective, build_objective
from . import report
from .checkpoint import read_state, save_snapshot, save_state
from .optimizer import build_optimizer, clip_gradients, set_schedule
from .run import MetricsLog, Run, environment, environment_changes, open_run, read_json, write_json
from .start import init_student

OnLog = Callable[[Run, dict], None]


def pretrain(cfg: RunConfig, out: str | Path, resume: str = "auto", on_log: OnLog | None = None) -> Run:
    """Pretrain as the configuration says, into the run directory `out`.

    resume: "auto" continues a run that is there, "never" wants a new directory, "must" an existing run.
    on_log: called with the run and each new row of metrics, after it was written (live curves); takes the place of
    the progress bar.
    Returns the Run, whose status is "finished", or "interrupted" after Ctrl-C.
    Raises InputError for bad input, FloatingPointError when the loss or a gradient is not finite; the state saved last
    stays in the run directory.
    """
    fabric = _launch()
    run = _open_together(fabric, out, cfg, resume)
    if run.status == "finished":
        return run
    try:
        with ExitStack() as cleanup:
            _train(fabric, run, cfg, on_log, cleanup)
    except KeyboardInterrupt:
        _set_status(run, "interrupted", **_reached(run))
    except Exception as error:
        _set_status(run, "failed", **_reached(run), reason=f"{type(error).__name__}: {error}")
        raise
    return run


def _train(fabric: Fabric, run: Run, cfg: RunConfig, on_log: OnLog | None, cleanup: ExitStack) -> None:
    _check_batch(fabric, cfg)
    manifest = load_manifest(cfg.data.source, segment_seconds=cfg.data.segment_seconds)
    _write_bad_files(run, cfg, manifest, {})
    train, held = manifest.holdout(cfg.data.holdout)
    objective = build_objective(cfg, len(train))
    total = cfg.total_steps(len(train))
    notes = [*manifest.notes, *(note for note in [overlap_note(cfg, train)] if note)]
    if cfg.train.init_from and not run.state.is_file():
        notes += init_student(objective.student, cfg.train.init_from)
        objective.reset_teacher()

    optimizer = build_optimizer(cfg, objective)
    model, optimizer = fabric.setup(objective, optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    start, bad = 0, {}  # bad: path -> reason of the files that could not be read when their turn came
    setting = environment(fabric.device, fabric.world_size)
    if run.state.is_file():
        state = read_state(run.state, fabric.device)
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        start, bad = state["step"], dict(state["bad"])
        notes.append(f"continued at step {start}")
        notes += environment_changes(read_json(run.dir / "environment.json"), setting)
        if state["clips"] != len(train):
            notes.append(f"the data set has {len(train)} training clips now, it had {state['clips']}")

    leader = fabric.is_global_zero
    loader = make_loader(
        cfg, train, objective.views, start, stop=total, rank=fabric.global_rank, world=fabric.world_size
    )
    sample_batch = _sample_batch(cfg, held if len(held) else train, objective.views, bad)
    _write_bad_files(run, cfg, manifest, bad)
    fabric.barrier()  # every process has read what the first is about to overwrite
    if leader:
        write_json(run.dir / "environment.json", setting)
        for note in notes:
            tqdm.write(f"note: {note}")
        _set_status(run, "running", step=start, total_steps=total, notes=notes)
    log = MetricsLog(run.dir / "metrics.csv", start) if leader else None
    board = report.tensorboard(run.dir, start) if leader else None
    if board:
        cleanup.callback(board.close)
    snapshot_steps = {round(total * (i + 1) / cfg.train.snapshots) for i in range(cfg.train.snapshots)} | {total}
    bar = tqdm(total=total, initial=start, unit="step", disable=not leader or on_log is not None, **report.bar_style())
    cleanup.callback(bar.close)
    began, clips_seen = time.perf_counter(), 0

    for batch in loader:
        step = batch.step
        rates = set_schedule(optimizer, cfg, len(train), step)
        losses = _forward_backward(fabric, model, batch.to(fabric.device), cfg, step)
        norm = clip_gradients(parameters, cfg.optim.clip, cfg.optim.clip_by)
        if not torch.isfinite(norm + losses["loss"]):
            raise FloatingPointError(_not_finite(step, losses, norm, batch, train))
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step)

        done = step + 1
        clips_seen += cfg.train.batch_size
        fresh = {path: reason for path, reason in _bad_of_all(fabric, batch) if path not in bad}
        if fresh:
            bad |= fresh
            _write_bad_files(run, cfg, manifest, bad)
        if leader and (step % cfg.train.log_every == 0 or done == total):
            speed = clips_seen / (time.perf_counter() - began)
            row = {"step": step, "epoch": step / cfg.steps_per_epoch(len(train))}
            row |= {name: loss.item() for name, loss in losses.items()} | rates
            row |= {"gradient_norm": norm.item(), **objective.health(), "clips_per_second": speed}
            log.write(row)
            report.write_scalars(board, row)
            bar.set_postfix_str(report.one_line(row), refresh=False)
            if on_log:
                on_log(run, row)
        if leader and done in snapshot_steps:
            save_snapshot(
                run.dir / f"snapshots/step-{done}.safetensors", objective.student, objective.teacher, cfg, done
            )
            report.save_samples(run.dir / f"samples/step-{done}.png", objective, sample_batch, cfg, board, done)
        if leader and (done % cfg.train.checkpoint_every == 0 or done == total):
            state = {"step": done, "objective": objective.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(run.state, {**state, "bad": bad, "clips": len(train)})
            _set_status(run, "running", step=done, total_steps=total, notes=notes)
        bar.update()

    if leader:
        _finish(run, cfg, objective, train, total, time.perf_counter() - began, clips_seen)
    fabric.barrier()  # nobody leaves before the run is finished


def _launch() -> Fabric:
    """One device, or under torchrun all that it started."""
    spread = {}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        spread = {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local, "strategy": "ddp"}
    fabric = Fabric(accelerator="auto", precision="32-true", **({"devices": 1} | spread))
    fabric.launch()
    return fabric


def _open_together(fabric: Fabric, out: str | Path, cfg: RunConfig, resume: str) -> Run:
    """The run directory, made by the first process for all."""
    opened = None
    if fabric.is_global_zero:
        try:
            opened = open_run(out, cfg, resume)
        except InputError as error:
            opened = error
    opened = fabric.broadcast(opened)
    if isinstance(opened, InputError):
        raise opened
    return opened


def _check_batch(fabric: Fabric, cfg: RunConfig) -> None:
    if cfg.train.batch_size % (fabric.world_size * cfg.train.accumulate):
        raise InputError(
            f"train.batch_size: {cfg.train.batch_size} is not a multiple of {fabric.world_size} processes x "
            f"train.accumulate {cfg.train.accumulate}"
        )


def _forward_backward(
    fabric: Fabric, model: Objective, batch: Batch, cfg: RunConfig, step: int
) -> dict[str, torch.Tensor]:
    """Gradients of a batch, part by part; returns the losses, detached: means over parts and processes."""
    parts, means = cfg.train.accumulate, {}
    # Not Fabric's own "bf16-mixed": that rounds the waveforms to bf16 before the features are made of them.
    arithmetic = torch.autocast(fabric.device.type, torch.bfloat16, enabled=cfg.train.precision == "bf16")
    for i, part in enumerate(batch.split(parts)):
        with fabric.no_backward_sync(model, enabled=i < parts - 1):
            with arithmetic:
                losses = model(part, step)
            fabric.backward(losses.total / parts)
        for name, loss in {"loss": losses.total, **{f"loss_{n}": x for n, x in losses.parts.items()}}.items():
            means[name] = means.get(name, 0.0) + loss.detach() / parts
    everywhere = fabric.all_reduce(torch.stack(list(means.values())), reduce_op="mean")
    return dict(zip(means, everywhere.unbind(), strict=True))


def _bad_of_all(fabric: Fabric, batch: Batch) -> list[tuple[str, str]]:
    """(path, reason) of the files that no process could read in this step."""
    if fabric.world_size == 1:
        return batch.bad
    if not fabric.all_reduce(torch.tensor(float(len(batch.bad)), device=fabric.device), reduce_op="sum"):
        return []
    gathered = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, batch.bad)
    return [row for rows in gathered for row in rows]


def _sample_batch(cfg: RunConfig, held: Manifest, views: int, bad: dict[str, str]) -> Batch | None:
    """A few clips, held out where there are some, whose reconstructions are drawn at every snapshot.

    Files that cannot be read are added to `bad`; None when there is no other.
    """
    count = min(4, len(held))
    few = held.subset([round(i * (len(held) - 1) / max(1, count - 1)) for i in range(count)])
    small = cfg.with_overrides([f"train.batch_size={count}", "train.accumulate=1", "data.workers=0"])
    loader = make_loader(small, few, views, stop=1)
    try:
        batch = next(iter(loader))
    except InputError:
        bad |= {few.table["path"].iloc[row]: reason for row, reason in loader.dataset.unreadable.items()}
        return None
    bad |= dict(batch.bad)
    return batch


def _not_finite(step: int, losses: dict, norm: torch.Tensor, batch: Batch, train: Manifest) -> str:
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
    files = ", ".join(str(path) for path in train.table["path"].iloc[batch.index.tolist()][:8])
    return (
        f"step {step}: loss or gradient is not finite ({values}, gradient norm {norm.item():.4g}); weights, centres "
        f"and teacher were not touched. Clips of the batch: {files}"
    )


def _write_bad_files(run: Run, cfg: RunConfig, manifest: Manifest, met: dict[str, str]) -> None:
    """List the files that were skipped; stop when they are too many of the data set."""
    rows = {str(path): reason for path, reason in manifest.bad[["path", "reason"]].itertuples(index=False)} | met
    if not rows:
        return
    report.write_table(run.dir / "bad_files.csv", ["path", "reason"], list(rows.items()))
    files = manifest.table["path"].nunique() + len(manifest.bad)
    if len(rows) > cfg.data.max_bad_share * files:
        raise InputError(
            f"{len(rows)} of {files} files of {cfg.data.source} cannot be used, more than data.max_bad_share "
            f"{cfg.data.max_bad_share}; they are listed in {run.dir / 'bad_files.csv'}. The first: "
            + "; ".join(f"{path}: {reason}" for path, reason in list(rows.items())[:3])
        )


def _reached(run: Run) -> dict:
    """What status.json says of the way so far; step is the one a resume goes on from."""
    return {name: value for name, value in run.progress.items() if name in ("step", "total_steps", "notes")}


def _set_status(run: Run, status: str, **about) -> None:
    write_json(run.dir / "status.json", {"status": status, **about, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _finish(
    run: Run, cfg: RunConfig, objective: Objective, train: Manifest, total: int, seconds: float, clips: int
) -> None:
    last = run.metrics.iloc[-1].to_dict()
    write_json(
        run.dir / "result.json",
        {
            "name": cfg.name,
            "data": cfg.data.source,
            "training_clips": len(train),
            "steps": total,
            "epochs": total / cfg.steps_per_epoch(len(train)),
            "seed": cfg.train.seed,
            "parameters": sum(p.numel() for p in objective.student.parameters()),
            "backbone_parameters": sum(p.numel() for p in objective.student.backbone.parameters()),
            "seconds_of_last_start": seconds,
            "clips_per_second": clips / seconds if clips else None,
            "bad_files": len(run.bad_files),
            "last": {name: value for name, value in last.items() if name.startswith(("loss", "entropy", "centre"))},
        },
    )
    _set_status(run, "finished", step=total, total_steps=total)
    run.state.unlink(missing_ok=True)
