"""The encoder interface of X-ARES (Zhang et al., arXiv 2505.16369), so that its tasks take our encoders:

    ASIT_LAB_XARES=runs/mine python -m xares.run asit_lab/encoder/xares.py src/tasks/esc50_task.py

X-ARES makes the one class of a module whose name ends in "Encoder", without arguments; the model is what the
environment variable names. An embedding every 50 ms at most, as for HEAR (hear.py).
"""

import os

import torch
from torch import Tensor, nn

from . import load_encoder
from .hear import HearModel, get_timestamp_embeddings, hop_frames

MODEL_VARIABLE = "ASIT_LAB_XARES"


class XaresEncoder(nn.Module):
    """Waveforms float [B, S] at `sampling_rate` Hz -> embeddings float32 [B, T, D], one every `hop_size_in_ms`."""

    def __init__(self, model: str | None = None):
        """model: what `load_encoder` takes; None: that in $ASIT_LAB_XARES, else the shipped one. Raises InputError."""
        super().__init__()
        self.hear = HearModel(load_encoder(model or os.environ.get(MODEL_VARIABLE, "shipped")))
        front_end, patch = self.hear.encoder.front_end, self.hear.encoder.config.model.patch[0]
        frame_hop = 1000 * front_end.hop / front_end.sample_rate  # ms
        self.sampling_rate, self.output_dim = self.hear.sample_rate, self.hear.timestamp_embedding_size
        self.hop_size_in_ms = hop_frames(patch, frame_hop) * frame_hop

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Embeddings centred at 0, hop_size_in_ms, ... as far as the audio goes. Raises InputError for no audio."""
        return get_timestamp_embeddings(audio, self.hear)[0]
