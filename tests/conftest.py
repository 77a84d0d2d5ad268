"""What all tests share: few threads, no display, and one small finished run."""

import importlib
import os

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

import asit_lab  # noqa: E402, I001  (before torch, which reads how OpenMP waits when it loads)

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# Drawing takes longer than training here: reconstructions of one clip are enough for a hundred runs of `smoke`.
importlib.import_module("asit_lab.training.pretrain").PICTURED = 1


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished run of the `smoke` preset (asit_lab.Run). Shared: read it, do not write into its directory."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    return asit_lab.pretrain(asit_lab.load_config("smoke"), out=out, resume="never")
