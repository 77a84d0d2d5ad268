"""Loads checkpoints of the released ASiT code (arXiv 2211.13189) into our modules.

Its files hold "student" and "teacher" state dicts with the parts backbone, head_cls (shared projection, cls_layer,
data_layer) and head_recons; distributed training prefixes the student's names with "module.". A bare backbone works
too. Sizes are read from the tensors; what they cannot tell is a keyword.
"""

from pathlib import Path

from torch import Tensor, nn

from ..config import RunConfig, load_config, resolve, validate
from ..encoder import Encoder
from ..errors import InputError
from ..nn import ReconstructionHead, ViT
from ..settings import Features
from .unpickle import read_checkpoint, tensors

_PARTS = {"head_cls.": "heads.", "head_recons.": "decoder."}
_ROLES = ("teacher", "student")
_PREFIXES = ("module.", "_orig_mod.")


def load_asit(
    source: str | Path | dict[str, Tensor],
    role: str = "teacher",
    heads: int | None = None,
    mel_bins: int = 128,
    frames: int | None = None,
) -> Encoder:
    """Encoder from a checkpoint of the released code.

    source: file (.pt, .pth, .safetensors) or state dict; with or without the roles "teacher" and "student".
    role: the weights to use where the file has both. heads: attention heads (default: 64 channels each, as released).
    mel_bins, frames: size of the log-mel the positions were made for (default: 128 bands, all remaining patches).
    The reconstruction head is taken from the student where there is one.
    Raises InputError naming what is missing or does not fit.
    """
    if role not in _ROLES:
        raise InputError(f"role: {role!r} is not one of {', '.join(_ROLES)}")
    name = "state dict" if isinstance(source, dict) else str(resolve(source))
    flat = tensors(source if isinstance(source, dict) else read_checkpoint(resolve(source)))
    roles = {r: _named(flat, f"{r}.") for r in _ROLES}
    if any(roles.values()) and not roles[role]:
        available = next(r for r in _ROLES if roles[r])
        raise InputError(f"{name}: has weights of the {available}, none of the {role}; use role={available!r}")
    chosen = roles[role] or _named(flat, "")
    if not any(key.startswith("backbone.") for key in chosen):
        raise InputError(f"{name}: no vision transformer of ASiT in it; first names: {', '.join(list(flat)[:4])}")
    student = roles["student"] or chosen
    backbone = _part(chosen, "backbone.")
    cfg = asit_config(backbone, _part(student, "decoder."), heads, mel_bins, frames, name)
    encoder = Encoder(cfg, build_asit_backbone(cfg, backbone, name), name=f"ASiT ({role}, {Path(name).name})")
    decoder = _part(student, "decoder.")
    if decoder:
        encoder.decoder = build_asit_decoder(cfg, decoder, name)
        student_backbone = _part(student, "backbone.")
        encoder.student = (
            build_asit_backbone(cfg, student_backbone, name) if student is not chosen else encoder.backbone
        )
    return encoder.requires_grad_(False)


def rename_asit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the released code -> names of objectives.asit_network.Network."""
    renamed = {}
    for key, value in state.items():
        while key.startswith(_PREFIXES):
            key = key.split(".", 1)[1]
        for theirs, ours in _PARTS.items():
            if key.startswith(theirs):
                key = ours + key[len(theirs) :]
        renamed[key] = value
    return renamed


def _named(flat: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors under a role, renamed; a bare backbone gets its prefix."""
    part = rename_asit({key[len(prefix) :]: t for key, t in flat.items() if key.startswith(prefix)})
    return {f"backbone.{key}": t for key, t in part.items()} if "cls_token" in part else part


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: t for key, t in state.items() if key.startswith(prefix)}


def asit_config(
    backbone: dict[str, Tensor],
    decoder: dict[str, Tensor],
    heads: int | None,
    mel_bins: int,
    frames: int | None,
    name: str,
) -> RunConfig:
    """The configuration that weights imply; front end and normalisation are the released code's."""
    needed = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"}
    _check_names(backbone, needed, f"{name}: the backbone")
    if decoder:
        _check_names(decoder, {"mlp.0.weight", "mlp.4.weight"}, f"{name}: the reconstruction head")
    if backbone["patch_embed.proj.weight"].ndim != 4:
        shape = list(backbone["patch_embed.proj.weight"].shape)
        raise InputError(f"{name}: patch_embed.proj.weight {shape}: expected [width, 1, frames, mels of a patch]")
    width, _, p, q = backbone["patch_embed.proj.weight"].shape
    depth = 1 + max(int(key.split(".")[1]) for key in backbone if key.startswith("blocks."))
    tokens = backbone["pos_embed"].shape[1] - 1
    per_time = mel_bins // q
    if mel_bins < q or mel_bins % q or tokens % per_time or (frames is not None and frames // p * per_time != tokens):
        raise InputError(
            f"{name}: {tokens} positions do not make a grid of {p} x {q} patches over {mel_bins} mel bands"
            + (f" and {frames} frames" if frames is not None else "")
            + "; give mel_bins= and frames="
        )
    official = load_config("asit-official-vit-s")
    features = Features(mel_bins=mel_bins)
    hop = features.hop_ms / 1000
    seconds = tokens // per_time * p * hop + (features.frame_ms / 1000 - hop)
    sizes = {
        "width": width,
        "depth": depth,
        "heads": heads or max(1, width // 64),
        "mlp_ratio": backbone["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "patch": (p, q),
        "drop_path": 0.0,
    }
    head_sizes = official.heads.model_dump()
    if decoder:
        head_sizes["decoder_hidden"] = decoder["mlp.0.weight"].shape[0]
        head_sizes["decoder_bottleneck"] = decoder["mlp.4.weight"].shape[0]
    return validate(
        {
            "name": "asit (published)",
            "features": features.model_dump(),
            "data": official.data.model_dump() | {"crop_seconds": round(seconds, 4)},
            "model": sizes,
            "heads": head_sizes,
            "mask": official.mask.model_dump(),
            "objective": official.objective.model_dump(),
        }
    )


def _check_names(state: dict[str, Tensor], needed: set[str], whose: str) -> None:
    missing = needed - state.keys()
    if missing:
        raise InputError(f"{whose} lacks {', '.join(sorted(missing))}")


def build_asit_backbone(cfg: RunConfig, state: dict[str, Tensor], name: str) -> ViT:
    """A ViT with the given weights."""
    return _load(ViT(cfg.model, cfg.grid), state, name)


def build_asit_decoder(cfg: RunConfig, state: dict[str, Tensor], name: str) -> ReconstructionHead:
    """The released reconstruction head, with its GELU after the bottleneck."""
    head = cfg.heads
    module = ReconstructionHead(
        cfg.model.width, head.decoder_hidden, head.decoder_bottleneck, cfg.model.patch, head.decoder_last_gelu
    )
    return _load(module, state, name)


def _load(module: nn.Module, state: dict[str, Tensor], name: str) -> nn.Module:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{name}: weights do not fit: {error}") from None
    return module.eval()
