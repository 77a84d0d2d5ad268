"""The network of fine-tuning: a pretrained backbone with a head.

Shapes: B clips, T frames, M mel bands, N patches, D width, L layers, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..encoder import Encoder
from ..errors import InputError
from ..features import LogMel
from ..nn.vit import ViT, fit_positions
from ..objectives.base import seeded
from ..runs.encoder_folder import load_weights
from ..schedules import layer_scales
from .recipe import Recipe


class ClassifierNetwork(nn.Module):
    """Normalised log-mel [B, T, M] -> logits [B, K].

    config: the encoder's; its learned positions are fitted to the recipe's length.
    Raises InputError where the recipe's length is less than a patch.
    """

    def __init__(self, config: RunConfig, recipe: Recipe, classes: int):
        super().__init__()
        self.kind, self.frozen, self.depth = recipe.head, recipe.frozen, config.model.depth
        patch = config.model.patch[0]
        frames = config.input_frames if recipe.frames == "auto" else recipe.frames
        if frames < patch:
            raise InputError(f"frames: {frames} are fewer than one patch of {patch}")
        grid = (frames // patch, config.grid[1])
        self.backbone = ViT(config.model.model_copy(update={"drop_path": recipe.drop_path}), grid)
        self.backbone.requires_grad_(not recipe.frozen)
        width = config.model.width
        if self.kind == "layers":
            self.layers = nn.Parameter(torch.zeros(1 + self.depth))
            self.projector = nn.Linear(width, recipe.projector)
            width = recipe.projector
        elif self.kind == "mean+std":
            width = 2 * width * (1 + self.depth)
            self.register_buffer("center", torch.zeros(width))
            self.register_buffer("deviation", torch.ones(width))
        else:
            self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    @property
    def frames(self) -> int:
        """Frames of the input, a whole number of patches."""
        return self.backbone.grid[0] * self.backbone.patch[0]

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """keys: int64 [B] of asit_lab.random for stochastic depth; None switches it off."""
        return self.linear(self.features(x, keys))

    def features(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Input of the last linear layer [B, D]."""
        if self.kind == "layers":
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                means = self._layer_means(x, keys)  # [L, B, D]
            weights = self.layers.softmax(0)[:, None, None]
            # SUPERB projects before it pools; both are linear, so the order does not matter and this one is quicker.
            return self.projector((weights * means).sum(0))
        if self.kind == "mean+std":
            # Divided by the root of their number, so that a step of Adam changes logits as little as with other heads.
            scaled = (self.statistics(x, keys) - self.center) / (self.deviation * self.center.numel() ** 0.5)
            return scaled.to(self.linear.weight.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = self.backbone(x, keys)
        return self.norm(tokens[:, 0] if self.kind == "class" else tokens[:, 1:].mean(1))

    def statistics(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Mean and standard deviation over patches of the output of every block and of the final output:
        float32 [B, 2 (1 + L) D]. What head=mean+std standardises."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            inspected = self.backbone.inspect(x, keys, hidden=range(self.depth))
        patches = inspected.grid[0] * inspected.grid[1]
        states = [state[:, -patches:].float() for state in (*inspected.hidden.values(), inspected.tokens)]
        # Without the small number the deviation of equal patches has no gradient.
        parts = [part for state in states for part in (state.mean(1), (state.var(1, correction=0) + 1e-8).sqrt())]
        return torch.cat(parts, dim=1)

    def _layer_means(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Means over patches of the embedding, all blocks but the last, and the final output: [1 + depth, B, D]."""
        inspected = self.backbone.inspect(x, keys, hidden=range(self.depth - 1))
        states = [self.backbone.embed(x), *inspected.hidden.values(), inspected.tokens]
        patches = inspected.grid[0] * inspected.grid[1]
        return torch.stack([state[:, -patches:].mean(1) for state in states])

    def param_groups(self, layer_decay: float) -> list[dict]:
        """{"params", "scale"}: trained parameters, with factors of the rate that fall from block to block towards the
        input. As in ASDA's released code only blocks are scaled: embedding, norms and head learn at the full rate."""
        scales = layer_scales(layer_decay, self.depth)
        blocks = enumerate(self.backbone.blocks, start=1)
        groups = [{"params": list(block.parameters()), "scale": scales[i]} for i, block in blocks]
        grouped = {id(p) for group in groups for p in group["params"]}
        groups.append({"params": [p for p in self.parameters() if id(p) not in grouped], "scale": 1.0})
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return [group for group in groups if group["params"]]

    def trained(self) -> dict[str, Tensor]:
        """The weights that training changes, by name, with what head=mean+std standardises by."""
        buffers = {"center": self.center, "deviation": self.deviation} if self.kind == "mean+std" else {}
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad} | buffers

    def take(self, weights: dict[str, Tensor]) -> None:
        """Load weights as `trained` returns them."""
        parameters = self.trained()
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


def build_classifier(encoder: Encoder, recipe: Recipe, classes: int, seed: int) -> ClassifierNetwork:
    """A network whose backbone begins as a copy of the encoder's, and whose head starts from `seed`.

    Raises InputError when the encoder lacks the weights that the recipe starts from, or they do not fit.
    """
    start = encoder.student if recipe.backbone == "student" else encoder.backbone
    if start is None:
        raise InputError(f"{encoder.name}: has no student, which backbone=student needs; try backbone=teacher")
    network = seeded(lambda: ClassifierNetwork(encoder.config, recipe, classes), seed)
    weights = dict(start.state_dict())
    if "pos_embed" in weights:
        weights["pos_embed"] = fit_positions(weights["pos_embed"], start.grid, network.backbone.grid)
    load_weights(network.backbone, weights, encoder.name)
    return network


def mean_over_windows(
    forward: Callable[[Tensor], Tensor], front_end: LogMel, windows: Tensor, length: int, frames: int, batch_size: int
) -> Tensor:
    """float32 [...]: mean of `forward`, called on normalised log-mels [B, T, M], over a clip's windows [n, samples],
    `length` samples of each being audio. frames: T, length of the network's input."""
    parts = [windows_forward(forward, front_end, part, length, frames) for part in windows.split(batch_size)]
    return torch.cat(parts).mean(0)


def windows_forward(
    forward: Callable[[Tensor], Tensor], front_end: LogMel, windows: Tensor, length: int, frames: int
) -> Tensor:
    """float32 [n, ...]: what `forward` makes of each window; arguments as in `mean_over_windows`."""
    device = front_end.window.device
    lengths = torch.full((len(windows),), length, device=device)
    raw = front_end.fit(front_end(windows.to(device), lengths), frames)
    return forward(front_end.normalise(raw)).float()
