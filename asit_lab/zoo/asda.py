"""Loads checkpoints of the released ASDA code (arXiv 2507.02666) into our modules.

Its files are fairseq's: "model" holds the student's state dict and in it, under "_ema", the teacher's; "cfg" (in older
files "args") the settings of the run. A fine-tuned file has one set of weights, a level deeper, without teacher and
decoder but with a classifier, which is left out. Weights are often float16 and become float32. Sizes are read from the
tensors, what they cannot tell from the settings in the file, or it is a keyword.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig, load_config, resolve, validate
from ..encoder import Encoder
from ..errors import InputError
from ..nn import ConvDecoder, ViT
from ..nn.vit import sincos_positions
from .asit import _load
from .unpickle import Placeholder, read_checkpoint, tensors

_ROLES = ("teacher", "student")
_ENCODER = "modality_encoders.IMAGE."
_NAMES = {
    f"{_ENCODER}extra_tokens": "cls_token",
    f"{_ENCODER}local_encoder.proj.": "patch_embed.proj.",
    f"{_ENCODER}context_encoder.norm.": "norm.",
    f"{_ENCODER}fixed_positional_encoder.positions": "positions",
    f"{_ENCODER}decoder.": "decoder.",
    "blocks.": "blocks.",
}
_NEEDED = (
    "cls_token",
    "patch_embed.proj.weight",
    "norm.weight",
    "blocks.0.attn.qk.weight",
    "blocks.0.attn.v.weight",
    "blocks.0.mlp.fc1.weight",
)
_FRAMES = 1024  # what the released pretraining pads and cuts to


def load_asda(
    source: str | Path | dict[str, Any],
    role: str | None = None,
    heads: int | None = None,
    mel_bins: int = 128,
    frames: int | None = None,
) -> Encoder:
    """Encoder from a checkpoint of the released code, pretrained or fine-tuned.

    source: file (.pt, .safetensors) or its contents; a bare state dict works too.
    role: "teacher" (EMA) or "student"; default: the teacher where the file has one. The encoder's name says which it
    is, or that the weights are fine-tuned.
    heads: attention heads (default: as the settings in the file say, else 64 channels each, as released).
    mel_bins, frames: size of the log-mels it was made for (default: 128 bands; the settings' length, else 1024 frames).
    `Encoder.prediction_error` works where the file has teacher and student both, and the encoder is the teacher.
    Raises InputError naming the tensors that are missing or do not fit, with their shapes.
    """
    if role not in (None, *_ROLES):
        raise InputError(f"role: {role!r} is not one of {', '.join(_ROLES)}")
    name = "state dict" if isinstance(source, dict) else str(resolve(source))
    content = source if isinstance(source, dict) else read_checkpoint(resolve(source))
    flat = tensors(content)
    roles = _roles(flat, name)
    chosen = role or ("teacher" if "teacher" in roles else "student")
    if chosen not in roles:
        raise InputError(f"{name}: has weights of the {next(iter(roles))}, none of the {chosen}")
    settings = content if isinstance(content, dict) else {}
    heads = heads or setting(settings, "num_heads")
    frames = frames or setting(settings, "target_length") or _FRAMES
    decoder = _part(roles.get("student", {}), "decoder.")
    cfg = asda_config(roles[chosen], decoder, heads, mel_bins, frames, name)
    tuned = any(key.endswith("head.weight") for key in flat)
    label = f"ASDA ({'fine-tuned' if tuned else chosen}, {Path(name).name})"
    encoder = Encoder(cfg, build_asda_backbone(cfg, roles[chosen], name), name=label)
    if decoder and chosen == "teacher":
        encoder.student = build_asda_backbone(cfg, roles["student"], name)
        encoder.decoder = build_asda_decoder(cfg, decoder, name)
    return encoder.eval().requires_grad_(False)


def rename_asda(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the released code -> names of nn.ViT, "decoder.*" and "positions", as float32; others are left out."""
    renamed = {}
    for key, value in state.items():
        for theirs, ours in _NAMES.items():
            if key.startswith(theirs):
                renamed[ours + key[len(theirs) :]] = value.float() if value.is_floating_point() else value
    return renamed


def _roles(flat: dict[str, Tensor], name: str) -> dict[str, dict[str, Tensor]]:
    """Renamed weights of each role in the file, located by the name of the class token."""
    roles = {}
    for key in flat:
        prefix = re.fullmatch(rf"(.*?){re.escape(_ENCODER)}extra_tokens", key)
        if prefix:
            start = prefix[1]
            role = "teacher" if start.endswith("_ema.") else "student"
            weights = {key[len(start) :]: t for key, t in flat.items() if key.startswith(start)}
            roles.setdefault(role, rename_asda(weights))
    if not roles:
        first = ", ".join(f"{key} {list(t.shape)}" for key, t in list(flat.items())[:4])
        raise InputError(f"{name}: no {_ENCODER}extra_tokens, so not ASDA's weights; its first: {first or 'none'}")
    return roles


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: t for key, t in state.items() if key.startswith(prefix)}


# --- Settings -------------------------------------------------------------------------------------------------------


