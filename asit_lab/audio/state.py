"""Whether a file is still the one that was read before: its size and time of change."""

import os
from pathlib import Path

from .lengths import shard_member


def stat_of(path: str | Path) -> os.stat_result | None:
    """What the system says of a file, or of the shard that holds it; None where there is none, as for sounds that are
    synthesised (their path says everything)."""
    member = shard_member(path)
    try:
        return os.stat(member[0] if member else path)
    except OSError:
        return None


def file_state(path: str | Path) -> str:
    """Size and time of change of a file or of its shard, which tell whether it was replaced; empty for none."""
    stat = stat_of(path)
    return f"{stat.st_size} {stat.st_mtime_ns}" if stat else ""
