"""Audio transformers of asit_lab in plain torch: waveforms in; tokens, embeddings or logits out.

A model is computed as asit_lab computes it: Kaldi's log-mel, a vision transformer (softmax or differential attention),
and, for a classifier, its head. A clip that is longer than the crops of pretraining is covered by overlapping windows.

Shapes: B clips, S samples, T frames, M mel bands, N patches (time-major), D width, H heads, K classes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OVERLAP = 0.25  # least share of a window that the next one covers, too
_STATISTICS = {"class": (0,), "mean": (1,), "mean+std": (1, 2)}  # of class token, mean and deviation of the patches


class AsitLabLogMel(nn.Module):
    """Waveforms [B, S] -> log-mel [B, T, M], natural log of mel power, as Kaldi computes it."""

    def __init__(self, config: Any):
        super().__init__()
        self.frame, self.hop, self.fft_size = config.frame, config.hop, 1 << (config.frame - 1).bit_length()
        self.register_buffer("window", torch.zeros(self.frame))
        self.register_buffer("bank", torch.zeros(self.fft_size // 2 + 1, config.mel_bins))

    def forward(self, wave: Tensor) -> Tensor:
        if wave.shape[1] < self.frame:
            raise ValueError(f"{wave.shape[1]} samples are shorter than one frame of {self.frame}")
        wave = wave - wave.mean(1, keepdim=True)
        emphasised = torch.cat([wave[:, :1], wave[:, 1:] - 0.97 * wave[:, :-1]], dim=1)
        means = wave.unfold(1, self.frame, self.hop).mean(-1, keepdim=True)
        frames = (emphasised.unfold(1, self.frame, self.hop) - 0.03 * means) * self.window  # [B, T, frame]
        power = torch.view_as_real(torch.fft.rfft(frames, n=self.fft_size)).square().sum(-1)
        return (power @ self.bank).clamp(min=torch.finfo(torch.float32).eps).log()


class AsitLabAttention(nn.Module):
    """softmax; or differential, (softmax(q1 k1) - lam softmax(q2 k2)) v, with a fixed lam (asda) or a learned one."""

    def __init__(self, config: Any, layer: int):
        super().__init__()
        width, self.heads, self.kind = config.hidden_size, config.num_attention_heads, config.attention
        head = width // self.heads
        channels = (head + 1) // 2 if self.kind == "learned" else head
        self.scale = channels**-0.5
        self.proj = nn.Linear(width, width)
        if self.kind == "softmax":
            self.qkv = nn.Linear(width, 3 * width)
            return
        self.qk, self.v = nn.Linear(width, 4 * self.heads * channels), nn.Linear(width, width)
        if self.kind == "asda":
            self.norm: nn.Module = nn.LayerNorm(width, eps=1e-5)
        else:
            self.lam_start = 0.8 - 0.6 * math.exp(-0.3 * layer)
            for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                self.register_parameter(name, nn.Parameter(torch.zeros(channels)))
            self.norm = nn.RMSNorm(head, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]"""
        if self.kind == "softmax":
            mixed = self._mix(*self._heads(self.qkv(x), 3))
            return self.proj(mixed.transpose(1, 2).flatten(2))
        (q1, q2, k1, k2), (v,) = self._heads(self.qk(x), 4), self._heads(self.v(x), 1)
        first, second = self._mix(q1, k1, v), self._mix(q2, k2, v)  # each [B, H, N, d]
        if self.kind == "asda":
            return self.proj(0.95 * self.norm((first - 0.1 * second).transpose(1, 2).flatten(2)))
        lam = (self.lambda_q1 * self.lambda_k1).sum().exp() - (self.lambda_q2 * self.lambda_k2).sum().exp()
        mixed = self.norm((first - (lam + self.lam_start) * second).transpose(1, 2))
        return self.proj((1 - self.lam_start) * mixed.flatten(2))

    def _heads(self, packed: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, N, parts H e] -> parts of [B, H, N, e]"""
        return tuple(part.transpose(1, 2) for part in packed.unflatten(-1, (parts, self.heads, -1)).unbind(2))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)


class AsitLabBlock(nn.Module):
    """Attention, then an MLP, each added to its input; LayerNorm before each ("pre") or after it ("post")."""

    def __init__(self, config: Any, layer: int):
        super().__init__()
        width, self.post = config.hidden_size, config.norm == "post"
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = AsitLabAttention(config, layer)
        hidden = config.intermediate_size
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attn(x))
            return self.norm2(x + self._mlp(x))
        x = x + self.attn(self.norm1(x))
        return x + self._mlp(self.norm2(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp["fc2"](F.gelu(self.mlp["fc1"](x)))


class AsitLabBackbone(nn.Module):
    """Normalised log-mel [B, T, M], at most as long as the crops of pretraining -> hidden states."""

    def __init__(self, config: Any):
        super().__init__()
        width, self.patch, self.grid = config.hidden_size, tuple(config.patch), tuple(config.grid)
        self.class_token_at, self.post = config.class_token_at, config.norm == "post"
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, self.patch, self.patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        self.blocks = nn.ModuleList(AsitLabBlock(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> list[Tensor]:
        """What goes into the first block, what each block puts out, and the final output, each [B, 1+N, D], class token
        first; blocks that it has not joined yet give [B, N, D]."""
        patches = self.patch_embed["proj"](x[:, None].to(self.pos_embed.dtype)).flatten(2).transpose(1, 2)
        patches = patches + self.pos_embed[:, 1 : 1 + patches.shape[1]]  # a shorter clip has the first ones
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        if self.post:
            patches, class_token = self.norm(patches), self.norm(class_token)
        states, tokens = [torch.cat([class_token, patches], dim=1)], patches
        for i, block in enumerate(self.blocks):
            if i == self.class_token_at:
                tokens = torch.cat([class_token, tokens], dim=1)
            tokens = block(tokens)
            states.append(tokens)
        return [*states, tokens if self.post else self.norm(tokens)]


class AsitLabNetwork(nn.Module):
    """The model: front end, backbone and, for a classifier, the head."""

    def __init__(self, config: Any):
        super().__init__()
        self.config, self.head_kind = config, config.head["kind"] if config.head else ""
        self.front_end, self.backbone = AsitLabLogMel(config), AsitLabBackbone(config)
        width, classes = config.hidden_size, len(config.id2label)
        if self.head_kind == "probe":
            size, layers = config.head["size"], len(config.head["layers"])
            parts: dict[str, tuple[int, ...]] = {
                "mean": (layers, size),
                "deviation": (layers, size),
                "weights": (size, classes),
            }
            parts |= {"intercepts": (classes,), "layer_weights": (layers,)}
            self.head = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in parts.items()})
        elif self.head_kind == "layers":
            self.layers = nn.Parameter(torch.zeros(1 + config.num_hidden_layers))
            self.projector = nn.Linear(width, config.head["projector"])
            self.linear = nn.Linear(config.head["projector"], classes)
        elif self.head_kind == "mean+std":
            size = 2 * width * (1 + config.num_hidden_layers)
            self.center, self.deviation = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.ones(size))
            self.linear = nn.Linear(size, classes)
        elif self.head_kind:
            self.norm, self.linear = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def states(self, wave: Tensor) -> Tensor:
        """Waveforms [B, S] of any length -> all blocks' outputs and the final one, [layers, B, 1+N, D], class token
        first; NaN in blocks before it joins. Where windows overlap, patches are averaged, and the class token over all
        windows."""
        raw, (patch, _) = self.front_end(wave), self.backbone.patch
        time, width = max(1, raw.shape[1] // patch), self.backbone.grid[0]
        x = self._normalised(raw, time * patch)
        starts, length = _window_starts(time, width), min(time, width)
        times = torch.zeros(time, 1, 1, device=x.device)
        patches, class_token = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
        for start in starts:
            states = [
                F.pad(state, (0, 0, 1, 0), value=math.nan) if i < self.backbone.class_token_at else state
                for i, state in enumerate(self.backbone(x[:, start * patch : (start + length) * patch])[1:])
            ]
            window = torch.stack(states).float()  # [layers, B, 1+n, D]
            placed = window[:, :, 1:].unflatten(2, (length, -1))  # [layers, B, time, mel, D]
            patches = patches + F.pad(placed, (0, 0, 0, 0, start, time - start - length))
            times[start : start + length] += 1
            class_token = class_token + window[:, :, :1] / len(starts)
        return torch.cat([class_token, (patches / times).flatten(2, 3)], dim=2)

    def pooled(self, tokens: Tensor, way: str) -> Tensor:
        """Tokens [..., 1+N, D] -> [..., D], or [..., 2 D] for "mean+std"."""
        patches = tokens[..., 1:, :]
        statistics = (tokens[..., 0, :], patches.mean(-2), patches.std(-2, correction=0))
        return torch.cat([statistics[i] for i in _STATISTICS[way]], dim=-1)

    def logits(self, wave: Tensor) -> Tensor:
        """Waveforms [B, S] of any length -> logits [B, K], divided by the temperature of the calibration."""
        head = self.config.head
        if self.head_kind == "probe":
            pooled = self.pooled(self.states(wave)[head["layers"]], head["pool"]).transpose(0, 1)  # [B, layers, P]
            parts = {name: part.double() for name, part in self.head.items()}
            scaled = (pooled.double() - parts["mean"]) / parts["deviation"]
            features = torch.einsum("l,blp->bp", parts["layer_weights"], scaled)
            return ((features @ parts["weights"] + parts["intercepts"]) / head["temperature"]).float()
        frames = self.backbone.grid[0] * self.backbone.patch[0]
        samples = (frames - 1) * self.config.hop + self.config.frame
        wave = wave[:, :samples] if head["crop"] == "start" else wave
        starts = dict.fromkeys(
            max(0, min(start, wave.shape[1] - samples)) for start in range(0, wave.shape[1], samples)
        )
        pieces = [self.front_end(wave[:, start : start + samples]) for start in starts]
        outputs = [self.linear(self._features(self._normalised(piece, frames))).float() for piece in pieces]
        return torch.stack(outputs).mean(0) / head["temperature"]

    def _features(self, x: Tensor) -> Tensor:
        """Normalised log-mel [B, T, M] -> what the last linear layer of a fine-tuned network reads."""
        states = self.backbone(x)
        count = self.backbone.grid[0] * self.backbone.grid[1]
        if self.head_kind == "mean+std":
            patches = [state[:, -count:] for state in states[1:]]
            parts = [part for x in patches for part in (x.mean(1), (x.var(1, correction=0) + 1e-8).sqrt())]
            return (torch.cat(parts, dim=1) - self.center) / (self.deviation * len(self.center) ** 0.5)
        if self.head_kind == "layers":
            used = [*states[:-2], states[-1]]
            means = torch.stack([state[:, -count:].mean(1) for state in used])
            return self.projector((self.layers.softmax(0)[:, None, None] * means).sum(0))
        tokens = states[-1]
        return self.norm(tokens[:, 0] if self.head_kind == "class" else tokens[:, 1:].mean(1))

    def _normalised(self, raw: Tensor, frames: int) -> Tensor:
        """Cut or padded (by zeros, before normalising) to `frames`."""
        padded = F.pad(raw, (0, 0, 0, max(0, frames - raw.shape[1])))[:, :frames]
        return (padded - self.config.mean) / (2 * self.config.std)


def _window_starts(length: int, width: int) -> list[int]:
    """First patches of windows of `width` that cover `length` patches, evenly spread."""
    if length <= width:
        return [0]
    shared = min(width - 1, math.ceil(_OVERLAP * width - 1e-9))
    windows = math.ceil((length - shared) / (width - shared))
    return [round(i * (length - width) / (windows - 1)) for i in range(windows)]
