"""X-ARES's encoder interface. Its public validator runs in an environment of its own: `make xares`."""

import numpy as np
import pytest
import torch

from asit_lab import Encoder, InputError, load_config
from asit_lab.encoder import hear, xares

RATE = 16000


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    Encoder.random(load_config("smoke"), 1).save_pretrained(folder)
    return folder


def test_the_module_has_what_x_ares_looks_for(saved, monkeypatch):
    """Its runner takes the one name that ends in Encoder, and calls it without arguments."""
    assert [name for name in dir(xares) if name.endswith("Encoder")] == ["XaresEncoder"]
    monkeypatch.setenv("ASIT_LAB_XARES", str(saved))
    made = xares.XaresEncoder()
    assert isinstance(made, torch.nn.Module) and (made.sampling_rate, made.output_dim) == (RATE, 48)
    assert made.hop_size_in_ms == 40
    with pytest.raises(InputError, match="no such run directory or snapshot"):
        xares.XaresEncoder("nothing")


@pytest.mark.parametrize("samples", [8000, 50000])
def test_embeddings_are_those_of_hear_one_a_hop(saved, samples):
    made = xares.XaresEncoder(str(saved))
    audio = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32))
    embeddings = made(audio)
    assert embeddings.shape == (2, 1000 * samples // RATE // 40 + 1, 48) and embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, hear.get_timestamp_embeddings(audio, made.hear)[0])
    torch.testing.assert_close(made(audio[0]), embeddings[:1])
