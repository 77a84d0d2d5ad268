"""Encoders as folders and on the Hugging Face Hub: the methods that `Encoder` has for it."""

from pathlib import Path
from typing import Self

from torch import nn

from ..config import resolve
from ..errors import InputError
from ..runs.encoder_folder import WEIGHTS, SavedEncoder, read_encoder_folder
from . import hub


class Shareable(nn.Module):
    """An encoder that can be saved, published and loaded again."""

    def to_saved(self) -> SavedEncoder:
        """What a folder keeps of the encoder."""
        raise NotImplementedError

    @classmethod
    def from_saved(cls, saved: SavedEncoder, source: str | Path) -> Self:
        """The encoder of a folder's contents. source: what an error names. Raises InputError for misfitting weights."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder to publish: config.json, model.safetensors and a model card, README.md.

        A card that somebody edited is kept, with a warning.
        Backbone, student and decoder are kept, so that the loaded encoder can do all that this one can.
        """
        hub.save_folder(self.to_saved(), resolve(folder))

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Publish on the Hugging Face Hub as "owner/name"; returns the address of the commit.

        options: those of huggingface_hub's ModelHubMixin.push_to_hub, such as private, token, branch, commit_message.
        Raises InputError with the Hub's reason.
        """
        return hub.push(self.to_saved(), repo_id, **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options) -> Self:
        """The encoder of a folder that `save_pretrained` wrote, or of "owner/name" on the Hugging Face Hub.

        options: those of huggingface_hub's ModelHubMixin.from_pretrained, such as revision, token, cache_dir.
        Raises InputError naming the file, keys and shapes that are missing or do not fit, or the Hub's reason.
        """
        folder = resolve(source)
        if folder.is_dir():
            return cls.from_saved(read_encoder_folder(folder), folder / WEIGHTS)
        if "/" in str(source) and folder.parent.is_dir():  # offline, the Hub would only answer after minutes
            raise InputError(
                f"{folder}: no such folder; if {source} on the Hugging Face Hub is meant, load_encoder takes hf://{source}"
            )
        return cls.from_hub(str(source), **options)

    @classmethod
    def from_hub(cls, repo_id: str, **options) -> Self:
        """The encoder of "owner/name" on the Hugging Face Hub, whatever folders there are here; options and errors as
        of `from_pretrained`."""
        return cls.from_saved(hub.fetch(repo_id, **options), f"hf://{repo_id}/{WEIGHTS}")
