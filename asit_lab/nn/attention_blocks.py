"""Attention over some queries at a time: what it holds grows with the tokens, not with their square.

As in FlashAttention (arXiv 2205.14135) the backward pass makes each map anew. Here a block is whole rows of the map, so
that softmax needs no running maximum, and the difference of two softmaxes is taken before the product with the values:
one product with them where a kernel for softmax, called twice, takes two.

Shapes: B clips, N tokens, H heads, d channels of a value, e of a query or key; of them at a time h heads, r queries and
K keys, which are N and some zeros.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes of a head's part of a block: with a fifth of it a pass takes some 10 % longer, with twice as much no less
# (ASDA, fp32, 2,049 tokens, one core).
BLOCK_BYTES = 2_200_000
# Keys come in multiples of so many: rows that begin at any address make the products 10 to 20 % slower (2,049 tokens).
LINE = 16


def in_blocks(packed: Sequence[Tensor], scale: float, lam: float | Tensor | None = None) -> Tensor:
    """Softmax attention or, with lam, first softmax less lam times the second, of the values -> [B, N, H, d].

    packed: what the projections give, each [B, N, parts, H, channels]; their parts in a row are the queries of each
    softmax, the keys of each, and the values. lam: a number or a tensor without dimensions.
    """
    return _Blocks.apply(None if lam is None else torch.as_tensor(lam), scale, *packed)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, lam: Tensor | None, scale: float, *packed: Tensor) -> Tensor:
        ctx.save_for_backward(lam, *packed)
        ctx.scale = scale
        queries, keys, values = _parts(packed)
        tokens = values.shape[1]
        with torch.autocast(values.device.type, enabled=False):
            q, k, v = _copies(queries, keys, values, scale)
            out = v.new_empty(len(v), tokens, v.shape[-1])
            room = _room(v, tokens, len(q))
            for group in _groups(v):
                for block in _blocks(tokens, v.dtype):
                    maps = _softmaxes([x[group, block] for x in q], [x[group] for x in k], tokens, room)
                    if lam is not None:
                        maps[0].sub_(maps[1], alpha=lam.item())
                    torch.bmm(maps[0], v[group], out=out[group, block])
        return out.unflatten(0, values.shape[::2]).transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        lam, *packed = ctx.saved_tensors
        queries, keys, values = _parts(packed)
        tokens = values.shape[1]
        factors = [1.0] if lam is None else [1.0, -lam.item()]
        d_lam = torch.zeros_like(lam) if ctx.needs_input_grad[0] else None
        with torch.autocast(values.device.type, enabled=False):
            q, k, v = _copies(queries, keys, values, ctx.scale)
            d_o = _heads_first(d_out, tokens)
            d_q, d_k, d_v = [torch.empty_like(x) for x in q], [_sums(x) for x in k], _sums(v)
            room = _room(v, tokens, len(q) + 1)
            for group in _groups(v):
                for block in _blocks(tokens, v.dtype):
                    maps = _softmaxes([x[group, block] for x in q], [x[group] for x in k], tokens, room)
                    d_map = _view(room[-1], maps[0].shape)  # until its own product: the difference of the softmaxes
                    mixed = maps[0] if lam is None else torch.sub(*maps, alpha=lam.item(), out=d_map)
                    _add_product(d_v[group], mixed.transpose(1, 2), d_o[group, block])
                    torch.bmm(d_o[group, block], v[group].transpose(1, 2), out=d_map)
                    if d_lam is not None:
                        d_lam -= (maps[1] * d_map).sum(dtype=d_lam.dtype)
                    for i in range(len(maps)):
                        # what autograd calls for softmax; in place
                        torch._softmax_backward_data(d_map, maps[i], -1, maps[i].dtype, grad_input=maps[i])
                        torch.bmm(maps[i], k[i][group], out=d_q[i][group, block])
                        _add_product(d_k[i][group], maps[i].transpose(1, 2), q[i][group, block])
            gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in packed]
            d_queries, d_keys, d_values = _parts(gradients)
            for i, factor in enumerate(factors):
                _write(d_queries[i], d_q[i].mul_(factor * ctx.scale))
                _write(d_keys[i], d_k[i].mul_(factor))  # the queries have the scale already
            _write(d_values, d_v)
        return d_lam, None, *gradients


# --- which part of what ---------------------------------------------------------------------------------------------


def _parts(packed: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Views of the queries and the keys of each softmax, [B, N, H, e], and of the values, [B, N, H, d]."""
    *parts, values = [part for projection in packed for part in projection.unbind(2)]
    return parts[: len(parts) // 2], parts[len(parts) // 2 :], values


def _copies(
    queries: list[Tensor], keys: list[Tensor], values: Tensor, scale: float
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Scaled queries of each softmax [B H, N, e]; keys [B H, K, e] and values [B H, K, d], zeros after the last."""
    tokens = values.shape[1]
    q = [_heads_first(x, tokens).mul_(scale) for x in queries]
    return q, [_heads_first(x, _keys(tokens)) for x in keys], _heads_first(values, _keys(tokens))


def _heads_first(x: Tensor, length: int) -> Tensor:
    """A copy, [B, N, H, e] -> [B H, length, e], with zeros for tokens that are none."""
    copy = x.new_empty(x.shape[0], x.shape[2], length, x.shape[3])
    copy[:, :, : x.shape[1]] = x.transpose(1, 2)
    copy[:, :, x.shape[1] :] = 0
    return copy.flatten(0, 1)


def _write(to: Tensor, heads_first: Tensor) -> None:
    """[B H, N or K, e] -> [B, N, H, e]"""
    clips, tokens, heads, _ = to.shape
    to.copy_(heads_first[:, :tokens].unflatten(0, (clips, heads)).transpose(1, 2))


def _groups(v: Tensor) -> list[slice]:
    """As many heads at a time as there are threads, so that each has a map in its own cache."""
    return [slice(first, first + _together(v)) for first in range(0, len(v), _together(v))]


def _together(v: Tensor) -> int:
    return math.ceil(len(v) / math.ceil(len(v) / torch.get_num_threads()))


def _blocks(tokens: int, dtype: torch.dtype) -> list[slice]:
    """Queries of each block, about as many in each."""
    rows = _rows(tokens, dtype)
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]


def _rows(tokens: int, dtype: torch.dtype) -> int:
    return math.ceil(tokens / math.ceil(tokens * _keys(tokens) * dtype.itemsize / BLOCK_BYTES))


def _keys(tokens: int) -> int:
    return LINE * math.ceil(tokens / LINE)


# --- blocks of maps -------------------------------------------------------------------------------------------------


def _room(v: Tensor, tokens: int, maps: int) -> Tensor:
    """Memory for so many blocks of maps, which all blocks use: fresh memory costs more than what is done with it."""
    return v.new_empty(maps, _together(v) * _rows(tokens, v.dtype) * _keys(tokens))


def _view(room: Tensor, shape: torch.Size) -> Tensor:
    return room[: shape.numel()].view(shape)


def _softmaxes(queries: list[Tensor], keys: list[Tensor], tokens: int, room: Tensor) -> list[Tensor]:
    """Scaled queries [h, r, e] and keys [h, K, e] of each softmax -> its map [h, r, K], in `room`."""
    maps = []
    for q, k, memory in zip(queries, keys, room, strict=False):  # the backward pass has room for one more
        logits = _view(memory, torch.Size((*q.shape[:2], k.shape[1])))
        torch.bmm(q, k.transpose(1, 2), out=logits)
        logits[..., tokens:] = -torch.inf
        maps.append(torch.softmax(logits, -1, out=logits))
    return maps


def _sums(x: Tensor) -> Tensor:
    """Zeros to add blocks' gradients to, in full precision."""
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


def _add_product(sums: Tensor, a: Tensor, b: Tensor) -> None:
    if sums.dtype == a.dtype:
        sums.baddbmm_(a, b)
    else:
        sums.add_(torch.bmm(a, b))
