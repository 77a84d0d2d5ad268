"""Exports models with their front end, for use without this package: ONNX, TorchScript, torch.export.

An exported model takes a waveform, float32 [batch, samples] at the model's sample rate, of a fixed length and any batch
size, and returns a classifier's probabilities or an encoder's embeddings. The caller cuts longer audio into windows, as
`Classifier.timeline` and `Encoder.embed` do. Not every ONNX runtime has an FFT, so the log-mel is computed by matrix
products: windowed cosines and sines as a convolution over the waveform.

Shapes: B clips, S samples, T frames, M mel bands, K classes, D features.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import number
from ..config import resolve
from ..embedding.vectors import POOLED
from ..encoder import Encoder
from ..encoder.pooling import check_pool
from ..errors import InputError
from ..features import PAD, PREEMPHASIS, LogMel
from ..storage.atomic import atomic_write, read_json
from ..storage.words import nearest
from ..zoo import open_source
from .classifier import MODEL, Classifier, load_classifier
from .quantisation import quantise_onnx
from .transformers_folder import MODEL_TYPE, write_transformers_folder

ENDINGS = {"onnx": ".onnx", "torchscript": ".pt", "torch-export": ".pt2"}
TRANSFORMERS = "transformers"  # a folder
PRECISIONS = ("fp32", "fp16", "int8")
# Largest accepted difference, relative to the largest output.
TOLERANCE, TOLERANCES = 1e-3, {"fp32": 1e-3, "fp16": 0.02, "int8": 0.5}


class PlainLogMel(nn.Module):
    """LogMel by convolutions: [B, S] -> raw log-mel [B, T, M], equal within float32's accuracy."""

    def __init__(self, front_end: LogMel):
        super().__init__()
        self.hop, self.frame = front_end.hop, front_end.frame
        window = front_end.window.double()
        time, bins = torch.arange(self.frame), torch.arange(front_end.fft_size // 2 + 1)
        angles = 2 * torch.pi * ((bins[:, None] * time) % front_end.fft_size).double() / front_end.fft_size
        waves = torch.cat([angles.cos(), angles.sin()]) * window  # [2 bins, frame]
        # Of each frame of the emphasised signal, 0.03 of the plain frame's mean is subtracted (see LogMel._raw).
        offset = (1.0 - PREEMPHASIS) * waves.sum(1, keepdim=True) / self.frame
        self.register_buffer("waves", waves.float()[:, None])
        self.register_buffer("means", offset.expand_as(waves).float()[:, None])
        self.register_buffer("bank", front_end.bank.clone())

    def forward(self, wave: Tensor) -> Tensor:
        wave = wave - wave.mean(1, keepdim=True)
        emphasised = torch.cat([wave[:, :1], wave[:, 1:] - PREEMPHASIS * wave[:, :-1]], dim=1)
        spectrum = nn.functional.conv1d(emphasised[:, None], self.waves, stride=self.hop)
        spectrum = spectrum - nn.functional.conv1d(wave[:, None], self.means, stride=self.hop)  # [B, 2 bins, T]
        real, imaginary = spectrum.chunk(2, dim=1)
        power = (real * real + imaginary * imaginary).transpose(1, 2)  # -> [B, T, bins]
        return (power @ self.bank).clamp(min=torch.finfo(torch.float32).eps).log()


class Exported(nn.Module):
    """The exported module: waveforms [B, S] -> probabilities [B, K] or embeddings [B, D].

    samples: S. frames: T of the network's input; a shorter log-mel is padded, a longer one cut. half: the network has
    fp16 weights and arithmetic; front end, pooling and output stay fp32.
    """

    def __init__(self, model: Classifier | Encoder, pool: str, samples: int, half: bool = False):
        super().__init__()
        front_end = model.front_end
        self.front_end, self.mean, self.std = PlainLogMel(front_end), front_end.mean, front_end.std
        self.pool, self.samples = pool, samples
        self.multi, self.temperature, self.head = False, 1.0, None
        frames = front_end.frames_of(samples)
        if isinstance(model, Classifier):
            self.multi, self.temperature = model.multi, model.temperature
        if isinstance(model, Classifier) and model.recipe is not None:
            self.network, self.frames, self.layers = copy.deepcopy(model.network), model.network.frames, None
        else:
            encoder = model.network if isinstance(model, Classifier) else model
            self.network, patch = copy.deepcopy(encoder.backbone), encoder.config.model.patch[0]
            self.frames, self.layers = max(patch, frames // patch * patch), [len(self.network.blocks)]
            if isinstance(model, Classifier):
                self.pool, self.layers = model.about["probe"]["pool"], list(model.about["probe"]["layers"])
                self.head = copy.deepcopy(encoder.head)
        self.missing = max(0, self.frames - frames)
        self.dtype = torch.float16 if half else torch.float32
        self.network.to(self.dtype)
        for name in ("center", "deviation"):  # of head=mean+std, whose statistics are fp32 as the pooling is
            if isinstance(model, Classifier) and hasattr(model.network, name):
                setattr(self.network, name, getattr(model.network, name).clone())
        for module in self.network.modules():
            if hasattr(module, "path"):
                module.path = "explicit"  # the path that does not depend on the batch
        self.eval().requires_grad_(False)

    def forward(self, wave: Tensor) -> Tensor:
        raw = nn.functional.pad(self.front_end(wave), (0, 0, 0, self.missing), value=PAD)[:, : self.frames]
        x = ((raw - self.mean) / (2.0 * self.std)).to(self.dtype)
        if self.layers is None:
            return self._scores(self.network(x).float())
        final = len(self.network.blocks)
        inspection = self.network.inspect(x, hidden=[layer for layer in self.layers if layer < final])
        pooled = []
        for layer in self.layers:
            tokens = (inspection.tokens if layer == final else inspection.hidden[layer]).float()
            patches = tokens if layer < self.network.class_token_at else tokens[:, 1:]
            ways = (tokens[:, 0], patches.mean(1), patches.std(1, correction=0))
            pooled.append(torch.cat([ways[way] for way in POOLED[self.pool]], dim=1))
        if self.head is None:
            return pooled[0]
        return self._scores(self.head(torch.stack(pooled, dim=1)))

    def _scores(self, logits: Tensor) -> Tensor:
        logits = logits / self.temperature
        return (logits.sigmoid() if self.multi else logits.softmax(1)).float()


@dataclass(frozen=True)
class Export:
    """A file or folder written by `export_model`."""

    path: Path
    sample_rate: int
    """Hz"""
    samples: int | None
    """length of the input; None: any"""
    output: str
    """its name: scores or embedding"""
    names: list[str]
    """classes, or d0, d1, ..."""
    difference: float
    """largest difference from the original on random audio, relative to the largest output"""

    @property
    def seconds(self) -> float | None:
        """Length of the input; None: any."""
        return None if self.samples is None else self.samples / self.sample_rate


def export_model(
    model: Classifier | Encoder,
    path: str | Path,
    to: str = "onnx",
    seconds: float | None = None,
    pool: str = "mean",
    precision: str = "fp32",
) -> Export:
    """Export a model and check it against the original on random audio.

    path: file to write, .onnx, .pt (TorchScript) or .pt2 (torch.export). seconds: input length (default and maximum:
    that of the network). pool: for encoders, as in `Encoder.embed`. precision: of the network, fp32, fp16, or (ONNX)
    int8: weights in 8 bits, activations quantised as they come; the front end stays fp32. Input "wave", float32
    [batch, samples]; output "scores" or "embedding". The file has sample rate, length and the names of the outputs as
    JSON: in ONNX's metadata under "asit_lab", else as the extra file "asit_lab.json". With to="transformers", path is
    a folder that `AutoModel.from_pretrained(path, trust_remote_code=True)` loads, for input of any length and in fp32.
    Raises InputError for an invalid format, length, name or precision, where packages for ONNX are missing, and where
    the output differs from that of the original by more than `TOLERANCES`.
    """
    if to not in (*ENDINGS, TRANSFORMERS):
        raise InputError(f"to: {to!r}: {nearest(to, [*ENDINGS, TRANSFORMERS])}")
    check_pool(pool)
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r}: {nearest(precision, list(PRECISIONS))}")
    if (precision == "int8" and to != "onnx") or (precision == "fp16" and to == TRANSFORMERS):
        raise InputError(f"precision: {precision} is not available to={to}; int8 is for onnx, fp16 for files")
    path = resolve(path)
    if to == TRANSFORMERS:
        return _transformers(model, path, seconds, pool)
    if path.suffix != ENDINGS[to]:
        raise InputError(f"{path}: give a name that ends in {ENDINGS[to]}")
    rate, longest = model.front_end.sample_rate, _longest(model)
    samples = longest if seconds is None else round(number("seconds", seconds) * rate)
    if not model.front_end.frame <= samples <= longest:
        raise InputError(
            f"seconds: {seconds:g} is not between {model.front_end.frame / rate:g} and {longest / rate:g} s, the "
            "length that the network was made for; cut longer audio into windows"
        )
    module = Exported(model, pool, samples, half=precision == "fp16")
    wave = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal((3, samples)).astype(np.float32))
    if isinstance(model, Classifier):
        output, names, expected = "scores", model.classes, torch.from_numpy(model.scores(wave, rate))
    else:
        output, expected = "embedding", model.embed(wave, rate, pool).cpu()
        names = [f"d{i}" for i in range(expected.shape[1])]
    about = {"sample_rate": rate, "samples": samples, "output": output, "names": names}
    with atomic_write(path) as temporary, _quiet():
        run = _WRITERS[to](module, wave[:2], temporary, about)
        if precision == "int8":
            quantise_onnx(temporary)
            run = _in_onnxruntime(temporary)
        difference = float((run(wave) - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCES[precision]:
            raise InputError(f"{path}: not written: the exported model differs from the original by {difference:.2g}")
    return Export(path, rate, samples, output, names, difference)


def _transformers(model: Classifier | Encoder, path: Path, seconds: float | None, pool: str) -> Export:
    if seconds is not None:
        raise InputError("seconds: the folder for transformers takes audio of any length; leave this out")
    if path.is_file() or path.suffix in (*ENDINGS.values(), ".safetensors"):
        raise InputError(f"{path}: give the name of a folder")
    holds_other = any((path / name).is_file() for name in ("model.safetensors", "config.yaml", "setup.yaml"))
    if holds_other and read_json(path / "config.json").get("model_type") != MODEL_TYPE:
        raise InputError(f"{path}: holds a model or a run of asit_lab, which would be lost; choose another folder")
    difference = write_transformers_folder(model, path, pool, TOLERANCE)
    rate, width = model.front_end.sample_rate, model.config.model.width
    if isinstance(model, Classifier):
        return Export(path, rate, None, "logits", model.classes, difference)
    names = [f"d{i}" for i in range(width * (2 if pool == "mean+std" else 1))]
    return Export(path, rate, None, "pooler_output", names, difference)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' warnings about shapes fixed on purpose and packages that are not installed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _longest(model: Classifier | Encoder) -> int:
    """Samples of the longest input."""
    if isinstance(model, Classifier):
        return round(model.window_seconds * model.sample_rate)
    return (model.config.input_frames - 1) * model.front_end.hop + model.front_end.frame


def _onnx(module: Exported, wave: Tensor, path: Path, about: dict[str, Any]) -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401  runs the model to check it
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ModuleNotFoundError as error:
        raise InputError(f"to: onnx needs {error.name}: pip install onnx onnxruntime onnxscript") from None
    batch = {"wave": {0: torch.export.Dim("batch", min=1)}}
    names = {"input_names": ["wave"], "output_names": [about["output"]]}
    program = torch.onnx.export(module, (wave,), dynamo=True, dynamic_shapes=batch, verbose=False, **names)
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"asit_lab": json.dumps(about)})
    onnx.save(proto, path)
    return _in_onnxruntime(path)


