"""Prepares waveforms for an audio transformer of asit_lab, for transformers. The log-mel is part of the model."""

from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor


class AsitLabFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> input_values [B, S], padded by zeros, and attention_mask, 1 where there is audio."""

    model_input_names = ["input_values", "attention_mask"]

    def __init__(self, feature_size: int = 1, sampling_rate: int = 16000, padding_value: float = 0.0, **kwargs: Any):
        kwargs.setdefault("return_attention_mask", True)
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """raw_speech: float [S] or [B, S], or a list of [S], mono, in [-1, 1], at `sampling_rate` Hz."""
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate: {sampling_rate} Hz; resample to {self.sampling_rate} Hz first")
        clips = list(raw_speech) if np.ndim(raw_speech[0]) else [raw_speech]
        waves = [np.asarray(clip, dtype=np.float32) for clip in clips]
        if any(wave.ndim != 1 for wave in waves):
            raise ValueError("raw_speech: expected mono clips, [samples] each")
        return self.pad(BatchFeature({"input_values": waves}), padding=padding, return_tensors=return_tensors, **kwargs)
