"""What all tests share: few threads, no display, and one small finished run."""

import functools
import importlib
import os
import sys

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nbformat's jsonschema imports it where it is installed. It builds its grammars in seconds, for a check of URLs.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import pytest  # noqa: E402

import asit_lab  # noqa: E402  (before torch, which reads how OpenMP waits when it loads)


@pytest.fixture(scope="session", autouse=True)
def _economy():
    """Not at import: the process that hands tests out to pytest-xdist's workers needs no torch."""
    import torch

    from asit_lab.data.sources import synth

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # Drawing takes longer than training here: reconstructions of one clip are enough for a hundred runs of `smoke`.
    importlib.import_module("asit_lab.training.pretrain").PICTURED = 1
    # The same few clips are synthesised by most tests; a fifth of a GB of them at most.
    synthesise = functools.lru_cache(maxsize=300)(synth.synthesise)
    synth.synthesise = lambda *clip: synthesise(*clip).copy()


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """A finished run of the `smoke` preset (asit_lab.Run). Shared: read it, do not write into its directory."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    return asit_lab.pretrain(asit_lab.load_config("smoke"), out=out, resume="never")
