"""A run that is killed at any moment and started again ends as if nothing had happened: the same bytes."""

import io
import os
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from children import assert_same, last_step, start, wait_until

import asit_lab
from asit_lab import InputError, load_config, random
from asit_lab.config import RunConfig
from asit_lab.runs.directory import open_run
from asit_lab.runs.snapshot import read_state
from asit_lab.storage.atomic import clear_leftovers, read_json

pytestmark = pytest.mark.slow


# --- In the process that is killed ----------------------------------------------------------------------------------


def train(out: Path, cfg: RunConfig, last: int) -> None:
    """A run that stands still after step `last`, so that it cannot end before a killer who is kept waiting."""

    def on_log(run, row):
        if row["step"] >= last:
            time.sleep(1000)

    asit_lab.pretrain(cfg, out, on_log=on_log)


def train_half_way(out: Path, cfg: RunConfig, name: str, match: int, mark: Path) -> None:
    """A run that stands still when the file `name` is half written for the `match`-th time."""
    halve_writing(name, match, mark)
    asit_lab.pretrain(cfg, out)


def halve_writing(name: str, match: int, mark: Path) -> None:
    """Make every way in which a run's files are written stop in the middle."""
    from asit_lab.runs import snapshot

    seen = []

    def met(path) -> bool:
        """Whether `path` is the file, or its temporary one, for the match-th time."""
        mine = Path(path).name.strip(".").startswith(name)
        seen.extend([path] if mine else [])
        return mine and len(seen) == match

    def stand_still() -> None:
        mark.touch()
        time.sleep(1000)

    def half_of(data, write) -> None:
        write(data[: len(data) // 2])
        stand_still()

    torch_save, save_file, replace = torch.save, snapshot.save_file, os.replace
    write_text, open_path = Path.write_text, Path.open

    def half_state(content, file):
        if not met(file.name):
            return torch_save(content, file)
        whole = io.BytesIO()
        torch_save(content, whole)
        return half_of(whole.getvalue(), lambda data: (file.write(data), file.flush()))

    def half_snapshot(tensors, path, metadata):
        save_file(tensors, path, metadata)
        if met(path):
            half_of(path.read_bytes(), path.write_bytes)

    def half_text(path, text, **options):
        if not met(path):
            return write_text(path, text, **options)
        return half_of(text, lambda data: write_text(path, data, **options))

    def half_row(path, mode="r", *rest, **options):
        file = open_path(path, mode, *rest, **options)
        if mode == "a" and met(path):
            write = file.write
            file.write = lambda row: half_of(row, lambda data: (write(data), file.flush()))
        return file

    def before_replace(source, target):
        if name.endswith(".png") and met(target):
            stand_still()
        replace(source, target)

    torch.save, snapshot.save_file, os.replace = half_state, half_snapshot, before_replace
    Path.write_text, Path.open = half_text, half_row


# --- In the process that kills --------------------------------------------------------------------------------------


def kill(process, folder: Path, status: str = "running") -> None:
    """SIGKILL to a process that is alive and in the middle of its run."""
    assert process.is_alive()
    assert read_json(folder / "status.json").get("status", "new") == status
    assert not (folder / "result.json").exists() or status == "finished"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL  # it did not end by itself


def kill_half_way(out: Path, cfg: RunConfig, name: str, match: int = 1, status: str = "running") -> None:
    """Kill a run in the middle of writing a file."""
    mark = out.parent / "half"
    mark.unlink(missing_ok=True)
    process = start(train_half_way, out, cfg, name, match, mark)
    wait_until(mark.exists, process)
    kill(process, out, status)


def under_way(out: Path, name: str) -> list[Path]:
    """Temporary files with something in them."""
    return [path for path in out.rglob(f".{name}*") if path.suffix in (".tmp", ".part") and path.stat().st_size]


def draw(seed: int, purpose: str, count: int, below: int) -> list[int]:
    return random.integers(random.key(seed, purpose), count, below).tolist()


STEPS = 66
# Ten kills each: one in every six steps or so, and of these some inside checkpoint writing.
CHECKPOINTS = {0: {3: "state.pt", 6: "step-", 8: "state.pt"}, 2: {2: "step-", 7: "state.pt"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run."""
    cfg = load_config("smoke", [f"train.steps={STEPS}", "train.snapshots=11"])
    run = asit_lab.pretrain(cfg, tmp_path_factory.mktemp("whole") / "run")
    assert run.status == "finished" and len(run.snapshots) == len(run.samples) == 11
    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills_change_nothing(whole, tmp_path, workers):
    seed = 100 + workers
    out, cfg = tmp_path / "run", whole.config.with_overrides([f"data.workers={workers}"])
    open_run(out, whole.config)  # so that headers say the same of loaders, which change nothing
    steps = [6 * i + 1 + step for i, step in enumerate(draw(seed, "steps", 10, 4))]
    waits = draw(seed, "waits", 10, 40)
    print(f"seed {seed}: kills {waits} ms after steps {steps}, and while {CHECKPOINTS[workers]} is written")
    for i in range(10):
        if where := CHECKPOINTS[workers].get(i):
            kill_half_way(out, cfg, where)
            assert under_way(out, where), "the kill was meant to hit a file under way"
            assert read_state(out / "state.pt", torch.device("cpu"))["step"] % 3 == 0  # the one before is whole
            continue
        process = start(train, out, cfg, min(steps[i] + 8, STEPS - 2))
        wait_until(lambda: last_step(out) >= steps[i], process)  # noqa: B023
        if i == 0:
            with pytest.raises(InputError, match=f"run: process {process.pid} on .* is writing to this run directory"):
                asit_lab.pretrain(cfg, out)
        time.sleep(waits[i] / 1000)
        kill(process, out)
    run = asit_lab.pretrain(cfg, out, resume="must")
    assert run.status == "finished" and any(note.startswith("continued at step ") for note in run.progress["notes"])
    assert_same(out, whole.dir)


def test_a_kill_in_the_middle_of_any_file_changes_nothing(smoke_run, tmp_path):
    out, cfg, seen = tmp_path / "run", smoke_run.config, set()
    kill_half_way(out, cfg, "config.yaml", status="new")
    # Files in the order in which they are torn, each at the so many-th time it is written in that start.
    for name, match in {"environment.json": 1, "metrics.csv": 3, "timings.csv": 3, "step-3.png": 1}.items():
        kill_half_way(out, cfg, name, match, status="new" if not seen else "running")
        seen.add(name)
    kill_half_way(out, cfg, "status.json", 2)  # the first says that it runs, the second that step 3 is saved
    assert read_state(out / "state.pt", torch.device("cpu"))["step"] == 3
    kill_half_way(out, cfg, "metrics.csv", 3)  # the first two times it is cut
    assert not (out / "metrics.csv").read_text().endswith("\n")
    kill_half_way(out, cfg, "result.json")
    run = asit_lab.pretrain(cfg, out, resume="must")
    assert run.status == "finished"
    assert_same(out, smoke_run.dir)


def save_again_and_again(path):
    while True:
        safetensors.torch.save_file({"x": torch.zeros(10_000_000)}, path)


def test_leftovers_of_libraries_go_too(tmp_path):
    """A process that is killed leaves what safetensors itself had under way, under a name that it chose."""
    path = tmp_path / "step-6.safetensors"
    for _ in range(5):  # as one kill may come a moment late
        process = start(save_again_and_again, path)
        wait_until(lambda: any(file != path for file in tmp_path.iterdir()), process)
        process.kill()
        process.join()
    path.touch()
    assert len(list(tmp_path.iterdir())) > 1
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
