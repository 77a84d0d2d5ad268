"""Encoder folders to and from the Hugging Face Hub, by huggingface_hub's mixin. folder.py describes the files.

huggingface_hub is imported when first used: neither pretraining nor reading a local folder needs it.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InputError
from ..registry import in_file
from ..runs.encoder_folder import CONFIG, WEIGHTS, SavedEncoder, read_encoder_folder, write_encoder_folder
from ..storage.atomic import FULL

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


def _folder_class() -> type:
    """The class whose objects are encoder folders as the mixin wants them: `.saved` is the SavedEncoder."""
    try:
        from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
    except ImportError as error:
        raise InputError(f"the Hugging Face Hub needs huggingface_hub: pip install huggingface-hub ({error})") from None

    class HubFolder(
        ModelHubMixin,
        library_name="asit_lab",
        tags=["audio", "self-supervised"],
        pipeline_tag="feature-extraction",
        model_card_template=CARD,
    ):
        def __init__(self, saved: SavedEncoder):
            self.saved = saved

        def _save_pretrained(self, save_directory: Path) -> None:
            write_encoder_folder(save_directory, self.saved)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **download) -> "HubFolder":
            if not Path(model_id).is_dir():
                model_id = snapshot_download(model_id, allow_patterns=[CONFIG, WEIGHTS], **download)
            return cls(read_encoder_folder(Path(model_id)))

        def generate_model_card(self, **values) -> ModelCard:
            card = super().generate_model_card(**values)
            return ModelCard(f"{card}\n\n{_mark(str(card))}\n")

    return HubFolder


def save_folder(saved: SavedEncoder, folder: Path) -> None:
    """Write the folder with a model card. An existing card is replaced, unless somebody edited it."""
    folder_class, card = _folder_class(), folder / "README.md"
    if _is_as_written(card):
        card.unlink()
    elif card.exists():
        warnings.warn(f"{card}: kept as it is; see that it is of {saved.name}, or remove it first", stacklevel=4)
    folder_class(saved).save_pretrained(folder, model_card_kwargs=_card(saved, "FOLDER"))


def push(saved: SavedEncoder, repo_id: str, **options) -> str:
    """Publish as `repo_id`; returns the address of the commit. options: of the mixin's push_to_hub."""
    folder_class, card = _folder_class(), _card(saved, f"hf://{repo_id}")
    with _explained(repo_id, "or save it by save_pretrained and upload the folder from elsewhere"):
        return str(folder_class(saved).push_to_hub(repo_id, model_card_kwargs=card, **options))


def fetch(repo_id: str, **options) -> SavedEncoder:
    """The encoder of a repository. options: of the mixin's from_pretrained, such as revision, token, cache_dir.

    Raises InputError naming the repository when it cannot be fetched or holds no encoder.
    """
    folder_class = _folder_class()
    with _explained(repo_id):
        saved = folder_class.from_pretrained(repo_id, **options).saved
    if in_file(saved.config.model.attention):
        raise InputError(
            f"hf://{repo_id}: its configuration names code in a file, model.attention={saved.config.model.attention}, "
            "which is not executed for a download. Get the file and load a folder whose config.json names your copy"
        )
    return saved


def fetch_file(repo_id: str, name: str, revision: str | None = None) -> Path:
    """A file of a repository, downloaded. Raises InputError as `fetch`."""
    _folder_class()  # says so where huggingface_hub is missing
    from huggingface_hub import hf_hub_download

    with _explained(repo_id):
        return Path(hf_hub_download(repo_id, name, revision=revision))


def _mark(text: str) -> str:
    """Last line of a card, not shown, which tells whether anybody edited the card."""
    return f"<!-- asit_lab wrote this: {hashlib.sha256(text.strip().encode()).hexdigest()[:16]} -->"


def _is_as_written(card: Path) -> bool:
    if not card.is_file():
        return False
    text, _, mark = card.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")
    return mark == _mark(text)


def _card(saved: SavedEncoder, source: str) -> dict[str, object]:
    model, features = saved.config.model, saved.config.features
    about = (
        f"{model.width} wide, {model.depth} blocks, {features.mel_bins} mel bands of {features.sample_rate} Hz audio"
    )
    return {"name": saved.name, "about": about, "width": model.width, "source": source}


@contextmanager
def _explained(repo_id: str, local: str = "or download it elsewhere and give the folder") -> Iterator[None]:
    """Turns failures of the Hub into one message with the repository's name. local: what works without the Hub."""
    from huggingface_hub.errors import HTTPError, RevisionResolutionError

    try:
        yield
    except InputError:
        raise
    except (HTTPError, RevisionResolutionError, OSError, ValueError) as error:  # refused, no network, no such name
        reason = _advice(error, repo_id, local) or str(error).strip().partition("\n")[0]
        raise InputError(f"hf://{repo_id}: {reason} ({type(error).__name__})") from error


def _advice(error: BaseException, repo_id: str, local: str) -> str:
    """What a failure means and what to do about it; empty where the library's own words have to do."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {kind.__name__ for cause in chain for kind in type(cause).__mro__}
    text = " ".join(map(str, chain))
    log_in = "log in by `hf auth login` or HF_TOKEN"
    if any(getattr(cause, "errno", None) in FULL for cause in chain):
        return f"the disk is full ({constants.HF_HUB_CACHE}): make room, or set HF_HOME to a folder on another disk"
    if "GatedRepoError" in kinds:
        return f"access is restricted: accept the terms at https://{host}/{repo_id} and {log_in}, {local}"
    if "RepositoryNotFoundError" in kinds:
        return f"{host} has no such repository, or it is private: check the name, or {log_in}"
    if "ProxyError" in kinds or re.search(
        r"\b407\b", text
    ):  # a number of its own: ports and request names have digits too
        return f"the proxy does not let {host} through; check HTTPS_PROXY, ask for {host} to be allowed, {local}"
    if "SSLError" in kinds or "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the certificate of {host} is not trusted; if a proxy changes it, set SSL_CERT_FILE to its own, {local}"
    if re.search(r"\b401\b", text):
        return f"{host} does not accept the login: {log_in}, {local}"
    if kinds & {"TimeoutException", "Timeout", "TimeoutError"}:
        return f"{host} does not answer in time; check the network and HTTPS_PROXY, {local}"
    if kinds & {"NetworkError", "RemoteProtocolError", "ConnectionError", "IncompleteSnapshotError"}:
        return f"{host} cannot be reached, or the connection broke off; check the network and HTTPS_PROXY, {local}"
    if "HfHubHTTPError" in kinds and (status := re.search(r"\b[45]\d\d\b", text)):
        return f"{host} answered {status[0]}; try again later, {local}"
    return ""
