"""What a result depends on besides the configuration: versions, device, threads, arithmetic."""

import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from .._version import __version__
from ..arithmetic import has_bf16


def environment(device: torch.device, world: int) -> dict:
    """What a result depends on besides the configuration."""
    import numpy
    import soundfile
    import soxr
    import torchaudio

    arithmetic = torch.backends
    return {
        "asit_lab": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain text: it goes into the state too
        "torchaudio": torchaudio.__version__,
        "lightning": version("lightning"),
        "numpy": numpy.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "device_type": device.type,
        "processes": world,
        "threads": torch.get_num_threads(),
        "cpu_instructions": arithmetic.cpu.get_cpu_capability(),
        "bf16_units": has_bf16(device.type),  # what precision auto goes by
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": arithmetic.cudnn.version() if device.type == "cuda" else None,
        # "tf32" where float32 may be rounded on the way, "none" and "ieee" where not
        "matmul_precision": arithmetic.cuda.matmul.fp32_precision,
        "convolution_precision": arithmetic.cudnn.conv.fp32_precision,
        "cpu_matmul_precision": arithmetic.mkldnn.matmul.fp32_precision,
        "cudnn_benchmark": arithmetic.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "system": platform.platform(),
        "command": Path(sys.argv[0]).name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _cpu() -> str:
    """The CPU's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "cpu"


def environment_changes(before: dict, now: dict) -> list[str]:
    """A note for each thing that results depend on to the bit and that differs between two `environment`s."""
    ignored = ("system", "command", "started")
    return [
        f"{name} is {now[name]}, it was {before[name]}: from here on the run is the same as one that was not "
        "interrupted to a tolerance only, not to the bit"
        for name in now
        if name in before and name not in ignored and before[name] != now[name]
    ]