def setting(content: dict, name: str) -> int | None:
    """The integer setting `name` of a file, the least nested one; None where there is none.

    Settings are plain dicts, or objects of argparse or omegaconf, which the unpickler reads as inert placeholders.
    """
    level = [content.get("cfg"), content.get("args")]
    visited: set[int] = set()
    while level:
        entries = [entry for node in level if id(node) not in visited for entry in _entries(node)]
        for key, value in entries:
            value = _unboxed(value)
            if key == name and isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        visited |= {id(node) for node in level}
        level = [value for _, value in entries]
    return None


def _entries(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Placeholder):
        node = node.state
    if isinstance(node, dict):
        yield from node.items()


def _unboxed(value: Any) -> Any:
    """The content of a value node of omegaconf; any other value as it is."""
    return dict(_entries(value)).get("_val") if isinstance(value, Placeholder) else value


# --- Modules --------------------------------------------------------------------------------------------------------


def asda_config(
    backbone: dict[str, Tensor],
    decoder: dict[str, Tensor],
    heads: int | None,
    mel_bins: int,
    frames: int,
    name: str,
) -> RunConfig:
    """The configuration that weights imply; front end, masks and losses are the released code's."""
    missing = [key for key in _NEEDED if key not in backbone]
    if missing:
        blocks = [f"{key} {list(t.shape)}" for key, t in backbone.items() if key.startswith("blocks.0.attn.")]
        raise InputError(
            f"{name}: not ASDA's architecture: lacks {', '.join(missing)}; attention of its first block: "
            f"{', '.join(blocks) or 'none'}"
        )
    shape = backbone["patch_embed.proj.weight"].shape
    if len(shape) != 4 or shape[1] != 1:
        raise InputError(f"{name}: patch_embed.proj.weight {list(shape)}: expected [width, 1, frames, mel bands]")
    width, _, p, q = shape
    if mel_bins % q or frames < p:
        raise InputError(f"{name}: patches of {p} x {q} do not fit {frames} frames x {mel_bins} mel bands")
    if heads is not None and width % heads:
        raise InputError(f"{name}: heads: {heads} does not divide the width {width}")
    official = load_config("asda-vit-b")
    front = official.features
    seconds = (frames // p * p - 1) * front.hop_ms / 1000 + front.frame_ms / 1000
    hidden = backbone["blocks.0.mlp.fc1.weight"].shape[0]
    sizes = {
        "width": width,
        "depth": 1 + max(int(key.split(".")[1]) for key in backbone if key.startswith("blocks.")),
        "heads": heads or max(1, width // 64),
        "mlp_ratio": hidden / width,
        "patch": (p, q),
        "drop_path": 0.0,
    }
    return validate(
        {
            "name": "asda (published)",
            "features": front.model_dump() | {"mel_bins": mel_bins},
            "data": official.data.model_dump() | {"crop_seconds": round(seconds, 4)},
            "model": official.model.model_dump() | sizes,
            "objective": official.objective.model_dump(),
            "asda": official.asda.model_dump() | _decoder_sizes(decoder, width, name),
        }
    )


def _decoder_sizes(decoder: dict[str, Tensor], width: int, name: str) -> dict[str, Any]:
    """Settings that the decoder's weights imply; without a decoder the frame loss is off."""
    if not decoder:
        return {"weights": {"utterance": 1.0}}
    convolutions = [t for key, t in decoder.items() if re.fullmatch(r"blocks\.\d+\.0\.weight", key)]
    first = next(iter(convolutions), None)
    if first is None or first.ndim != 4 or first.shape[1] == 0 or width % first.shape[1]:
        shapes = ", ".join(f"{key} {list(t.shape)}" for key, t in list(decoder.items())[:4])
        raise InputError(
            f"{name}: not ASDA's decoder (grouped 2-D convolutions blocks.<i>.0, proj); its first: {shapes}"
        )
    return {
        "decoder_width": first.shape[0],
        "decoder_layers": len(convolutions),
        "decoder_kernel": first.shape[-1],
        "decoder_groups": width // first.shape[1],
    }


def build_asda_backbone(cfg: RunConfig, state: dict[str, Tensor], name: str) -> ViT:
    """A ViT with the given weights. Its positions are computed; those in the file must match."""
    state = {key: t for key, t in state.items() if not key.startswith("decoder.")}
    positions = state.pop("positions", None)
    if positions is not None:
        columns = cfg.grid[1]
        rows = positions.reshape(-1, positions.shape[-1])  # for many more time rows than one clip has
        if rows.shape[1] != cfg.model.width or len(rows) % columns:
            raise InputError(
                f"{name}: positions {list(positions.shape)}: expected [1, a multiple of {columns}, {cfg.model.width}]"
            )
        ours = sincos_positions((len(rows) // columns, columns), cfg.model.width)
        if not torch.allclose(rows, ours, atol=2e-3):  # float16 keeps three digits
            raise InputError(f"{name}: positions are not the 2-D sines and cosines of {columns} patches along mel")
    return _load(ViT(cfg.model, cfg.grid), state, name)


def build_asda_decoder(cfg: RunConfig, state: dict[str, Tensor], name: str) -> ConvDecoder:
    """The released decoder with the given weights."""
    sizes = cfg.asda
    decoder = ConvDecoder(
        cfg.model.width, sizes.decoder_width, sizes.decoder_layers, sizes.decoder_kernel, sizes.decoder_groups
    )
    return _load(decoder, state, name)
