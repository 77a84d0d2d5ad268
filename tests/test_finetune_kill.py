"""Fine-tuning that is killed at any moment and started again ends as if nothing had happened: the same bytes."""

import os
import signal
import time
from pathlib import Path

import pytest
from children import CONTEXT, assert_same, start, wait_until

from asit_lab import Encoder, load_config
from asit_lab.finetuning import finetune, load_result, loop

pytestmark = pytest.mark.slow
CONTEXT.set_forkserver_preload(["pytest", "asit_lab.finetuning", "asit_lab.training.pretrain"])
FLAGS = ["epochs=3", "checkpoint_every=1"]


def tune(out: Path, workers: int = 0):
    encoder = Encoder.random(load_config("smoke"), seed=0)
    return finetune(encoder, "synth:20", "smoke", out, [*FLAGS, f"workers={workers}"])


def tune_until(out: Path, workers: int, where: str, number: int, mark: Path) -> None:
    """Fine-tune, and stand still the `number`-th time that something is done."""
    seen = []

    def counted(work):
        def counting(*arguments, **options):
            seen.append(1)
            if len(seen) == number:
                mark.touch()
                time.sleep(1000)
            return work(*arguments, **options)

        return counting

    owner = loop._Trainer if hasattr(loop._Trainer, where) else loop
    setattr(owner, where, counted(getattr(owner, where)))
    tune(out, workers)


def tune_slowly(out: Path) -> None:
    """Fine-tune, with steps that take a while."""
    step = loop._Trainer.step

    def slow(self, batch):
        time.sleep(0.5)
        return step(self, batch)

    loop._Trainer.step = slow
    tune(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tune(tmp_path_factory.mktemp("whole") / "ft")


@pytest.mark.parametrize("workers", [0, 1])
def test_kills_change_nothing(whole, tmp_path, workers):
    out, mark = tmp_path / "ft", tmp_path / "mark"
    # Six steps a split: in the first one, between two states, in a test, before the state, the weights and the result
    # are written, and in the second split.
    moments = [("step", 1), ("step", 4), ("test", 1), ("save_state", 2), ("save_file", 2), ("write_json", 2)]
    for where, number in [*moments, ("step", 5)]:
        mark.unlink(missing_ok=True)
        process = start(tune_until, out, workers, where, number, mark)
        wait_until(mark.exists, process)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert [path.parent.name for path in out.glob("seed-*/result.json")] == ["seed-0-fold-1"]
    result = tune(out, workers)
    assert result.scores == whole.scores
    for fold in ("seed-0-fold-1", "seed-0-fold-2"):
        assert_same(out / fold, whole.dir / fold)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_finish_the_step(whole, tmp_path, number):
    out = tmp_path / "ft"
    process = start(tune_slowly, out)
    wait_until((out / "seed-0-fold-1" / "state.pt").exists, process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == (143 if number == signal.SIGTERM else 0)
    assert load_result(out).status == ("terminated" if number == signal.SIGTERM else "interrupted")
    assert tune(out).scores == whole.scores
    for fold in ("seed-0-fold-1", "seed-0-fold-2"):
        assert_same(out / fold, whole.dir / fold)
