"""Loads start weights: another run, a snapshot, a saved encoder, or an ImageNet vision transformer (timm's layout)."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import RunConfig
from ..errors import InputError
from ..nn.vit import ViT, fit_positions
from ..runs.directory import load_run
from ..runs.encoder_folder import is_encoder_folder, path_of_weights, read_encoder_folder
from ..runs.snapshot import read_snapshot, read_state, section

COPYING = ("copies.weight", "copies.bias")  # of a decoder with heads.decoder_copies


_LOOK = ("sample_rate", "mel_bins", "frame_ms", "hop_ms", "low_hz", "top_hz")  # of the log-mel, beside its level


def init_student(student: nn.Module, source: str, cfg: RunConfig) -> list[str]:
    """Load start weights into a student's backbone, and into its decoder and heads where they fit.

    cfg: of the student. source: run directory, snapshot, folder of `Encoder.save_pretrained`, "shipped", or
    .safetensors in timm's layout. Only the state of a run directory has heads; they are loaded if it is of the same
    step as the last snapshot. Returns notes on what was loaded and adapted. Raises InputError naming the file and the
    tensors or settings that do not fit.
    """
    path, state = path_of_weights(source), None
    if not path.exists():
        raise InputError(f"train.init_from: {path} does not exist")
    if path.is_dir() and is_encoder_folder(path):
        return _load_saved(student, path, cfg)
    if path.is_dir():
        snapshots = load_run(path).snapshots
        if not snapshots:
            raise InputError(f"train.init_from: {path} holds no snapshot yet")
        path, state = snapshots[-1], load_run(path).state
    if is_timm(path):
        return load_timm(student.backbone, path)
    tensors, theirs, step = read_snapshot(path)
    weights = section(tensors, "teacher.backbone"), section(tensors, "student.decoder")
    notes = [f"start weights: step {step} of {path}", *_differences(theirs, cfg, path)]
    notes += _take_network(student, *weights, theirs, path)
    heads = getattr(student, "heads", None)
    if heads is not None and heads.state_dict():
        notes.append(_take_heads(heads, state, step))
    return notes


def _differences(theirs: RunConfig, ours: RunConfig, path: Path) -> list[str]:
    """Notes where the log-mel is another one. Raises InputError where weights of equal shapes mean something else."""
    for name in ("heads", "norm", "class_token_at"):
        there, here = getattr(theirs.model, name), getattr(ours.model, name)
        if there != here:
            raise InputError(
                f"train.init_from: {path} has model.{name} {there}, this run {here}; the weights fit only the same"
            )
    pairs = {name: (getattr(theirs.features, name), getattr(ours.features, name)) for name in _LOOK}
    differ = [
        f"features.{name.replace('top', 'high')} {there:g} there, {here:g} here"
        for name, (there, here) in pairs.items()
        if there != here
    ]
    return [f"the start weights were trained on another log-mel: {', '.join(differ)}"] if differ else []


def _load_saved(student: nn.Module, folder: Path, cfg: RunConfig) -> list[str]:
    """The backbone and the decoder of a saved encoder, which has no heads."""
    saved = read_encoder_folder(folder)
    tensors = {name: tensor.float() for name, tensor in saved.tensors.items()}  # the shipped one is in half precision
    weights = section(tensors, "backbone"), section(tensors, "decoder")
    notes = [f"start weights: {saved.name}", *_differences(saved.config, cfg, folder)]
    notes += _take_network(student, *weights, saved.config, folder)
    heads = getattr(student, "heads", None)
    if heads is not None and heads.state_dict():
        notes.append("heads start untrained: a saved encoder has none")
    return notes


def _take_network(student: nn.Module, backbone: dict, decoder: dict, cfg: RunConfig, path: Path) -> list[str]:
    """Load a backbone with its positions fitted, and a decoder if it fits; returns a note if it does not."""
    if "pos_embed" in backbone:  # fixed positions are not weights
        backbone["pos_embed"] = fit_positions(backbone["pos_embed"], cfg.grid, student.backbone.grid)
    _load(student.backbone, backbone, path)
    if student.decoder is None or not decoder:
        return []
    own, theirs = ({n: t.shape for n, t in weights.items()} for weights in (student.decoder.state_dict(), decoder))
    if {n: s for n, s in own.items() if n not in COPYING} != {n: s for n, s in theirs.items() if n not in COPYING}:
        return ["its decoder has another shape and was not taken"]
    if own == theirs:
        student.decoder.load_state_dict(decoder)
        return []
    student.decoder.load_state_dict({n: t for n, t in decoder.items() if n not in COPYING}, strict=False)
    return [
        "its decoder copies, which is left out" if COPYING[0] in theirs else "the decoder's copying starts untrained"
    ]


def _take_heads(heads: nn.Module, state: Path | None, step: int) -> str:
    """Load the heads that fit from a run's state; returns a note that names the others."""
    if state is None or not state.is_file():
        missing = "only a run directory has trained ones" if state is None else "the run has no state.pt"
        return f"heads start untrained: {missing}"
    saved = read_state(state, torch.device("cpu"))
    if saved["step"] != step:
        return f"heads start untrained: the state is of step {saved['step']}, the snapshot of step {step}"
    theirs = section(saved["objective"], "student.heads")
    own = heads.state_dict()
    parts = list(dict.fromkeys(name.split(".")[0] for name in own))
    shapes = [{n: t.shape for n, t in tensors.items()} for tensors in (own, theirs)]
    fitting = [part for part in parts if len({_of_part(shape, part) for shape in shapes}) == 1]
    heads.load_state_dict({n: t for n, t in theirs.items() if n.split(".")[0] in fitting}, strict=False)
    untrained = [part for part in parts if part not in fitting]
    note = f"heads taken over: {', '.join(fitting)}" if fitting else "no head fits"
    return note + (f"; untrained, being new or of another shape: {', '.join(untrained)}" if untrained else "")


