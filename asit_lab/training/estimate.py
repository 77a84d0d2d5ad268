"""Estimates hours, memory and disk of a run from a few measured steps. Nothing is written.

The steps are real ones: the run's own data, objective and optimiser, as in pretrain.py.
"""

import os
import resource
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from lightning.fabric import Fabric

from ..arithmetic import bf16_notes
from ..config import RunConfig, load_config, resolve
from ..data import Manifest, load_manifest, make_loader
from ..data.crops import WHOLE_SECONDS, crop_notes
from ..data.sources import synth
from ..data.statistics import with_measured_features
from ..errors import InputError
from ..objectives import Objective, build_objective
from ..runs.directory import Run, open_run
from ..runs.snapshot import disk_needed, read_state
from ..storage.lock import is_held
from ..storage.words import duration, size_in_words
from .extend import check_source, origin_note
from .look import LookedAt, look
from .start_weights import init_student
from .step import Stepper, launch

WARM_UP = 2  # steps before those that count: memory is allocated, threads and kernels are set up
PATIENCE_SECONDS = 120  # whole steps are measured where they take no longer than this in all
TRIAL_CLIPS = (2, 4)  # clips of the small batches that time and memory of a whole one are estimated from


@dataclass(frozen=True)
class Plan:
    """What a run would take. `facts` and `table` are for reading; bytes and seconds are as measured."""

    preset: str
    data: str
    training_clips: int
    steps: int
    epochs: float
    batch_size: int
    parameters: int
    """of the whole student"""
    backbone_parameters: int
    device: str
    load: float
    """processes that wanted a core of this machine, for each core, in the minute before anything was measured"""
    seconds_per_step: float
    measured_steps: int
    """steps whose median that is; those to warm up are not among them"""
    measured_clips: int
    """clips in each measured step: batch_size, or fewer where whole steps were too much to try"""
    hours: float
    """of the whole run: its steps alone, without snapshots, saved states and pictures"""
    memory_bytes: int
    """peak of the process (CUDA: of the GPU's memory); estimated where measured_clips is not batch_size"""
    audio_cache_bytes: int
    """what decoded clips come to take in memory in the run's first epoch, over all loader processes"""
    disk_bytes: int
    """snapshots and the state to resume from"""
    disk_free_bytes: int
    start: int
    """step the run in the directory, or the one to continue from, was left at; 0 for a new run"""
    hours_left: float
    """of the steps from `start` on"""
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str]:
        """The plan in words, one fact an entry."""
        tried = "" if self.measured_clips == self.batch_size else f", estimated from {self.measured_clips} clips"
        facts = {
            "preset": self.preset,
            "data": f"{self.data}, {self.training_clips} training clips",
            "length": f"{self.steps} steps, {self.epochs:.4g} epochs",
            "batch": f"{self.batch_size} clips",
            "parameters": f"{self.parameters / 1e6:.3g} M, {self.backbone_parameters / 1e6:.3g} M of them the backbone",
            "device": self.device,
            "step": f"{self.seconds_per_step:.3g} s, median of {self.measured_steps} measured{tried}",
            "hours": f"{self.hours:.3g} ({duration(3600 * self.hours)}), without snapshots, saved states and pictures",
            "memory": f"{size_in_words(self.memory_bytes)} at its peak{tried}; "
            f"audio kept in memory comes to {size_in_words(self.audio_cache_bytes)}",
            "disk": f"{size_in_words(self.disk_bytes)}, {size_in_words(self.disk_free_bytes)} free",
        }
        if self.load > 1:
            facts["machine"] = f"busy, {self.load:.1f} processes for each core; by itself a run is quicker"
        if self.start:
            facts["resumes"] = f"at step {self.start} of {self.steps}, {duration(3600 * self.hours_left)} left"
        return facts

    @property
    def table(self) -> pd.DataFrame:
        """`facts` as a table, to show in a notebook."""
        return pd.DataFrame({"plan": self.facts})

    def to_dict(self) -> dict:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True)
class _Measured:
    seconds: float
    """of a whole step"""
    steps: int
    clips: int
    memory: int


