"""How OpenMP's threads wait: set before torch loads, unless the user has said how."""

import os
import subprocess
import sys

import pytest

import asit_lab


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, asit_lab._SPIN_ROUNDS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, None)],
)
def test_threads_wait_as_the_user_says_else_shortly(given, spins):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    code = "import asit_lab, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **given})
    assert done.stdout.split() == [str(spins), "False"]
