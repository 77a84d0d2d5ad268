"""Trained classifiers: from waveforms to classes, probabilities and embeddings.

A classifier is one file, model.safetensors, and needs nothing else: weights of the backbone and the head, and in its
header the classes, the front end with its mean and std, the recipe or the probe's layer and pooling, temperature and
thresholds. Fine-tuning saves one in the folder of each split, a probe on request. Temperature and thresholds come from
clips that the weights were not trained on (see evaluation/calibration.py).

Shapes: B clips, K classes, D features.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soxr
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .._version import __version__
from ..config import RunConfig, resolve, validate
from ..embedding.vectors import POOLED
from ..encoder import Encoder
from ..encoder.hub import fetch_file
from ..encoder.loading import HUB
from ..encoder.waveforms import as_waveforms, one_waveform
from ..errors import InputError
from ..features import LogMel
from ..nn import ViT
from ..runs.encoder_folder import load_weights
from ..storage.atomic import atomic_write, read_json
from .batches import windows
from .network import ClassifierNetwork, mean_over_windows, windows_forward
from .recipe import KEYS_WITHOUT_EFFECT, Recipe
from .timeline import Timeline, make_timeline, sliding

MODEL = "model.safetensors"
_FORMAT = 1
_CLIPS_AT_ONCE = 32


class ProbeHead(nn.Module):
    """Standardisation and a linear layer on pooled layers of a frozen encoder: [B, layers, P] -> logits [B, K]."""

    def __init__(self, mean: Tensor, deviation: Tensor, weights: Tensor, intercepts: Tensor, layer_weights: Tensor):
        super().__init__()
        for name, tensor in {"mean": mean, "deviation": deviation, "weights": weights}.items():
            self.register_buffer(name, tensor)
        self.register_buffer("intercepts", intercepts)
        self.register_buffer("layer_weights", layer_weights)

    def features(self, pooled: Tensor) -> Tensor:
        """float64 [B, P], weighted over layers."""
        scaled = (pooled.double() - self.mean) / self.deviation
        return torch.einsum("l,blp->bp", self.layer_weights, scaled)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.features(pooled) @ self.weights + self.intercepts


class Classifier:
    """A classifier of audio: a fine-tuned network, or a linear head on a frozen encoder.

    classes: their names, in the order of `scores`. multi: clips may have several classes.
    sample_rate: Hz of its front end; audio of other rates is resampled. temperature: logits are divided by it.
    thresholds: of several classes, the probability from which each is predicted; None: the likeliest is.
    """

    def __init__(self, network: nn.Module, config: RunConfig, about: dict[str, Any]):
        """network: a ClassifierNetwork, or an Encoder with its ProbeHead as `.head`. about: the file's header."""
        self.network, self.config, self.about = network.eval().requires_grad_(False), config, about
        self.name, self.classes, self.multi = about["name"], list(about["classes"]), bool(about["multi"])
        self.temperature, self.thresholds = about["temperature"], about["thresholds"]
        self.sample_rate = config.features.sample_rate
        self.front_end = LogMel.from_config(config.features)
        self.recipe = Recipe.model_validate(about["recipe"]) if about["recipe"] else None

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, {len(self.classes)} classes, {self.sample_rate} Hz)"

    def to(self, device: str | torch.device) -> "Classifier":
        """Move it to a device such as "cuda"; returns itself."""
        self.network.to(device)
        self.front_end.to(device)
        return self

    def predict(self, waves: Any, sample_rate: int, top: int | None = None) -> pd.DataFrame:
        """Classes of clips, the likeliest first: rows with class, probability and predicted (whether it is the answer).

        waves: float [S], [B, S] or a list of [S] at `sample_rate` Hz; of several clips the first column, clip, is their
        number. top: how many classes of each clip (None: all). Raises InputError for audio that cannot be used.
        """
        scores = self.scores(waves, sample_rate)
        tables = [self.table(row, top) for row in scores]
        batched = isinstance(waves, list | tuple) or getattr(waves, "ndim", 1) > 1
        if not batched:
            return tables[0]
        parts = [table.assign(clip=number)[["clip", *table]] for number, table in enumerate(tables)]
        return pd.concat(parts, ignore_index=True)

    def table(self, scores: np.ndarray, top: int | None = None) -> pd.DataFrame:
        """Probabilities [K] of one clip as rows: class, probability, predicted; the likeliest first."""
        if top is not None and top < 1:
            raise InputError(f"top: {top} is less than one class")
        order = np.argsort(-scores, kind="stable")[:top]
        limits = np.full(len(scores), scores.max()) if self.thresholds is None else np.asarray(self.thresholds)
        predicted = scores >= limits if self.multi else np.arange(len(scores)) == scores.argmax()
        columns = {"class": [self.classes[k] for k in order], "probability": scores[order]}
        return pd.DataFrame({**columns, "predicted": predicted[order]})

    @torch.no_grad()
    def scores(self, waves: Any, sample_rate: int) -> np.ndarray:
        """Probabilities float32 [B, K] of clips, waves as in `predict`; rows sum to 1 unless `multi`."""
        return self._probabilities(self.logits(waves, sample_rate))

    @torch.no_grad()
    def scores_of_blocks(self, blocks: Iterable[np.ndarray], samples: int) -> np.ndarray:
        """What `scores` gives of one recording, [K], in memory that does not grow with its length.

        blocks: its samples, float32 [samples] at `sample_rate` Hz, as `audio.blocks` gives them; samples: how many
        there are in all. Raises InputError for a recording shorter than one frame (of a probe: than a patch).
        """
        if self.recipe is None:
            pooled = self.network.pooled_blocks(blocks, samples, self.about["probe"]["layers"])
            logits = self.network.head(self._flattened(pooled[None]))
        else:
            logits = self._mean_over_blocks(blocks)[None]
        return self._probabilities(logits.cpu())[0]

    def _probabilities(self, logits: Tensor) -> np.ndarray:
        logits = logits / self.temperature
        return (logits.sigmoid() if self.multi else logits.softmax(1)).float().numpy()

    @torch.no_grad()
    def logits(self, waves: Any, sample_rate: int) -> Tensor:
        """Logits [B, K] before the temperature, on the CPU."""
        return self._over_clips(self._logits, waves, sample_rate)

    @torch.no_grad()
    def embed(self, waves: Any, sample_rate: int) -> Tensor:
        """What the last linear layer reads: [B, D], on the CPU."""
        return self._over_clips(self._features, waves, sample_rate)

    @property
    def window_seconds(self) -> float:
        """Length of audio that the network was made for, s."""
        frames = self.config.input_frames if self.recipe is None else self.network.frames
        return ((frames - 1) * self.front_end.hop + self.front_end.frame) / self.sample_rate

    def timeline(
        self,
        source: Any,
        sample_rate: int | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ) -> Timeline:
        """Classes over time in a recording of any length, with `.table`, `.scores`, `.events()`, `.figure()`.

        source: a file, read in blocks, or a waveform [S] at `sample_rate` Hz. window_seconds: length of the windows
        (default: what the network was made for); hop_seconds: from one window to the next (default: a quarter of it).
        Raises InputError for audio that cannot be used, and for a hop longer than the windows.
        """
        return make_timeline(self, source, sample_rate, window_seconds, hop_seconds)

    def _over_clips(self, function: Any, waves: Any, sample_rate: int) -> Tensor:
        if not isinstance(waves, list | tuple) or not waves or np.ndim(waves[0]) == 0:
            clips = list(as_waveforms(waves, sample_rate))
        else:
            clips = [one_waveform(wave, sample_rate, f"waves[{i}]") for i, wave in enumerate(waves)]
        if sample_rate != self.sample_rate:
            clips = [
                torch.from_numpy(soxr.resample(clip.cpu().numpy(), sample_rate, self.sample_rate)) for clip in clips
            ]
        for number, clip in enumerate(clips):
            if not self.front_end.frames_of(len(clip)):
                raise InputError(f"clip {number}: shorter than one frame of {self.front_end.frame} samples")
        parts = [clips[first : first + _CLIPS_AT_ONCE] for first in range(0, len(clips), _CLIPS_AT_ONCE)]
        return torch.cat([function(part).cpu() for part in parts])

    def _logits(self, clips: list[Tensor]) -> Tensor:
        if self.recipe is None:
            return self.network.head(self._pooled(clips))
        return self._as_in_tests(self.network, clips)

    def _features(self, clips: list[Tensor]) -> Tensor:
        if self.recipe is None:
            return self.network.head.features(self._pooled(clips)).float()
        return self._as_in_tests(self.network.features, clips)

    def _pooled(self, clips: list[Tensor]) -> Tensor:
        """[B, layers, P] of the probe's layers and pooling."""
        return self._flattened(self.network.pooled(clips, self.sample_rate, self.about["probe"]["layers"]))

    def _flattened(self, pooled: Tensor) -> Tensor:
        """[B, layers, 3, D] -> [B, layers, P]: of the probe's pooling."""
        return pooled[:, :, list(POOLED[self.about["probe"]["pool"]])].flatten(2)

    def _mean_over_blocks(self, blocks: Iterable[np.ndarray]) -> Tensor:
        """Logits [K] of a recording, computed as in the tests of fine-tuning, a few windows at a time."""
        frames = self.network.frames
        samples = (frames - 1) * self.front_end.hop + self.front_end.frame
        stretches = islice(sliding(blocks, samples, samples), 1 if self.recipe.crop == "start" else None)
        total, count = torch.zeros(len(self.classes), dtype=torch.float64), 0
        while batch := [windows(wave, samples) for _, wave in islice(stretches, _CLIPS_AT_ONCE)]:
            parts, length = torch.from_numpy(np.concatenate([part for part, _ in batch])), batch[0][1]
            if not self.front_end.frames_of(length):
                raise InputError(f"blocks: {length} samples are shorter than one frame of {self.front_end.frame}")
            outputs = windows_forward(self.network, self.front_end, parts, length, frames)
            total, count = total + outputs.cpu().double().sum(0), count + len(parts)
        if not count:
            raise InputError("blocks: there is no audio in them")
        return (total / count).float()

    def _as_in_tests(self, forward: Any, clips: list[Tensor]) -> Tensor:
        """Outputs for clips, computed as in the tests of fine-tuning."""
        frames = self.network.frames
        samples = (frames - 1) * self.front_end.hop + self.front_end.frame
        waves = [clip.cpu().numpy() for clip in clips]
        waves = [wave[:samples] for wave in waves] if self.recipe.crop == "start" else waves
        if all(len(wave) == min(len(waves[0]), samples) for wave in waves):  # one window each, all of one length
            batch = np.concatenate([windows(wave, samples)[0] for wave in waves])
            return windows_forward(forward, self.front_end, torch.from_numpy(batch), len(waves[0]), frames)
        options = (frames, _CLIPS_AT_ONCE)
        outputs = []
        for wave in waves:
            parts, length = windows(wave, samples)
            outputs.append(mean_over_windows(forward, self.front_end, torch.from_numpy(parts), length, *options))
        return torch.stack(outputs)

    def save(self, path: str | Path) -> Path:
        """Write model.safetensors into a folder (or a file whose name ends in .safetensors); written atomically."""
        path = resolve(path)
        path = path if path.suffix == ".safetensors" else path / MODEL
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"asit_lab_classifier": json.dumps(self.about)})
        return path


