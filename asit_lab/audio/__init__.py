"""Audio files: any format, rate and number of channels becomes mono float32 at one rate."""

from .containers import CONTAINER_SUFFIXES, HOW_TO_ADD
from .reading import INTEGERS, LOUDEST, RATES, SHORTEST, AudioInfo, blocks, check_samples, info, read

__all__ = [
    "CONTAINER_SUFFIXES",
    "HOW_TO_ADD",
    "INTEGERS",
    "LOUDEST",
    "RATES",
    "SHORTEST",
    "AudioInfo",
    "blocks",
    "check_samples",
    "info",
    "read",
]
