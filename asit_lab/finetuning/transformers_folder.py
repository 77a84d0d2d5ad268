"""Writes models as folders for transformers: `AutoModel.from_pretrained(folder, trust_remote_code=True)`.

Such a folder needs torch and transformers, not this package: it holds the code of `hub_code`. That code's network,
which needs torch alone, is checked here against the original.
"""

import shutil
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..encoder import Encoder
from ..errors import InputError
from ..nn import ViT
from ..storage.atomic import atomic_write, write_json, write_text
from .classifier import Classifier
from .hub_code.network_asit_lab import AsitLabNetwork

_CODE = ("configuration_asit_lab", "modeling_asit_lab", "network_asit_lab", "feature_extraction_asit_lab")
_KINDS = ("softmax", "asda", "learned")
MODEL_TYPE = "asit_lab"  # in config.json


def write_transformers_folder(model: Classifier | Encoder, folder: Path, pool: str, tolerance: float) -> float:
    """Write config.json, preprocessor_config.json, model.safetensors, code and a README into `folder`.

    Returns the largest difference from the original on random audio, relative to the largest output. Raises InputError
    for an attention of one's own, and where the difference is larger than `tolerance`.
    """
    config = _config(model, pool)
    network, tensors = AsitLabNetwork(SimpleNamespace(**config)).eval(), _tensors(model)
    network.load_state_dict(tensors)
    difference = max(_difference(model, network, pool, seconds) for seconds in (0.7, 2.5))
    if not difference <= tolerance:
        raise InputError(f"{folder}: not written: the exported model differs from the original by {difference:.2g}")
    folder.mkdir(parents=True, exist_ok=True)
    config["id2label"] = {str(i): name for i, name in config["id2label"].items()}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", _preprocessor(config["sampling_rate"]))
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file({f"network.{name}": tensor for name, tensor in tensors.items()}, temporary, {"format": "pt"})
    source = resources.files(__package__) / "hub_code"
    for name in _CODE:
        with resources.as_file(source / f"{name}.py") as file:
            shutil.copyfile(file, folder / f"{name}.py")
    write_text(folder / "README.md", _readme(model.name, isinstance(model, Classifier), config["sampling_rate"]))
    return difference


def _parts(model: Classifier | Encoder) -> tuple[ViT, Any]:
    """Backbone, and the network that has the head (None: an encoder)."""
    if isinstance(model, Encoder):
        return model.backbone, None
    return model.network.backbone, model.network


def _config(model: Classifier | Encoder, pool: str) -> dict[str, Any]:
    """What config.json holds."""
    settings, front_end, backbone = model.config.model, model.front_end, _parts(model)[0]
    if settings.attention not in _KINDS:
        raise InputError(
            f"to: transformers: attention {settings.attention!r} is your own; {', '.join(_KINDS)} can be exported"
        )
    classifier = isinstance(model, Classifier)
    kind = "AsitLabForAudioClassification" if classifier else "AsitLabModel"
    names = model.classes if isinstance(model, Classifier) else ["LABEL_0", "LABEL_1"]
    config: dict[str, Any] = {
        "model_type": MODEL_TYPE,
        "architectures": [kind],
        "auto_map": {
            "AutoConfig": "configuration_asit_lab.AsitLabConfig",
            "AutoModel": f"modeling_asit_lab.{kind}",
        },
        "sampling_rate": front_end.sample_rate,
        "frame": front_end.frame,
        "hop": front_end.hop,
        "mel_bins": front_end.mel_bins,
        "mean": float(front_end.mean),
        "std": float(front_end.std),
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": backbone.blocks[0].mlp.fc1.out_features,
        "patch": list(settings.patch),
        "grid": list(backbone.grid),
        "attention": settings.attention,
        "norm": settings.norm,
        "class_token_at": settings.class_token_at,
        "pool": pool,
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "head": _head(model) if isinstance(model, Classifier) else None,
    }
    if isinstance(model, Classifier):
        config["auto_map"]["AutoModelForAudioClassification"] = f"modeling_asit_lab.{kind}"
        config["problem_type"] = ("multi" if model.multi else "single") + "_label_classification"
    return config


def _head(model: Classifier) -> dict[str, Any]:
    if model.recipe is None:
        probe = model.about["probe"]
        size = int(model.network.head.weights.shape[0])
        head = {"kind": "probe", "layers": list(probe["layers"]), "pool": probe["pool"], "size": size}
    else:
        recipe = model.recipe
        head = {"kind": recipe.head, "projector": recipe.projector, "crop": recipe.crop}
    return head | {"temperature": float(model.temperature), "thresholds": model.thresholds}


def _tensors(model: Classifier | Encoder) -> dict[str, Tensor]:
    """Weights by the names of the exported network."""
    backbone, network = _parts(model)
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("backbone.mask_embed.")}
    tensors["backbone.pos_embed"] = backbone.pos_embed  # fixed positions are not in the state
    tensors |= {"front_end.window": model.front_end.window, "front_end.bank": model.front_end.bank}
    if network is not None:
        kept = ("head.", "layers", "projector.", "linear.", "norm.", "center", "deviation")
        tensors |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(kept)}
    return {name: tensor.detach().cpu().float().contiguous().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _difference(model: Classifier | Encoder, network: AsitLabNetwork, pool: str, share: float) -> float:
    """Largest difference on clips of `share` of the network's length, relative to the largest output."""
    rate, patch = model.front_end.sample_rate, model.config.model.patch[0]
    frames = max(patch, round(share * network.backbone.grid[0] * patch))
    samples = (frames - 1) * model.front_end.hop + model.front_end.frame + 7
    wave = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32))
    if isinstance(model, Classifier):
        expected, output = model.logits(wave, rate) / model.temperature, network.logits(wave)
    else:
        expected, output = model.embed(wave, rate, pool).cpu(), network.pooled(network.states(wave)[-1], pool)
    return float((output - expected).abs().max() / expected.abs().max())


def _preprocessor(sample_rate: int) -> dict[str, Any]:
    return {
        "feature_extractor_type": "AsitLabFeatureExtractor",
        "auto_map": {"AutoFeatureExtractor": "feature_extraction_asit_lab.AsitLabFeatureExtractor"},
        "feature_size": 1,
        "sampling_rate": sample_rate,
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


def _readme(name: str, classifier: bool, sample_rate: int) -> str:
    auto, output = ("AutoModelForAudioClassification", "logits") if classifier else ("AutoModel", "pooler_output")
    return f"""---
library_name: transformers
tags: [audio]
---

# {name}

Written by asit_lab. Waveforms in [-1, 1] at {sample_rate} Hz in; the log-mel is part of the model.

```python
from transformers import AutoFeatureExtractor, {auto}

extractor = AutoFeatureExtractor.from_pretrained(FOLDER, trust_remote_code=True)
model = {auto}.from_pretrained(FOLDER, trust_remote_code=True)
inputs = extractor([wave], sampling_rate={sample_rate}, return_tensors="pt")
model(**inputs).{output}
```
"""
