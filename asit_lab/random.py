"""Counted randomness: numbers that depend on (seed, step, sample, purpose) and on nothing else.

There is no generator state, so nothing has to be saved for a resume, and the result does not depend on the number
of loader workers or processes. A *key* is an int64 tensor; `key` makes it, `fold` derives new ones, `uniform`,
`normal` and `integers` read numbers from it. Everything is integer arithmetic in tensor ops (the SplitMix64 mixing
function, Steele et al., OOPSLA 2014), so the same bits come out on every device.
"""

import hashlib
import math

import torch
from torch import Tensor

from .checks import integer

_MASK64 = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as the unsigned `value`."""
    value &= _MASK64
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MUL1 = _signed(0xBF58476D1CE4E5B9)
_MUL2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's >> on int64 copies the sign bit."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MUL1
    z = (z ^ _shift(z, 27)) * _MUL2
    return z ^ _shift(z, 31)


def _number(part: int | str | Tensor, device: torch.device | None) -> Tensor:
    if isinstance(part, Tensor):
        return part.to(torch.int64)
    if isinstance(part, str):
        part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
    part = part if type(part) is int else integer("seed", part)
    return torch.tensor(_signed(part), dtype=torch.int64, device=device)


def fold(key: Tensor, *parts: int | str | Tensor) -> Tensor:
    """Derive a key from `key` and each of `parts` in turn; integer tensors broadcast against it."""
    for part in parts:
        key = _mix(_mix(key + _GAMMA) ^ (_number(part, key.device) * _GAMMA + _MUL1))
    return key


def key(seed: int, *parts: int | str | Tensor, device: torch.device | str | None = None) -> Tensor:
    """Key of (seed, parts...): usually `key(seed, step, sample, "purpose")`, with `sample` an int64 tensor [batch]."""
    return fold(_number(seed, torch.device(device) if device is not None else None), *parts)


def bits(key: Tensor, n: int) -> Tensor:
    """`n` independent int64 words a key: [...] -> [..., n]."""
    counter = torch.arange(1, n + 1, dtype=torch.int64, device=key.device)
    return _mix(_mix(key.unsqueeze(-1) + counter * _GAMMA))


def uniform(key: Tensor, n: int) -> Tensor:
    """[...] -> [..., n] float32 in [0, 1), 24 bits each."""
    return _shift(bits(key, n), 40).to(torch.float32) * 2.0**-24


def normal(key: Tensor, n: int) -> Tensor:
    """[...] -> [..., n] float32 standard normal (Box-Muller)."""
    u = uniform(key, 2 * n)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[..., :n]))
    return radius * torch.cos(2.0 * math.pi * u[..., n:])


def integers(key: Tensor, n: int, high: int | Tensor) -> Tensor:
    """[...] -> [..., n] int64 in [0, high); `high` may be a tensor that broadcasts to the result, all of it >= 1.

    31 random bits are scaled, so the bias is below high / 2**31.
    """
    return (_shift(bits(key, n), 33) * high) >> 31


def permutation(key: Tensor, n: int) -> Tensor:
    """int64 [n], a permutation of range(n) for one key (a scalar)."""
    return torch.argsort(bits(key, n), stable=True)
