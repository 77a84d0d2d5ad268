"""Memory of this process, or of its GPU: the most it has held, and the most it could hold."""

import resource
import sys
from pathlib import Path

import torch


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