def _in_onnxruntime(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {"wave": clips.numpy()})[0])


def _torchscript(module: Exported, wave: Tensor, path: Path, about: dict[str, Any]) -> Any:
    traced = torch.jit.trace(module, wave, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={"asit_lab.json": json.dumps(about)})
    return torch.jit.load(str(path))


def _torch_export(module: Exported, wave: Tensor, path: Path, about: dict[str, Any]) -> Any:
    batch = {"wave": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(module, (wave,), dynamic_shapes=batch)
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"asit_lab.json": json.dumps(about)})
    with path.open("rb") as file:
        return torch.export.load(file).module()


_WRITERS = {"onnx": _onnx, "torchscript": _torchscript, "torch-export": _torch_export}


def _holds_classifier(folder: Path) -> bool:
    """Whether a folder is of fine-tuning or of a probe, also where its file cannot be read."""
    is_saved_encoder = (folder / "config.json").is_file()
    return (folder / "setup.yaml").is_file() or ((folder / MODEL).is_file() and not is_saved_encoder)


def open_model(source: str, split: str | None = None) -> Classifier | Encoder:
    """A classifier (see `load_classifier`), or an encoder from what `zoo.open_source` takes."""
    try:
        return load_classifier(source, split)
    except InputError:
        if split is not None or _holds_classifier(resolve(source)):
            raise
    encoder = open_source(source)
    if not isinstance(encoder, Encoder):
        raise InputError(f"{source}: not an encoder of this package")
    return encoder