def plan(
    cfg: RunConfig | str | Path,
    out: str | Path | None = None,
    resume: str = "auto",
    steps: int = 8,
    resume_from: str | Path | None = None,
) -> Plan:
    """What `pretrain(cfg, out, resume, resume_from=resume_from)` would take. Nothing is created or changed.

    steps: how many are measured, fewer where they are slow. Where even a few whole steps would take minutes or more
    memory than there is, time and memory are estimated from small batches and a note says so.
    Raises what the run itself would at its start: InputError for bad input and for a run directory with another
    configuration, FloatingPointError when a loss is not finite.
    """
    if steps < 1:
        raise InputError(f"steps: {steps} is not a number of steps to measure")
    cfg = cfg if isinstance(cfg, RunConfig) else load_config(cfg)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    fabric = launch()
    cfg = with_measured_features(cfg, None if out is None else resolve(out))
    run = _run_there(out, cfg, resume) if out is not None else None
    begun = run is not None and run.state.is_file()
    source = None if resume_from is None or begun else check_source(resume_from, cfg)
    manifest = load_manifest(cfg.data.source, segment_seconds=cfg.data.segment_seconds)
    looked_at = look(cfg, manifest, keep=False)
    _check_bad_files(cfg, manifest, looked_at)
    train, _ = manifest.holdout(cfg.data.holdout)
    estimated = _extrapolate(fabric, cfg, train) if _can_try(fabric, cfg) else None
    objective = build_objective(cfg, len(train))
    notes = [*manifest.notes, *looked_at.notes, *crop_notes(cfg, train, objective.views)]
    notes += bf16_notes(cfg.train.precision, fabric.device.type)
    total = cfg.total_steps(len(train))
    start = _start(source or run, fabric.device, total, longer=source is not None)
    if source:
        notes.append(origin_note(source.dir, start, cfg, len(train), total))
    if cfg.train.init_from and not start:
        notes += init_student(objective.student, cfg.train.init_from, cfg)
        objective.reset_teacher()
    limit = memory_limit(fabric.device)
    if estimated and limit and estimated.memory > limit:
        notes.append(_too_large(estimated.memory, limit))
        measured = estimated
    elif estimated and estimated.seconds * (WARM_UP + 1) > PATIENCE_SECONDS:
        notes.append(f"a whole step takes some {duration(estimated.seconds)}, so none was tried")
        measured = estimated
    else:
        affordable = int(PATIENCE_SECONDS / estimated.seconds) - WARM_UP if estimated else steps
        measured = _measure(fabric, cfg, objective, train, start, min(steps, affordable))

    if run and is_held(run.dir):
        notes.append(f"a process is writing to {run.dir} now")
    hours = measured.seconds / 3600
    disk, free = disk_needed(cfg, objective, total), _free_disk(out)
    if disk > free + _disk_taken(run):
        notes.append(
            f"the run needs {size_in_words(disk)} of disk and {size_in_words(free)} are free; it would not be started"
        )
    return Plan(
        preset=cfg.name,
        data=cfg.data.source,
        training_clips=len(train),
        steps=total,
        epochs=total / cfg.steps_per_epoch(len(train)),
        batch_size=cfg.train.batch_size,
        parameters=sum(p.numel() for p in objective.student.parameters()),
        backbone_parameters=sum(p.numel() for p in objective.student.backbone.parameters()),
        device=_device(fabric),
        load=load,
        seconds_per_step=measured.seconds,
        measured_steps=measured.steps,
        measured_clips=measured.clips,
        hours=total * hours,
        memory_bytes=measured.memory,
        audio_cache_bytes=_audio_cache(cfg, train),
        disk_bytes=disk,
        disk_free_bytes=free,
        start=start,
        hours_left=(total - start) * hours,
        notes=tuple(notes),
    )


# --- The run directory ----------------------------------------------------------------------------------------------


def _run_there(out: str | Path, cfg: RunConfig, resume: str) -> Run | None:
    """The run that `out` holds already, if any; refused as at a real start, and nothing is made."""
    folder = resolve(out)
    existing = _nearest(folder)
    if (folder / "config.yaml").is_file() or folder == existing and not folder.is_dir() or resume == "must":
        return open_run(folder, cfg, resume)  # makes a directory only where there is no run, nor need be one
    if not existing.is_dir():
        raise InputError(f"{folder}: the run directory cannot be made: {existing} is a file")
    return None


def _start(run: Run | None, device: torch.device, total: int, longer: bool) -> int:
    """The step that a run resumes at. longer: a new run continues from its end."""
    if run is None:
        return 0
    if run.status == "finished" and not longer:
        return total
    return read_state(run.state, device)["step"] if run.state.is_file() else 0


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _free_disk(out: str | Path | None) -> int:
    return shutil.disk_usage(_nearest(resolve("runs" if out is None else out))).free


def _disk_taken(run: Run | None) -> int:
    """Bytes of the run's own that it will write anew or has written already."""
    return sum(path.stat().st_size for path in [*run.snapshots, run.state] if path.is_file()) if run else 0


def _check_bad_files(cfg: RunConfig, manifest: Manifest, looked_at: LookedAt) -> None:
    files = manifest.table["path"].nunique() + len(manifest.bad)
    if looked_at.expected_bad(manifest) > cfg.data.max_bad_share * files:
        command = "check" if looked_at.bad else "info"
        raise InputError(
            f"{len(manifest.bad) + len(looked_at.bad)} of {files} files of {cfg.data.source} cannot be used, more than "
            f"data.max_bad_share {cfg.data.max_bad_share}; `asit-lab data {command} {cfg.data.source}` lists them"
        )


