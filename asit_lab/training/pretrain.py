"""The training loop: any objective (objectives/base.py), on Lightning Fabric for device, precision and processes.

One process on the best device by default; under torchrun as many as it started. Everything that follows from the step
number (batch, crops, masks, rates) is computed from it, so a run resumes at the step of its saved state.
"""

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from lightning.fabric import Fabric
from tqdm import tqdm

from ..arithmetic import bf16_notes
from ..config import RunConfig, diff, load_config, resolve
from ..data import Batch, DataSource, Manifest, load_manifest, make_loader
from ..data.crops import crop_notes
from ..data.lists import as_source
from ..data.statistics import with_measured_features
from ..errors import InputError
from ..objectives import Objective, build_objective
from ..runs.directory import Run, open_run
from ..runs.environment import environment, environment_changes
from ..runs.snapshot import disk_needed, read_state
from ..storage.atomic import FULL, read_json, write_json, write_table
from .extend import ORIGIN, check_source, origin_notes, take_over
from .interrupt import Signals, Terminated
from .look import LookedAt, look
from .nonfinite import not_finite
from .recorder import Recorder, reached, set_status
from .start_weights import init_student
from .step import Stepper, from_first, launch

BAD_FILES = "bad_files.csv"

OnLog = Callable[[Run, dict], None]
OnStep = Callable[[Run, int, dict[str, torch.Tensor]], None]
PICTURED = 4  # clips whose reconstructions are drawn at every snapshot


def pretrain(
    cfg: RunConfig | str | Path,
    out: str | Path,
    resume: str = "auto",
    on_log: OnLog | None = None,
    on_step: OnStep | None = None,
    resume_from: str | Path | None = None,
    data: DataSource | None = None,
) -> Run:
    """Pretrain as the configuration says, into the run directory `out`.

    cfg: a RunConfig, or a preset, YAML file or run directory to read one from.
    data: in place of the configuration's data.source: another source, a table with a column path, a list of files or a
    Manifest. What is no source by name is written to a list, which data.source then names (see data/lists.py).
    resume: "auto" resumes an existing run, "never" requires a new directory, "must" an existing run.
    on_log: called with the run and each new row of metrics (and clips_per_second), after it was written (live
    curves); replaces the progress bar.
    on_step: called after every step with the run, the number of steps done and the losses (detached scalars on the
    device: reading one waits for it). Both are called in the first process only. KeyboardInterrupt from either saves
    the state and ends the run as Ctrl-C does, which makes it a way to stop early.
    resume_from: a run to train longer, in the new directory `out`: weights, heads, optimiser and metrics are taken over
    from its end, and the schedules are stretched to the length in `cfg` (see training/extend.py), which is
    load_config(resume_from, ["train.steps=..."]), say.
    Returns the Run, whose status is "finished", or "interrupted" after Ctrl-C: the step under way was finished and its
    state saved, unless a second Ctrl-C came. SIGTERM does the same with status "terminated" and then ends the process.
    "failed" is returned when the run has collapsed and train.on_collapse says stop.
    However a run ended, even killed, it resumes from its last state with the same result as without the interruption:
    bit for bit with the same device, threads, versions and number of processes.
    Raises InputError for bad input, a directory another process is writing to and a full disk; FloatingPointError when
    the loss or a gradient is not finite; SystemExit with status 143 after SIGTERM. The state saved last stays in the
    run directory.
    """
    cfg = cfg if isinstance(cfg, RunConfig) else load_config(cfg)
    if data is not None:
        cfg = cfg.with_overrides({"data.source": as_source(data, cfg.data.segment_seconds)})
    fabric = launch()
    cfg = _with_numbers(fabric, cfg, out)
    with ExitStack() as hold:
        run = _open_together(fabric, out, cfg, resume, hold, resume_from)
        if run.status == "finished":
            if fabric.is_global_zero:
                tqdm.write(f"note: {run.dir} was finished before; nothing is trained", file=sys.stderr)
            return run
        stopped = _attempt(fabric, run, cfg, on_log, on_step)
    if stopped == "terminated":
        raise Terminated
    return run


