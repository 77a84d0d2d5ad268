"""Our encoder, found and checked by X-ARES itself: `make xares`."""

from xares.audio_encoder_checker import check_audio_encoder
from xares.utils import attr_from_py_path

encoder = attr_from_py_path("asit_lab/encoder/xares.py", endswith="Encoder")()
assert check_audio_encoder(encoder)
print(
    f"X-ARES accepts {type(encoder).__name__}: {encoder.output_dim} numbers every {encoder.hop_size_in_ms:g} ms "
    f"of audio at {encoder.sampling_rate} Hz"
)