# --- Measuring ------------------------------------------------------------------------------------------------------


def _measure(
    fabric: Fabric,
    cfg: RunConfig,
    objective: Objective,
    train: Manifest,
    start: int,
    steps: int,
    warm: int = WARM_UP,
) -> _Measured:
    """Do `steps` steps after `warm` others, from `start` on; fewer, or earlier ones, where the run is shorter."""
    total = cfg.total_steps(len(train))
    count = min(warm + steps, total)
    warm = min(warm, count - 1)
    first = min(start, total - count)
    stepper = Stepper(fabric, cfg, objective, len(train))
    loader = make_loader(
        cfg, train, objective.views, first, stop=first + count, rank=fabric.global_rank, world=fabric.world_size
    )
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)
    seconds, began = [], time.perf_counter()
    try:
        for batch in loader:  # waiting for the loader is part of a step
            gradients = stepper.gradients(batch)
            if not gradients.finite:  # asking waits for the device too
                raise FloatingPointError(f"step {batch.step}: loss or gradient is not finite")
            stepper.apply(batch.step)
            now = time.perf_counter()
            seconds.append(now - began)
            began = now
    finally:
        loader.close()
    timed = seconds[warm:]
    return _Measured(statistics.median(timed), len(timed), cfg.train.batch_size, peak_memory(fabric.device))


def _can_try(fabric: Fabric, cfg: RunConfig) -> bool:
    """Whether batches of TRIAL_CLIPS are smaller than what the run holds in memory at once, on its one device."""
    return fabric.world_size == 1 and cfg.train.batch_size // cfg.train.accumulate > TRIAL_CLIPS[-1]


def _extrapolate(fabric: Fabric, cfg: RunConfig, train: Manifest) -> _Measured:
    """Time and memory of a whole step, from two small batches: both grow with the clips."""
    fewer, most = TRIAL_CLIPS
    trials = {}
    for clips in TRIAL_CLIPS:
        small = cfg.with_overrides([f"train.batch_size={clips}", "train.accumulate=1"])
        objective = build_objective(small, len(train))
        # Two steps: from the second on the optimiser's moments are there too.
        trials[clips] = _measure(fabric, small, objective, train, 0, steps=1, warm=1)
    per_clip = max(0, trials[most].memory - trials[fewer].memory) / (most - fewer)
    part = cfg.train.batch_size // cfg.train.accumulate
    return _Measured(
        seconds=trials[most].seconds / most * cfg.train.batch_size,
        steps=trials[most].steps,
        clips=most,
        memory=round(trials[most].memory + per_clip * (part - most)),
    )


def _too_large(memory: int, limit: int) -> str:
    return (
        f"a whole batch would need some {size_in_words(memory)} of memory and there are {size_in_words(limit)}, "
        "so none was tried; "
        "a higher train.accumulate cuts it into smaller parts"
    )


def _audio_cache(cfg: RunConfig, train: Manifest) -> int:
    """Bytes of decoded clips that the loader processes will keep (data/crops.py keeps those it decodes whole)."""
    seconds = train.table["seconds"][~train.table["path"].str.startswith(synth.PREFIX)]
    cached = seconds[seconds <= max(WHOLE_SECONDS, 2 * cfg.data.crop_seconds)].sum()
    decoded = cached * cfg.features.sample_rate * 4  # float32
    return round(max(1, cfg.data.workers) * min(decoded, cfg.data.cache_mb * 1e6))


# --- Words ----------------------------------------------------------------------------------------------------------


def _device(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
    else:
        threads = torch.get_num_threads()
        name = f"{fabric.device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return name if fabric.world_size == 1 else f"{fabric.world_size} x {name}"


# --- Memory of this process, or of its GPU ---------------------------------------------------------------------------


def peak_memory(device: torch.device) -> int:
    """Bytes this process has held at most so far: of the GPU on CUDA, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # getrusage's number on Linux is no smaller than that of the process that started this one, a notebook's say
        return 1024 * _kilobytes(Path("/proc/self/status"), "VmHWM")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, others kilobytes


def memory_limit(device: torch.device) -> int | None:
    """Bytes this process can come to hold: what it has, what is free, and no more than its control group allows.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable") + _kilobytes(Path("/proc/self/status"), "VmRSS")
    except OSError:
        return None
    return min([1024 * free, *_group_limits()])


def _kilobytes(path: Path, name: str) -> int:
    """The number in a line such as "VmRSS:    1234 kB"."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))


def _group_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Limits in bytes of the control group (version 2) this process is in and of those above it: containers, Slurm."""
    if not own.is_file():
        return []
    inside = own.read_text().partition("0::/")[2].splitlines()
    group = root / (inside[0] if inside else "")
    files = [folder / "memory.max" for folder in (group, *group.parents) if folder.is_relative_to(root)]
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdecimal()]  # "max": none