def _with_numbers(fabric: Fabric, cfg: RunConfig, out: str | Path) -> RunConfig:
    """The configuration with numbers for features.mean and features.std that are auto: those of the existing run, or
    measured."""
    return from_first(fabric, lambda: with_measured_features(cfg, resolve(out)))


def _attempt(fabric: Fabric, run: Run, cfg: RunConfig, on_log: OnLog | None, on_step: OnStep | None) -> str | None:
    """Train, and write to status.json how it ended. Returns the one of STOPS that ended it early, if any."""
    with Signals() as signals:
        try:
            with ExitStack() as cleanup:
                stopped = _train(fabric, run, cfg, signals.saving(on_log), signals.saving(on_step), signals, cleanup)
        except KeyboardInterrupt:
            stopped = "interrupted"
        except Terminated:
            stopped = "terminated"
        except Exception as error:
            full = _full_disk(run, error)
            with suppress(OSError):  # a full disk may not even hold this
                reason = full or f"{type(error).__name__}: {error}"
                set_status(run, "failed", **reached(run), reason=str(reason))
            if full:
                raise full from None
            raise
        if stopped == "collapsed":
            set_status(run, "failed", **reached(run), reason=run.progress["health"])
        elif stopped:
            set_status(run, stopped, **reached(run))
        return stopped or ("terminated" if signals.requested == "terminated" else None)  # a signal after the last step


