"""A small ASDA for the tests: its configuration."""

from asit_lab.config import load_config

CLONES, PATCHES = 3, 32
SMALL = [
    "features.sample_rate=8000",
    "features.mel_bins=32",
    "data.crop_seconds=0.67",
    "model.patch=[8, 8]",
    "model.width=24",
    "model.depth=3",
    "model.heads=2",
    f"asda.clones={CLONES}",
    "asda.block=2",
    "asda.decoder_width=24",
    "asda.decoder_layers=2",
    "asda.decoder_groups=4",
    "train.batch_size=8",
]


def config(*overrides: str):
    """A model of a few thousand weights on 64 frames x 32 mel bands: 8 x 4 patches, 6 of them visible."""
    return load_config("micro-asda", [*SMALL, *overrides])


def weights(frame: float, utterance: float) -> str:
    return f"asda.weights={{frame: {frame}, utterance: {utterance}}}"
