"""Parts of a batch and several processes train as one process on the whole batch: same losses, same weights."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import whole_batch_case as case

NAMES = list(case.configurations())
OFTEN = ("micro", "micro-asda, one loss off", "uncertainty")


@functools.cache
def whole(name: str) -> dict[str, torch.Tensor]:
    """By one process, batches in one part."""
    return case.train(case.configurations()[name], accumulate=1)


def compare(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(ours["losses"], theirs["losses"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours["weights"], theirs["weights"], rtol=0, atol=1e-5)


def test_the_batches_are_unequal():
    """What a mean of means would get wrong is there: padding, clips of one recording, masks of different sizes."""
    batch = case.batch_of(0, 2, 0, 1)
    assert batch.lengths.float().std() > 500 and len(batch.recording.unique()) < len(batch.recording)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in NAMES]
)
def test_two_parts_train_as_one(name):
    compare(case.train(case.configurations()[name], accumulate=2), whole(name))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_train_as_one(processes, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = Path(case.__file__)
    done = subprocess.run([*launch, script, tmp_path / "out.pt"], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    for parts in torch.load(tmp_path / "out.pt").values():
        for name in NAMES:
            compare(parts[name], whole(name))
