"""Audio transformers of asit_lab for transformers: `AutoModel.from_pretrained(folder, trust_remote_code=True)`."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from .configuration_asit_lab import AsitLabConfig
from .network_asit_lab import AsitLabNetwork


class AsitLabPreTrainedModel(PreTrainedModel):
    """What both models share: `network`, and clips of several lengths."""

    config_class = AsitLabConfig
    base_model_prefix = ""
    main_input_name = "input_values"
    _supports_sdpa = True

    def __init__(self, config: AsitLabConfig):
        super().__init__(config)
        self.network = AsitLabNetwork(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Folders hold all weights."""

    def clips_by_length(self, input_values: Tensor, attention_mask: Tensor | None) -> dict[int, list[int]]:
        """Length in samples -> which of the clips [B, S] have it. attention_mask: 1 for samples that are audio."""
        if input_values.ndim != 2:
            raise ValueError(f"input_values: expected [batch, samples], got {list(input_values.shape)}")
        lengths = [input_values.shape[1]] * len(input_values)
        if attention_mask is not None:
            lengths = attention_mask.long().sum(1).tolist()
        grouped: dict[int, list[int]] = {}
        for clip, length in enumerate(lengths):
            grouped.setdefault(int(length), []).append(clip)
        return grouped


class AsitLabModel(AsitLabPreTrainedModel):
    """Waveforms -> tokens and an embedding of each clip."""

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """input_values: float [B, S] in [-1, 1] at `config.sampling_rate`; attention_mask: 1 for audio, 0 for padding.

        last_hidden_state: [B, 1+N, D], class token first, then patches (time-major); zeros after a shorter clip's.
        pooler_output: [B, D] ([B, 2 D] for mean+std). hidden_states: each block's output, then the final one.
        """
        states: list[Tensor] = [torch.empty(0)] * len(input_values)
        for length, clips in self.clips_by_length(input_values, attention_mask).items():
            for clip, tokens in zip(clips, self.network.states(input_values[clips, :length]).unbind(1), strict=True):
                states[clip] = tokens  # [layers, 1+N, D]
        pooled = torch.stack([self.network.pooled(tokens[-1], self.config.pool) for tokens in states])
        longest = max(tokens.shape[1] for tokens in states)
        padded = [nn.functional.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens in states]
        layers = torch.stack(padded, dim=1)  # [layers, B, 1+N, D]
        output = BaseModelOutputWithPooling(
            last_hidden_state=layers[-1],
            pooler_output=pooled,
            hidden_states=tuple(layers) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output


class AsitLabForAudioClassification(AsitLabPreTrainedModel):
    """Waveforms -> logits; softmax (sigmoid, where clips may have several classes) of them are the probabilities."""

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Inputs as for AsitLabModel. labels: int [B], or float [B, K] where clips may have several classes."""
        logits = input_values.new_zeros(len(input_values), self.config.num_labels)
        for length, clips in self.clips_by_length(input_values, attention_mask).items():
            logits[clips] = self.network.logits(input_values[clips, :length]).to(logits)
        loss = None
        if labels is not None and self.config.problem_type == "multi_label_classification":
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
        elif labels is not None:
            loss = nn.functional.cross_entropy(logits, labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output
