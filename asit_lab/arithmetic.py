"""The arithmetic of a network: fp32, or bf16 where the device computes in it."""

from functools import cache

import torch


@cache
def has_bf16(device_type: str) -> bool:
    """Whether a device has units for bf16. A processor without them takes some fifty times as long for a product in
    bf16 as for the same in fp32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        found = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # the last: ARM
    return False


def arithmetic_of(precision: str, device_type: str) -> str:
    """What `precision` means on a device: auto is bf16 where there are units for it, else fp32."""
    if precision == "auto":
        return "bf16" if has_bf16(device_type) else "fp32"
    return precision


def bf16_notes(precision: str, device_type: str) -> list[str]:
    """A warning when a network is to compute in bf16 where no unit does."""
    if precision != "bf16" or has_bf16(device_type):
        return []
    return ["precision is bf16, for which this processor has no units: fp32 or auto may be fifty times as fast"]


def autocast(precision: str, device_type: str) -> torch.autocast:
    """A context in which a network computes so. Not Fabric's "bf16-mixed": that rounds the network's input, too."""
    return torch.autocast(device_type, torch.bfloat16, enabled=arithmetic_of(precision, device_type) == "bf16")
