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
from torch.nn import functional as F

# Numbers in a head's part of a block: with 100,000 a pass takes some 10 % longer, with twice as many as here no less
# (ASDA, fp32, 2,049 tokens, one core).
BLOCK = 500_000
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
        out = torch.empty_like(values, memory_format=torch.contiguous_format)
        with torch.autocast(values.device.type, enabled=False):
            room = _room(values, len(queries))
            for at in _groups(values):
                q = [_heads_first(each, at) * scale for each in queries]
                k = [_padded(_heads_first(each, at)) for each in keys]
                v = _padded(_heads_first(values, at))
                for block in _blocks(values.shape[1]):
                    maps = _softmaxes([each[:, block] for each in q], k, values.shape[1], room)
                    if lam is not None:
                        maps[0].sub_(maps[1], alpha=lam.item())
                    _heads_of(out, at)[:, block] = torch.bmm(maps[0], v)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        lam, *packed = ctx.saved_tensors
        gradients = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in packed]
        queries, keys, values = _parts(packed)
        d_queries, d_keys, d_values = _parts(gradients)
        factors = [1.0] if lam is None else [1.0, -lam.item()]
        d_lam = torch.zeros_like(lam) if ctx.needs_input_grad[0] else None
        with torch.autocast(values.device.type, enabled=False):
            room = _room(values, len(queries) + 1)
            for at in _groups(values):
                q = [_heads_first(each, at) * ctx.scale for each in queries]
                k = [_padded(_heads_first(each, at)) for each in keys]
                v, d_o = _padded(_heads_first(values, at)), _heads_first(d_out, at)
                sum_k, sum_v = [_sums(each) for each in k], _sums(v)
                for block in _blocks(values.shape[1]):
                    maps = _softmaxes([each[:, block] for each in q], k, values.shape[1], room)
                    d_map = _view(room[-1], maps[0].shape)  # until its own product: the difference of the softmaxes
                    mixed = maps[0] if lam is None else torch.sub(*maps, alpha=lam.item(), out=d_map)
                    _add_product(sum_v, mixed.transpose(1, 2), d_o[:, block])
                    torch.bmm(d_o[:, block], v.transpose(1, 2), out=d_map)
                    if d_lam is not None:
                        d_lam -= (maps[1] * d_map).sum(dtype=d_lam.dtype)
                    for i, factor in enumerate(factors):
                        # what autograd calls for softmax; in place
                        torch._softmax_backward_data(d_map, maps[i], -1, maps[i].dtype, grad_input=maps[i])
                        _heads_of(d_queries[i], at)[:, block] = torch.bmm(maps[i], k[i]).mul_(factor * ctx.scale)
                        _add_product(sum_k[i], maps[i].transpose(1, 2), q[i][:, block])
                _heads_of(d_values, at).copy_(sum_v[:, : values.shape[1]])
                for d_key, sums, factor in zip(d_keys, sum_k, factors, strict=True):
                    _heads_of(d_key, at).copy_(sums[:, : values.shape[1]].mul_(factor))
        return d_lam, None, *gradients


# --- which part of what ---------------------------------------------------------------------------------------------


def _parts(packed: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Views of the queries and the keys of each softmax, [B, N, H, e], and of the values, [B, N, H, d]."""
    *parts, values = [part for each in packed for part in each.unbind(2)]
    return parts[: len(parts) // 2], parts[len(parts) // 2 :], values


def _groups(values: Tensor) -> list[tuple[int, slice]]:
    """Clip and heads; as many heads at a time as there are threads, so that each has a map in its own cache."""
    clips, _, heads = values.shape[:3]
    together = _together(heads)
    return [(clip, slice(first, first + together)) for clip in range(clips) for first in range(0, heads, together)]


def _together(heads: int) -> int:
    return math.ceil(heads / math.ceil(heads / torch.get_num_threads()))


def _blocks(tokens: int) -> list[slice]:
    """Queries of each block, about as many in each."""
    rows = _rows(tokens)
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]


def _rows(tokens: int) -> int:
    return math.ceil(tokens / math.ceil(tokens * _keys(tokens) / BLOCK))


def _keys(tokens: int) -> int:
    return LINE * math.ceil(tokens / LINE)


def _heads_of(x: Tensor, at: tuple[int, slice]) -> Tensor:
    """A view of some heads of a clip, [B, N, H, e] -> [h, N, e]."""
    clip, heads = at
    return x[clip, :, heads].transpose(0, 1)


def _heads_first(x: Tensor, at: tuple[int, slice]) -> Tensor:
    return _heads_of(x, at).contiguous()


def _padded(x: Tensor) -> Tensor:
    """Zeros for tokens that are none, [h, N, e] -> [h, K, e]."""
    return F.pad(x, (0, 0, 0, _keys(x.shape[1]) - x.shape[1]))


# --- blocks of maps -------------------------------------------------------------------------------------------------


def _room(values: Tensor, maps: int) -> Tensor:
    """Memory for so many blocks of maps, which all blocks use: fresh memory costs more than what is done with it."""
    tokens, heads = values.shape[1:3]
    return values.new_empty(maps, _together(heads) * _rows(tokens) * _keys(tokens))


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
