"""Configuration of an audio transformer of asit_lab, for transformers."""

from typing import Any

from transformers import PretrainedConfig


class AsitLabConfig(PretrainedConfig):
    """Front end, backbone and head.

    sampling_rate: Hz. frame, hop: of the log-mel, samples. mean, std: the log-mel is normalised as
    (x - mean) / (2 std). patch: frames, mel bands. grid: patches along time and mel of the longest window. attention:
    softmax, asda or learned (both differential). norm: pre or post. class_token_at: block before which the class token
    joins. pool: how tokens become `pooler_output`: mean, class or mean+std. head: of a classifier, else None.
    """

    model_type = "asit_lab"

    def __init__(
        self,
        sampling_rate: int = 16000,
        frame: int = 400,
        hop: int = 160,
        mel_bins: int = 128,
        mean: float = 0.0,
        std: float = 0.5,
        hidden_size: int = 384,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 6,
        intermediate_size: int = 1536,
        patch: tuple[int, int] = (16, 16),
        grid: tuple[int, int] = (32, 8),
        attention: str = "softmax",
        norm: str = "pre",
        class_token_at: int = 0,
        pool: str = "mean",
        head: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self.sampling_rate, self.frame, self.hop, self.mel_bins = sampling_rate, frame, hop, mel_bins
        self.mean, self.std = mean, std
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.intermediate_size = num_attention_heads, intermediate_size
        self.patch, self.grid = list(patch), list(grid)
        self.attention, self.norm, self.class_token_at = attention, norm, class_token_at
        self.pool, self.head = pool, head
        super().__init__(**kwargs)
