"""The common API of HEAR 2021 (Holistic Evaluation of Audio Representations; Turian et al., PMLR 176), so that its
validator and heareval take our encoders: module `asit_lab.encoder.hear`, model file = whatever `load_encoder` takes.

Embeddings at timestamps: HEAR suggests one every 50 ms or more often, but a patch is longer (160 ms in ASiT and ASDA).
So the log-mel goes through the encoder several times, each time a few frames later, and the passes are interleaved:
every embedding is of patches that are centred at its timestamp. The audio gets half a patch of silence on either side,
so that timestamps begin at 0. Audio longer than pretraining's crops goes through in overlapping windows.
"""

import torch
from torch import Tensor, nn

from . import Encoder, load_encoder
from .waveforms import as_waveforms
from .windows import cover

POOL = "mean+std"  # of a scene's patches, as in the project's own probes
LONGEST_HOP = 50.0  # ms
OVERLAP = 0.25  # of the windows of long audio, as in Encoder.embed


class HearModel(nn.Module):
    """An encoder with the attributes HEAR asks for."""

    sample_rate: int
    """Hz of the audio it takes"""
    scene_embedding_size: int
    """mean and standard deviation: twice the encoder's width"""
    timestamp_embedding_size: int
    """the encoder's width"""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.sample_rate = encoder.config.features.sample_rate
        self.timestamp_embedding_size = encoder.config.model.width
        self.scene_embedding_size = 2 * encoder.config.model.width


def load_model(model_file_path: str) -> HearModel:
    """The model of a run directory, snapshot, saved folder or "hf://owner/name". Raises InputError."""
    return HearModel(load_encoder(model_file_path))


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding a sound: float [sounds, samples] at model.sample_rate, in [-1, 1] -> float32 [sounds, size]."""
    return model.encoder.embed(audio, model.sample_rate, pool=POOL, overlap=OVERLAP)


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings at regular intervals: float [sounds, samples] -> float32 [sounds, times, size], and the timestamps
    they are centred at, in ms, float32 [sounds, times]: from 0 to at most the length of the audio.

    An embedding is the mean over frequency of one time's patches. Raises InputError for what is no audio.
    """
    encoder, front_end = model.encoder, model.encoder.front_end
    patch = encoder.config.model.patch[0]
    hop = hop_frames(patch, 1000 * front_end.hop / model.sample_rate)
    audio = as_waveforms(audio, model.sample_rate, "audio").to(encoder.device)
    times = audio.shape[1] // (hop * front_end.hop) + 1
    log_mels = _centred_log_mels(encoder, audio, frames=(times - 1) * hop + patch)  # [sounds, T, M]
    passes = range(0, min(patch, times * hop), hop)
    shifted = [
        sound[offset : offset + (len(sound) - offset) // patch * patch] for sound in log_mels for offset in passes
    ]
    embeddings = audio.new_zeros(len(audio), times, model.timestamp_embedding_size)
    for i, patches, _ in cover(encoder.backbone, shifted, (len(encoder.backbone.blocks),), OVERLAP):
        sound, offset = divmod(i, len(passes))
        embeddings[sound, offset :: patch // hop] = patches[0].mean(1)  # [time, D]
    # From whole samples, so that nothing adds up over long audio.
    samples = torch.arange(times, device=audio.device, dtype=torch.float64) * (hop * front_end.hop)
    timestamps = (1000 * samples / model.sample_rate).float()
    return embeddings, timestamps.repeat(len(audio), 1)


def hop_frames(patch: int, frame_hop: float) -> int:
    """Frames from one timestamp to the next: the most of at most 50 ms that divide a patch. frame_hop: ms."""
    return max(hop for hop in range(1, patch + 1) if patch % hop == 0 and (hop * frame_hop <= LONGEST_HOP or hop == 1))


def _centred_log_mels(encoder: Encoder, audio: Tensor, frames: int) -> Tensor:
    """Normalised log-mel [sounds, frames, M] whose first patch is centred at the first sample."""
    front_end = encoder.front_end
    half = ((encoder.config.model.patch[0] - 1) * front_end.hop + front_end.frame) // 2
    audio = audio - audio.mean(1, keepdim=True)  # else an offset would be a step at both ends
    right = (frames - 1) * front_end.hop + front_end.frame - half - audio.shape[1]
    return front_end.normalise(front_end(nn.functional.pad(audio, (half, max(0, right))))[:, :frames])