def _train(
    fabric: Fabric,
    run: Run,
    cfg: RunConfig,
    on_log: OnLog | None,
    on_step: OnStep | None,
    signals: Signals,
    cleanup: ExitStack,
) -> str | None:
    leader = fabric.is_global_zero
    _check_batch(fabric, cfg)
    manifest = load_manifest(cfg.data.source, segment_seconds=cfg.data.segment_seconds)
    looked_at = _look(fabric, cfg, manifest)
    bad = dict(looked_at.bad)  # path -> reason of the files that could not be read
    _list_bad_files(run, manifest, bad, leader)
    _refuse_damaged(run, cfg, manifest, looked_at)
    train, held_out = manifest.holdout(cfg.data.holdout)
    objective = build_objective(cfg, len(train))
    total = cfg.total_steps(len(train))
    notes = [*manifest.notes, *looked_at.notes, *crop_notes(cfg, train, objective.views)]
    notes += bf16_notes(cfg.train.precision, fabric.device.type)
    notes += [f"{row['key']} is {row['b']} now, config.yaml says {row['a']}" for row in diff(run.config, cfg)]
    notes += origin_notes(run, cfg, len(train), total)
    if cfg.train.init_from and not run.state.is_file():
        notes += init_student(objective.student, cfg.train.init_from, cfg)
        objective.reset_teacher()

    recorder: Recorder | None = None  # the first process has one

    def requested() -> str | None:
        return signals.requested or (recorder.requested if recorder else None)

    stepper = Stepper(fabric, cfg, objective, len(train), requested)
    start, seconds = 0, 0.0
    changes: list[str] = []  # of what results depend on to the bit, over all starts
    setting = environment(fabric.device, fabric.world_size)
    if run.state.is_file():
        state = read_state(run.state, fabric.device)
        try:
            stepper.load_state_dict(state)
        except torch.OutOfMemoryError:  # a RuntimeError, too
            raise
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            words = str(error).splitlines()[0]
            raise InputError(f"{run.state}: not the state of this run: {type(error).__name__}: {words}") from None
        start, seconds, changes = state["step"], state["seconds"], state["changes"]
        bad |= state["bad"]
        new = environment_changes(state["environment"], setting)
        if state["clips"] != len(train):
            new.append(f"the data set has {len(train)} training clips now, it had {state['clips']}")
        notes += [f"continued at step {start}", *changes, *new]
        changes = [*changes, *(f"step {start}: {change}" for change in new)]
    about = {"clips": len(train), "environment": setting, "changes": changes}
    _check_disk(run, cfg, objective, total)

    loader = make_loader(
        cfg, train, objective.views, start, stop=total, rank=fabric.global_rank, world=fabric.world_size
    )
    cleanup.callback(loader.close)
    pictured = _sample_batch(cfg, held_out if len(held_out) else train, objective.views, bad)
    _list_bad_files(run, manifest, bad, leader)
    fabric.barrier()  # every process has read what the first is about to overwrite
    if leader:
        write_json(run.dir / "environment.json", setting)
        for note in notes:
            tqdm.write(f"note: {note}")
        recorder = Recorder(run, cfg, start, total, seconds, notes, on_log)
        cleanup.callback(recorder.close)
    snapshot_steps = {round(total * (i + 1) / cfg.train.snapshots) for i in range(cfg.train.snapshots)} | {total}
    signals.patient = True

    for batch in loader:
        step = batch.step
        gradients = stepper.gradients(batch)
        if not gradients.finite:
            raise FloatingPointError(not_finite(gradients, batch, train, stepper))
        stepper.apply(step)

        done = step + 1
        fresh = {path: reason for path, reason in _unreadable_files(fabric, batch) if path not in bad}
        if fresh:
            bad |= fresh
            _list_bad_files(run, manifest, bad, leader)
        if leader and (step % cfg.train.log_every == 0 or done == total):
            row = {"step": step, "epoch": step / cfg.steps_per_epoch(len(train))}
            row |= {name: loss.item() for name, loss in gradients.losses.items()} | gradients.rates
            recorder.row(row | {"gradient_norm": gradients.norm.item(), **objective.health()})
        if leader and on_step:
            on_step(run, done, gradients.losses)
        # Several processes stop together, after the next step, when all of them know.
        stop = gradients.stop or (signals.requested if fabric.world_size == 1 else None)
        if leader and done in snapshot_steps:
            recorder.snapshot(done, objective, pictured)
        if leader and (stop or done % cfg.train.checkpoint_every == 0 or done == total):
            recorder.state(done, {**stepper.state_dict(), **about, "bad": bad})
        if leader:
            recorder.bar.update()
        if stop and done < total:
            fabric.barrier()  # no process exits before the state is saved
            return stop

    if leader:
        recorder.finish(
            {
                "name": run.config.name,
                "data": cfg.data.source,
                "training_clips": len(train),
                "steps": total,
                "epochs": total / cfg.steps_per_epoch(len(train)),
                "seed": cfg.train.seed,
                "parameters": sum(p.numel() for p in objective.student.parameters()),
                "backbone_parameters": sum(p.numel() for p in objective.student.backbone.parameters()),
                "environment_changes": changes,
                **({"resumed_from": origin} if (origin := read_json(run.dir / ORIGIN)) else {}),
            }
        )
    fabric.barrier()  # no process exits before the run is finished
    return None


def _open_together(
    fabric: Fabric, out: str | Path, cfg: RunConfig, resume: str, hold: ExitStack, resume_from: str | Path | None
) -> Run:
    """The run directory, made and locked by the first process for all; a new one gets the state of the run to
    continue."""

    def open_directory() -> Run:
        begun = (resolve(out) / "state.pt").is_file()
        source = None if resume_from is None or begun else check_source(resume_from, cfg)
        run = open_run(out, cfg, resume, hold)
        if source and run.status != "finished":
            take_over(run, source)
        return run

    return from_first(fabric, open_directory)


def _check_batch(fabric: Fabric, cfg: RunConfig) -> None:
    if cfg.train.batch_size % (fabric.world_size * cfg.train.accumulate):
        raise InputError(
            f"train.batch_size: {cfg.train.batch_size} is not a multiple of {fabric.world_size} processes x "
            f"train.accumulate {cfg.train.accumulate}"
        )