def _of_part(shapes: dict[str, torch.Size], part: str) -> tuple:
    return tuple(sorted((name, tuple(shape)) for name, shape in shapes.items() if name.split(".")[0] == part))


def is_timm(path: Path) -> bool:
    """Whether a .safetensors file holds a vision transformer under timm's names."""
    try:
        with safe_open(path, framework="pt") as file:
            return "patch_embed.proj.weight" in set(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file: {error}") from None


def load_timm(backbone: ViT, path: Path) -> list[str]:
    """Load an ImageNet ViT: three input channels are summed to one, which is what three equal channels would give (as
    AST's released code does; arXiv 2104.01778); positions are resized; the classifier is left out."""
    tensors = load_file(path)
    weight = tensors["patch_embed.proj.weight"]  # [D, 3, p, q]
    if weight.ndim != 4:
        raise InputError(
            f"{path}: patch_embed.proj.weight {list(weight.shape)}: expected [width, channels, height, width]"
        )
    tensors["patch_embed.proj.weight"] = weight.sum(1, keepdim=True)
    if "pos_embed" not in tensors:
        raise InputError(f"{path}: weights of another architecture\n  pos_embed: missing")
    positions = tensors["pos_embed"]
    side = int((positions.shape[1] - 1) ** 0.5)
    if side * side != positions.shape[1] - 1:
        raise InputError(f"{path}: pos_embed has {positions.shape[1] - 1} places, which is not a square image")
    # An image's grid is (height, width); ours is (time, mel). Frequency takes the place of height, as in AST.
    turned = positions[:, 1:].view(1, side, side, -1).transpose(1, 2).reshape(1, side * side, -1)
    positions[:, 1:] = turned
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].transpose(2, 3).contiguous()
    tensors["pos_embed"] = _resize(positions, (side, side), backbone.grid)
    tensors = {name: t for name, t in tensors.items() if not name.startswith(("head.", "fc_norm.", "pre_logits."))}
    _load(backbone, tensors, path)
    return [
        f"start weights: {path}",
        f"3 input channels summed to 1, positions {side}x{side} resized to {backbone.grid}",
    ]


def _resize(positions: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Positions of a whole image stretched over a whole spectrogram (a shorter side too, unlike fit_positions)."""
    image = positions[:, 1:].view(1, *grid, -1).permute(0, 3, 1, 2)
    image = nn.functional.interpolate(image, size=target, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], image.flatten(2).transpose(1, 2)], dim=1)


def _load(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Strict load with one message that names every tensor that does not fit."""
    needed = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    loaded = {name: tuple(t.shape) for name, t in tensors.items()}
    problems = [f"{n}: missing" for n in needed.keys() - loaded.keys()]
    problems += [f"{n}: not part of this model" for n in loaded.keys() - needed.keys()]
    problems += [
        f"{n}: {loaded[n]} there, {needed[n]} here" for n in needed.keys() & loaded.keys() if needed[n] != loaded[n]
    ]
    if problems:
        first = sorted(problems)[:6]
        rest = f"\n  and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise InputError(f"{path}: weights of another architecture\n  " + "\n  ".join(first) + rest)
    module.load_state_dict(tensors)