def classifier_metadata(
    name: str,
    config: RunConfig,
    classes: Sequence[str],
    multi: bool,
    recipe: Recipe | None = None,
    probe: dict[str, Any] | None = None,
    temperature: float = 1.0,
    thresholds: Sequence[float] | None = None,
    calibrated_on: str = "",
) -> dict[str, Any]:
    """The header of a classifier's file. probe: layers and pool of a probe. calibrated_on: the clips that temperature
    and thresholds are from: valid, test, or empty."""
    return {
        "format": _FORMAT,
        "version": __version__,
        "name": name,
        "classes": list(classes),
        "multi": multi,
        "config": config.to_dict(),
        "recipe": _effective(recipe) if recipe else None,
        "probe": probe,
        "temperature": temperature,
        "thresholds": None if thresholds is None else list(thresholds),
        "calibrated_on": calibrated_on,
    }


def _effective(recipe: Recipe) -> dict[str, Any]:
    """A recipe without keys that do not affect results, so that a resumed fine-tuning gives the same file."""
    return {key: value for key, value in recipe.to_dict().items() if key == "name" or key not in KEYS_WITHOUT_EFFECT}


def load_classifier(source: str | Path, split: str | None = None) -> Classifier:
    """The classifier in a folder of fine-tuning or of a probe, in a file model.safetensors, or at "hf://owner/name".

    split: of fine-tuning over several folds or seeds, the name or folder of one ("fold 2"); None: the first. Each was
    trained without its own test clips. Raises InputError naming the file and what is wrong with it.
    """
    path = _downloaded(str(source)) if str(source).startswith(HUB) else _model_file(resolve(source), split)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("asit_lab_classifier")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file: {error}") from None
    if text is None:
        raise InputError(f"{path}: holds no classifier; encoders are loaded by load_encoder")
    metadata = json.loads(text)
    if metadata["format"] > _FORMAT:
        raise InputError(f"{path}: written by asit_lab {metadata['version']}, newer than this one ({__version__})")
    config = validate(metadata["config"])
    if metadata["recipe"]:
        recipe = Recipe.model_validate(metadata["recipe"])
        network: nn.Module = ClassifierNetwork(config, recipe, len(metadata["classes"]))
    else:
        network = Encoder(config, ViT(config.model, config.grid), name=metadata["name"])
        parts = ("mean", "deviation", "weights", "intercepts", "layer_weights")
        network.head = ProbeHead(*(torch.empty_like(tensors[f"head.{name}"]) for name in parts))
    load_weights(network, tensors, path)
    return Classifier(network, config, metadata)


