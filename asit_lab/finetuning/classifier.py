"""The network that is fine-tuned: a pretrained backbone with a head.

Shapes: B clips, T frames, M mel bands, N patches, D width, L layers, K classes.
"""

import torch
from torch import Tensor, nn

from ..encoder import Encoder
from ..encoder.folder import load_weights
from ..errors import InputError
from ..nn.vit import ViT, fit_positions
from ..objectives.base import seeded
from ..schedules import layer_scales
from .recipe import Recipe


class Classifier(nn.Module):
    """Normalised log-mel [B, T, M] -> logits [B, K].

    `backbone` begins as a copy of the encoder's; learned positions are fitted to the recipe's length.
    Raises InputError when the encoder lacks the weights that the recipe starts from, or they do not fit.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe, classes: int):
        super().__init__()
        cfg, start = encoder.config, encoder.student if recipe.backbone == "student" else encoder.backbone
        if start is None:
            raise InputError(f"{encoder.name}: has no student, which backbone=student asks for; try backbone=teacher")
        self.kind, self.frozen, self.depth = recipe.head, recipe.frozen, cfg.model.depth
        patch = cfg.model.patch[0]
        if recipe.frames < patch:
            raise InputError(f"frames: {recipe.frames} are fewer than one patch of {patch}")
        grid = (recipe.frames // patch, cfg.grid[1])
        self.backbone = ViT(cfg.model.model_copy(update={"drop_path": recipe.drop_path}), grid)
        weights = dict(start.state_dict())
        if "pos_embed" in weights:
            weights["pos_embed"] = fit_positions(weights["pos_embed"], start.grid, grid)
        load_weights(self.backbone, weights, encoder.name)
        self.backbone.requires_grad_(not recipe.frozen)
        width = cfg.model.width
        if self.kind == "layers":
            self.layers = nn.Parameter(torch.zeros(1 + self.depth))
            self.projector = nn.Linear(width, recipe.projector)
            width = recipe.projector
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
        if self.kind == "layers":
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                means = self._layer_means(x, keys)  # [L, B, D]
            weights = self.layers.softmax(0)[:, None, None]
            # SUPERB projects before it pools; both are linear, so the order does not matter and this one is quicker.
            return self.linear(self.projector((weights * means).sum(0)))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = self.backbone(x, keys)
        return self.linear(self.norm(tokens[:, 0] if self.kind == "class" else tokens[:, 1:].mean(1)))

    def _layer_means(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Means over patches of the embedding, of all blocks but the last, and of what comes out: [1 + depth, B, D]."""
        seen = self.backbone.inspect(x, keys, hidden=range(self.depth - 1))
        states = [self.backbone.embed(x), *seen.hidden.values(), seen.tokens]
        patches = seen.grid[0] * seen.grid[1]
        return torch.stack([state[:, -patches:].mean(1) for state in states])

    def param_groups(self, layer_decay: float) -> list[dict]:
        """{"params", "scale"}: what is trained, with factors of the rate that fall from block to block towards the
        input. As in ASDA's released code only blocks are scaled: embedding, norms and head learn at the full rate."""
        scales = layer_scales(layer_decay, self.depth)
        blocks = enumerate(self.backbone.blocks, start=1)
        groups = [{"params": list(block.parameters()), "scale": scales[i]} for i, block in blocks]
        inside = {id(p) for group in groups for p in group["params"]}
        groups.append({"params": [p for p in self.parameters() if id(p) not in inside], "scale": 1.0})
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return [group for group in groups if group["params"]]

    def trained(self) -> dict[str, Tensor]:
        """The weights that training changes, by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def take(self, weights: dict[str, Tensor]) -> None:
        """Take over what `trained` gave."""
        mine = self.trained()
        for name, tensor in weights.items():
            mine[name].copy_(tensor)


def build_classifier(encoder: Encoder, recipe: Recipe, classes: int, seed: int) -> Classifier:
    """A classifier whose head starts from `seed`."""
    return seeded(lambda: Classifier(encoder, recipe, classes), seed)
