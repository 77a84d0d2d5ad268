"""Encoders on the Hugging Face Hub, by huggingface_hub's mixin. What the files hold is said in encoder/folder.py.

Imported where first used: neither pretraining nor reading a local folder needs huggingface_hub.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HTTPError, RevisionResolutionError

from ..errors import InputError
from . import Encoder
from .folder import CONFIG, WEIGHTS, write_encoder_folder
from .loading import from_folder

CARD = """---
{{ card_data }}
---

# {{ name }}

Audio encoder of asit_lab: {{ about }}.

```python
import asit_lab

encoder = asit_lab.load_encoder("{{ source }}")
encoder.embed(wave, sample_rate)  # [batch, {{ width }}], audio of any length and rate
```
"""


class HubEncoder(
    ModelHubMixin,
    library_name="asit_lab",
    tags=["audio", "self-supervised"],
    pipeline_tag="feature-extraction",
    model_card_template=CARD,
):
    """An encoder as the mixin wants it; `Encoder` has the methods for users."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def _save_pretrained(self, save_directory: Path) -> None:
        encoder, tensors = self.encoder, self.encoder.state_dict()
        if encoder.student is encoder.backbone:  # once is enough, and safetensors refuses to write it twice
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("student.")}
        write_encoder_folder(save_directory, tensors, encoder.config, encoder.name)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **download) -> "HubEncoder":
        if not Path(model_id).is_dir():
            model_id = snapshot_download(model_id, allow_patterns=[CONFIG, WEIGHTS], **download)
        return cls(from_folder(Path(model_id)))

    def generate_model_card(self, **values) -> ModelCard:
        card = super().generate_model_card(**values)
        return ModelCard(f"{card}\n\n{_mark(str(card))}\n")


def save(encoder: Encoder, folder: Path) -> None:
    """`Encoder.save_pretrained`. A card of what was there before makes way, unless somebody wrote in it."""
    card = folder / "README.md"
    if _is_as_written(card):
        card.unlink()
    elif card.exists():
        warnings.warn(f"{card}: kept as it is; see that it is of {encoder.name}, or remove it first", stacklevel=3)
    HubEncoder(encoder).save_pretrained(folder, model_card_kwargs=_card(encoder, "FOLDER"))


def push(encoder: Encoder, repo_id: str, **options) -> str:
    """`Encoder.push_to_hub`."""
    with _explained(repo_id):
        card = _card(encoder, f"hf://{repo_id}")
        return str(HubEncoder(encoder).push_to_hub(repo_id, model_card_kwargs=card, **options))


def fetch(repo_id: str, **options) -> Encoder:
    """The encoder of a repository. options: of the mixin's from_pretrained, such as revision, token, cache_dir.

    Raises InputError naming the repository when it cannot be fetched or is no encoder.
    """
    with _explained(repo_id):
        return HubEncoder.from_pretrained(repo_id, **options).encoder


def _mark(text: str) -> str:
    """Last line of a card, not shown, by which a card that nobody changed is known."""
    return f"<!-- asit_lab wrote this: {hashlib.sha256(text.strip().encode()).hexdigest()[:16]} -->"


def _is_as_written(card: Path) -> bool:
    if not card.is_file():
        return False
    text, _, mark = card.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")
    return mark == _mark(text)


def _card(encoder: Encoder, source: str) -> dict[str, object]:
    model, features = encoder.config.model, encoder.config.features
    about = (
        f"{model.width} wide, {model.depth} blocks, {features.mel_bins} mel bands of {features.sample_rate} Hz audio"
    )
    return {"name": encoder.name, "about": about, "width": model.width, "source": source}


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Failures of the hub as one message with the repository's name."""
    try:
        yield
    except InputError:
        raise
    except (HTTPError, RevisionResolutionError, OSError, ValueError) as error:  # refused, no network, no such name
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"hf://{repo_id}: {reason} ({type(error).__name__})") from error