def _check_disk(run: Run, cfg: RunConfig, objective: Objective, total: int) -> None:
    """Refuse a run that the disk has no room for; what it has written already counts."""
    written = sum(path.stat().st_size for path in [*run.snapshots, run.state] if path.is_file())
    needed, free = max(0, disk_needed(cfg, objective, total) - written), shutil.disk_usage(run.dir).free
    if needed > free:
        raise InputError(
            f"{run.dir}: {free / 1e6:,.0f} MB are free and the run will write up to {needed / 1e6:,.0f} MB; make room, "
            "choose a directory on another disk, or keep fewer weights (train.snapshots)"
        )


def _full_disk(run: Run, error: Exception) -> InputError | None:
    """The error for the user when `error` says that the disk is full; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    safe = f"the run resumes at step {run.progress['step']}" if run.state.is_file() else "the run starts anew"
    return InputError(
        f"{error.filename or run.dir}: cannot be written: {error.strerror}. What was written before is intact: once "
        f"there is room, {safe} when it is started as before with resume='auto'"
    )


def _unreadable_files(fabric: Fabric, batch: Batch) -> list[tuple[str, str]]:
    """(path, reason) of the files that no process could read in this step."""
    if fabric.world_size == 1:
        return batch.bad
    if not fabric.all_reduce(torch.tensor(float(len(batch.bad)), device=fabric.device), reduce_op="sum"):
        return []
    gathered = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, batch.bad)
    return [row for rows in gathered for row in rows]


def _sample_batch(cfg: RunConfig, clips: Manifest, views: int, bad: dict[str, str]) -> Batch | None:
    """PICTURED clips, held out where there are some.

    Files that cannot be read are added to `bad`; None when there is no other.
    """
    count = min(PICTURED, len(clips))
    chosen = clips.subset([round(i * (len(clips) - 1) / max(1, count - 1)) for i in range(count)])
    small = cfg.with_overrides([f"train.batch_size={count}", "train.accumulate=1", "data.workers=0"])
    loader = make_loader(small, chosen, views, stop=1)
    try:
        batch = next(iter(loader))
    except InputError:
        bad |= {chosen.table["path"].iloc[row]: reason for row, reason in loader.dataset.unreadable.items()}
        return None
    bad |= dict(batch.bad)
    return batch


def _look(fabric: Fabric, cfg: RunConfig, manifest: Manifest) -> LookedAt:
    """A sample of the data set, decoded by the first process for all."""
    return fabric.broadcast(look(cfg, manifest) if fabric.is_global_zero else None)


def _list_bad_files(run: Run, manifest: Manifest, unreadable: dict[str, str], leader: bool) -> None:
    """List the files that were skipped."""
    rows = _bad_rows(manifest, unreadable)
    listed = run.dir / BAD_FILES
    if leader and rows:
        write_table(listed, ["path", "reason"], list(rows.items()))
    elif leader:
        listed.unlink(missing_ok=True)  # from an earlier start, before the files were repaired


def _bad_rows(manifest: Manifest, unreadable: dict[str, str]) -> dict[str, str]:
    return {str(path): reason for path, reason in manifest.bad[["path", "reason"]].itertuples(index=False)} | unreadable


def _refuse_damaged(run: Run, cfg: RunConfig, manifest: Manifest, looked_at: LookedAt) -> None:
    """Refuse to start where too large a share of the data set cannot be used, by its headers and by the sample."""
    rows = _bad_rows(manifest, looked_at.bad)
    readable = manifest.table["path"].nunique()
    files = readable + len(manifest.bad)
    if looked_at.expected_bad(manifest) > cfg.data.max_bad_share * files:
        sampled = f" (of {looked_at.clips} that were decoded)" if looked_at.bad and looked_at.clips < readable else ""
        raise InputError(
            f"{len(rows)} of {files} files of {cfg.data.source} cannot be used{sampled}, more than data.max_bad_share "
            f"{cfg.data.max_bad_share}; they are listed in {run.dir / BAD_FILES}. The first: "
            + "; ".join(f"{path}: {reason}" for path, reason in list(rows.items())[:3])
        )