def _model_file(path: Path, split: str | None) -> Path:
    """The file of a classifier: itself, in the folder, or in that of a split below it."""
    if path.is_file():
        return path
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if (path / MODEL).is_file() and split is None:
        return path / MODEL
    if (path / "config.yaml").is_file():
        raise InputError(
            f"{path}: a pretraining run, which knows no classes; fine-tune it (finetune), or fit a linear head on it "
            "(probe with --out), and give that folder"
        )
    names = read_json(path / "result.json").get("folders", {})
    folders = {folder: name for folder, name in names.items() if (path / folder / MODEL).is_file()}
    chosen = [folder for folder, name in folders.items() if split in (None, name, folder, name.removeprefix("fold "))]
    if not folders:
        raise InputError(
            f"{path}: has no {MODEL}: no split is finished, it is of a version before 0.2, or it is another folder"
        )
    if not chosen:
        raise InputError(f"split: {split!r} is none of those in {path}: {', '.join(folders.values())}")
    return path / chosen[0] / MODEL


def _downloaded(source: str) -> Path:
    """The file of a repository on the Hugging Face Hub, "hf://owner/name" or "hf://owner/name@revision"."""
    repo_id, _, revision = source.removeprefix(HUB).partition("@")
    return fetch_file(repo_id, MODEL, revision or None)
