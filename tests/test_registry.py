"""Parts that a configuration names: built in, an installed package's, or in a file of the user's own."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest
import torch

import asit_lab
from asit_lab import load_config, registry
from asit_lab.data import load_manifest
from asit_lab.errors import InputError
from asit_lab.nn import build_attention
from asit_lab.objectives import ASDA, ASiT, build_network, build_objective, criteria, masks_as_configured

OBJECTIVE = """
from asit_lab.objectives import BaseObjective, Losses

class Loudness(BaseObjective):
    '''Predicts the mean level of a clip from its class token.'''

    def forward(self, batch, step):
        clean = self.log_mel(batch)[0]
        tokens = self.student.backbone(clean)
        error = tokens[:, 0].mean(1) - clean.mean((1, 2)) * self.cfg.objective.options["scale"]
        return Losses(error.square().mean(), {"level": error.square().mean()})

class Half:
    views = 1
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OBJECTIVE)
    return path


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Registers parts as an installed package would: installed("objectives", loud="module:Class")."""
    monkeypatch.syspath_prepend(tmp_path)
    listed: dict[str, list[EntryPoint]] = {}

    def register(kind: str, **parts: str) -> None:
        group = f"asit_lab.{kind}"
        listed.setdefault(group, []).extend(EntryPoint(name, value, group) for name, value in parts.items())

    monkeypatch.setattr(registry, "entry_points", lambda group: listed.get(group, []))
    return register


def own(file, *overrides):
    return load_config("smoke", [f"objective.name={file}:Loudness", "objective.options.scale=0.5", *overrides])


# --- Names ----------------------------------------------------------------------------------------------------------


def test_built_in_names_are_valid_and_lead_to_their_classes():
    assert registry.load_part("objectives", "asit", "objective.name") is ASiT
    assert registry.load_part("objectives", "asda", "objective.name") is ASDA
    for kind in registry.names("attention"):
        assert load_config("smoke", [f"model.attention={kind}"]).model.attention == kind


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.name=asti", r"^objective\.name: 'asti' is not valid: did you mean asit\?"),
        ("objective.name=byol", r"objective\.name: 'byol' is not valid: valid: asit, asda.*path/to/file\.py:Name"),
        ("objective.name=loss.py", r"objective\.name: 'loss\.py' is not valid: expected path/to/file\.py:Name"),
        ("objective.name=loss.py:a-b", "expected path/to/file"),
        ("model.attention=softmx", r"model\.attention: 'softmx' is not valid: did you mean softmax\?"),
        ("model.attention=3", r"model\.attention: 3 is not valid"),
    ],
)
def test_a_wrong_name_is_answered_when_the_configuration_is_read(override, message):
    with pytest.raises(InputError, match=message):
        load_config("smoke", [override])


def test_a_file_is_named_by_its_absolute_path(file, monkeypatch):
    monkeypatch.setenv("ASIT_LAB_HOME", str(file.parent))
    cfg = load_config("smoke", ["objective.name=mine.py:Loudness"])
    assert cfg.objective.name == f"{file}:Loudness"
    assert load_config("smoke", {"objective.name": cfg.objective.name}) == cfg


def test_reading_a_configuration_executes_nothing(tmp_path):
    file = tmp_path / "trap.py"
    file.write_text("raise SystemExit('executed')")
    cfg = load_config("smoke", [f"objective.name={file}:Loss"])
    network = build_network(cfg)  # what an encoder needs
    assert network.decoder is None
    assert torch.equal(network.backbone.pos_embed, build_network(load_config("smoke")).backbone.pos_embed)


# --- Files of the user's own ----------------------------------------------------------------------------------------


def test_an_objective_in_a_file_is_trained_and_probed(file, tmp_path):
    cfg = own(file, "train.steps=3", "train.log_every=1")
    run = asit_lab.pretrain(cfg, tmp_path / "run")
    assert run.status == "finished" and {"loss_level", "momentum"} <= set(run.metrics.columns)
    encoder = asit_lab.load_encoder(run)
    assert encoder.decoder is None
    untrained = asit_lab.Encoder.random(cfg)
    pairs = zip(encoder.backbone.parameters(), untrained.backbone.parameters(), strict=True)
    assert any(not torch.equal(trained, start) for trained, start in pairs)
    assert len(asit_lab.probe(encoder, "synth:40", protocol="knn").table) > 0


def test_weights_that_the_users_code_draws_depend_on_the_seed_alone(file):
    file.write_text(
        file.read_text()
        + dedent("""
        import torch
        class WithHead(Loudness):
            def __init__(self, cfg, clips):
                super().__init__(cfg, clips)
                self.head = torch.nn.Linear(4, 4)
        """)
    )
    cfg = own(file, f"objective.name={file}:WithHead")
    first, again = build_objective(cfg, 10), build_objective(cfg, 10)
    other = build_objective(cfg.with_overrides(["train.seed=1"]), 10)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    trained = {id(parameter) for group in first.param_groups() for parameter in group["params"]}
    assert id(first.head.weight) in trained
    assert not trained & {id(parameter) for parameter in first.teacher.parameters()}


def test_a_changed_file_is_executed_anew(file):
    before = registry.load_part("objectives", f"{file}:Loudness", "objective.name")
    assert registry.load_part("objectives", f"{file}:Loudness", "objective.name") is before
    file.write_text(OBJECTIVE.replace("views = 1", "views = 2"))
    os.utime(file, ns=(1, 1))  # a clock too coarse to see the change would not be the file's fault
    assert registry.load_part("objectives", f"{file}:Half", "objective.name").views == 2


def test_a_file_may_import_files_beside_it(tmp_path):
    (tmp_path / "beside_mine.py").write_text("NUMBER = 7")
    (tmp_path / "main_part.py").write_text("from beside_mine import NUMBER\nclass Part:\n    number = NUMBER")
    assert registry.load_part("objectives", f"{tmp_path / 'main_part.py'}:Part", "objective.name").number == 7
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("content", "part", "message"),
    [
        (None, "Loss", r"^objective\.name: '.*gone\.py:Loss': there is no file .*gone\.py$"),
        ("class Loss: pass", "Los", r"does not define Los; did you mean Loss\?"),
        ("import no_such_module", "Loss", r"cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("class Loss(", "Loss", r"cannot be imported: SyntaxError"),
        ("class Loss:\n    views = 1", "Loss", r"'.*:Loss' has no reset_teacher, forward, param_groups"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_message(tmp_path, content, part, message):
    file = tmp_path / "gone.py"
    if content is not None:
        file.write_text(content)
    cfg = load_config("smoke", [f"objective.name={file}:{part}"])
    with pytest.raises(InputError, match=message):
        build_objective(cfg, 10)


def test_no_collapse_is_looked_for_without_criteria(file):
    assert criteria(own(file)) == []


def test_attention_in_a_file(tmp_path):
    file = tmp_path / "attention.py"
    file.write_text("from asit_lab.nn.attention import SoftmaxAttention\nclass Mine(SoftmaxAttention): pass")
    module = build_attention(f"{file}:Mine", 24, 3)
    assert type(module).__name__ == "Mine"
    cfg = load_config("smoke", [f"model.attention={file}:Mine"])
    network = build_network(cfg)
    assert all(type(block.attn).__name__ == "Mine" for block in network.backbone.blocks)


def test_a_data_source_in_a_file(tmp_path):
    file = tmp_path / "sets.py"
    file.write_text(
        dedent("""
        from asit_lab.data import Clip, Listing

        def tones(argument):
            return Listing([Clip(f"synth://{i}/0", label=argument or "tone") for i in range(4)], notes=["a note"])

        def nothing(argument):
            return []
        """)
    )
    manifest = load_manifest(f"{file}:tones:loud")
    assert len(manifest) == 4 and manifest.classes == ["loud"] and manifest.name == "tones"
    assert manifest.notes == ["a note"]
    assert load_manifest(f"{file}:tones").classes == ["tone"]
    with pytest.raises(InputError, match=r"expected a Listing, or a list of at least one Clip"):
        load_manifest(f"{file}:nothing")
    with pytest.raises(InputError, match=r"data\.source: .*does not define tone; did you mean tones\?"):
        load_manifest(f"{file}:tone")


def test_the_decoder_of_an_objective_built_on_asit_is_read_back(tmp_path):
    file = tmp_path / "built_on.py"
    file.write_text("from asit_lab.objectives import ASDA, ASiT\nclass A(ASiT): pass\nclass D(ASDA): pass")
    small = ["asda.decoder_width=48", "asda.decoder_layers=1", "asda.clones=2"]
    for part, built_in in (("A", "asit"), ("D", "asda")):
        cfg = load_config("smoke", [f"objective.name={file}:{part}", *small])
        plain = build_network(cfg.with_overrides([f"objective.name={built_in}"]))
        read = build_network(cfg, decoder=plain.decoder.state_dict())
        assert type(read.decoder) is type(plain.decoder)
        assert all(torch.equal(a, b) for a, b in zip(read.parameters(), plain.parameters(), strict=True))
    assert build_network(cfg, decoder=["mine.weight"]).decoder is None


def test_a_download_executes_no_file(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from asit_lab.encoder import hub
    from asit_lab.runs.encoder_folder import SavedEncoder

    saved = SavedEncoder({}, load_config("smoke", [f"model.attention={tmp_path}/trap.py:Trap"]), "trap", True)
    downloaded = SimpleNamespace(from_pretrained=lambda repo_id, **_: SimpleNamespace(saved=saved))
    monkeypatch.setattr(hub, "_folder_class", lambda: downloaded)
    with pytest.raises(InputError, match=r"hf://someone/trap: .*model\.attention=.*trap\.py:Trap, which is not"):
        asit_lab.load_encoder("hf://someone/trap")


# --- Installed packages ---------------------------------------------------------------------------------------------


def test_entry_points_are_names_like_those_built_in(installed, file):
    installed("objectives", loudness="mine:Loudness", broken="mine:Missing")
    installed("attention", again="asit_lab.nn.attention:SoftmaxAttention")
    cfg = own(file, "objective.name=loudness", "model.attention=again")
    assert type(build_objective(cfg, 10)).__name__ == "Loudness"
    with pytest.raises(InputError, match=r"did you mean loudness\?"):
        load_config("smoke", ["objective.name=loudnes"])
    with pytest.raises(InputError, match=r"objective\.name: 'broken' of an installed package cannot be imported"):
        build_objective(cfg.with_overrides(["objective.name=broken"]), 10)


def test_entry_points_of_sources_are_listed_with_the_others(installed, tmp_path):
    (tmp_path / "birds_set.py").write_text(
        "from asit_lab.data import Clip\ndef birds(argument):\n    return [Clip('synth://1/0'), Clip('synth://2/0')]"
    )
    installed("sources", birds="birds_set:birds")
    assert len(load_manifest("birds")) == 2
    with pytest.raises(InputError, match=r"Valid: .*birds\[:PATH\]"):
        load_manifest("nobody")


@pytest.mark.slow
def test_the_shell_takes_a_file(file, tmp_path):
    command = [Path(sys.executable).parent / "asit-lab", "pretrain", "--preset", "smoke", "--out", tmp_path / "run"]
    settings = [f"objective.name={file}:Loudness", "objective.options.scale=0.5", "train.steps=2"]
    command += [word for setting in settings for word in ("-s", setting)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert asit_lab.load_encoder(tmp_path / "run").config.objective.options == {"scale": 0.5}


def test_an_objective_with_masks_of_its_own_is_told_apart(tmp_path):
    (tmp_path / "own_masks.py").write_text(
        "from asit_lab.objectives import ASDA, ASiT\n\n\n"
        "class Stripes(ASiT):\n    def corrupt(self, clean, position, step):\n        return clean, None\n\n\n"
        "class Loss(ASiT):\n    pass\n\n\nclass Frames(ASDA):\n    pass\n"
    )

    def as_configured(name: str) -> bool:
        return masks_as_configured(load_config("smoke", [f"objective.name={name}"]))

    assert as_configured("asit") and as_configured(f"{tmp_path}/own_masks.py:Loss")
    assert as_configured(f"{tmp_path}/own_masks.py:Frames")
    assert not as_configured(f"{tmp_path}/own_masks.py:Stripes")
    assert masks_as_configured(load_config("micro-asda"))
