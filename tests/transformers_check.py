"""Folders for transformers, in an environment that has transformers and not this package: `make transformers`.

python tests/transformers_check.py write FOLDER     # with this package: models, and what they give
python tests/transformers_check.py check FOLDER     # with transformers: the same from AutoModel
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

RATE = 16000


def waves() -> list[np.ndarray]:
    """Noise that gets louder, of three lengths: shorter than a window, two equal ones, and longer."""
    noise = np.random.default_rng(0)
    return [
        (0.2 * noise.standard_normal(length) * np.linspace(0.01, 1, length)).astype(np.float32)
        for length in (9000, 30000, 30000, 81000)
    ]


def write(folder: Path) -> None:
    from test_export_model import encoder, probe, tuned

    from asit_lab.finetuning import Classifier, export_model

    asda = ("model.attention=asda", "model.norm=post", "model.positions=fixed", "model.class_token_at=1")
    models = {
        "softmax": encoder(),
        "asda": encoder(*asda),
        "learned": encoder("model.attention=learned", "model.patch=[16,16]"),
        "probe": probe(),
        "probe of several": probe(multi=True),
        "tuned": tuned(),
    }
    for name, model in models.items():
        done = export_model(model, folder / name, "transformers", pool="mean+std")
        if isinstance(model, Classifier):
            expected = {"scores": model.scores(waves(), RATE)}
        else:
            tokens = [model.tokens(wave, RATE).flatten(1, 2)[0].numpy() for wave in waves()]
            expected = {f"tokens {i}": part for i, part in enumerate(tokens)}
            expected["embeddings"] = model.embed(waves(), RATE, "mean+std").numpy()
        np.savez(folder / f"{name}.npz", **expected)
        print(f"{name}: written, differs by {done.difference:.1g}")


def check(folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

    assert find_spec("asit_lab") is None, "this environment has asit_lab, which the folders are to do without"
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for path in sorted(folder.glob("*.npz")):
        source, expected = str(path.with_suffix("")), np.load(path)
        extractor = AutoFeatureExtractor.from_pretrained(source, trust_remote_code=True)
        inputs = extractor(waves(), sampling_rate=RATE, return_tensors="pt")
        assert inputs["input_values"].shape == (4, 81000) and inputs["attention_mask"].sum(1)[0] == 9000
        assert extractor(waves()[0], sampling_rate=RATE, return_tensors="pt")["input_values"].shape == (1, 9000)
        try:
            extractor(waves(), sampling_rate=44100)
        except ValueError as error:
            assert "resample to 16000 Hz" in str(error)
        else:
            raise AssertionError("another rate was taken")
        model = AutoModel.from_pretrained(source, trust_remote_code=True).eval()
        with torch.no_grad():
            output = model(**inputs, output_hidden_states=True)
        if "scores" in expected:
            _check_scores(model, output, expected["scores"])
            named = AutoModelForAudioClassification.from_pretrained(source, trust_remote_code=True)
            assert type(named).__name__ == type(model).__name__ and named.config.id2label[1] == "siren"
        else:
            _check_tokens(model, output, expected)
        again = folder / f"saved {path.stem}"
        model.save_pretrained(again)
        names = {"config.json", "model.safetensors", "modeling_asit_lab.py", "network_asit_lab.py"}
        assert names <= {file.name for file in again.iterdir()}
        assert json.loads((again / "config.json").read_text())["hidden_size"] == 48
        loss = model(**inputs)[0].float().square().mean()
        loss.backward()
        assert model.network.backbone.patch_embed["proj"].weight.grad.abs().max() > 0
        print(f"{path.stem}: AutoModel and AutoFeatureExtractor give what asit_lab gives")


def _check_scores(model, output, expected: np.ndarray) -> None:
    multi = model.config.problem_type == "multi_label_classification"
    scores = output.logits.sigmoid() if multi else output.logits.softmax(1)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def _check_tokens(model, output, expected) -> None:
    np.testing.assert_allclose(output.pooler_output, expected["embeddings"], rtol=1e-3, atol=1e-4)
    for i in range(4):
        tokens = expected[f"tokens {i}"]
        np.testing.assert_allclose(output.last_hidden_state[i, 1 : 1 + len(tokens)], tokens, rtol=1e-3, atol=1e-4)
        assert (output.last_hidden_state[i, 1 + len(tokens) :] == 0).all()
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
