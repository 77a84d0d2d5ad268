"""Encoders as folders and on the Hugging Face Hub, which is played by its own cache and by recorded calls."""

import errno
import http.server
import json
import shutil
import sys
import threading
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from asit_lab import Encoder, InputError, load_config, load_encoder
from asit_lab.encoder import open_encoder
from asit_lab.encoder.hub import fetch_file

RATE = 16000
REVISION = "0123456789abcdef0123456789abcdef01234567"


def made(*overrides: str, preset: str = "smoke") -> Encoder:
    """An encoder whose teacher is not its student."""
    cfg = load_config(preset, overrides)
    one, two = Encoder.random(cfg, 1), Encoder.random(cfg, 2)
    return Encoder(cfg, two.backbone, one.student, one.decoder, name="made here")


@pytest.fixture(scope="module")
def wave():
    return 0.1 * torch.randn(2, 2 * RATE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of an encoder with all parts. Read only."""
    folder = tmp_path_factory.mktemp("hub") / "saved"
    made().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """The same folder, to damage."""
    return shutil.copytree(saved, tmp_path / "copy")


# --- Folders --------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(saved, wave):
    enc = made()
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for loaded in (load_encoder(saved), load_encoder(str(saved)), Encoder.from_pretrained(saved), open_encoder(saved)):
        assert (loaded.name, loaded.config) == ("made here", enc.config)
        assert torch.equal(loaded.embed(wave, RATE, "mean+std"), enc.embed(wave, RATE, "mean+std"))
    assert torch.equal(loaded.reconstruct(wave, RATE).reconstructed, enc.reconstruct(wave, RATE).reconstructed)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert load_config(saved / "config.json") == enc.config


def test_every_kind_of_encoder(tmp_path, wave):
    asda = ["data.crop_seconds=1.0", "model={width: 48, depth: 2, heads: 3, attention: asda, norm: post}"]
    asda += ["asda.decoder_width=32", "asda.decoder_layers=2"]
    whole = made()
    kinds = {
        "asda": made(*asda, preset="micro-asda"),
        "teacher": Encoder(whole.config, whole.backbone, name="published"),
        "one": Encoder.random(whole.config, 3),  # its student is its backbone
        "undecided": made("objective.weights={global: 1.0}"),  # has no decoder
    }
    for kind, enc in kinds.items():
        enc.save_pretrained(tmp_path / kind)
        loaded = load_encoder(tmp_path / kind)
        assert torch.equal(loaded.embed(wave, RATE), enc.embed(wave, RATE)) and loaded.name == enc.name
        assert loaded.reconstructs == enc.reconstructs and (loaded.decoder is None) == (enc.decoder is None)
    error = kinds["asda"].prediction_error(wave, RATE)
    assert torch.equal(load_encoder(tmp_path / "asda").prediction_error(wave, RATE), error)
    image = kinds["one"].reconstruct(wave, RATE).reconstructed
    assert torch.equal(load_encoder(tmp_path / "one").reconstruct(wave, RATE).reconstructed, image)
    names = load_file(tmp_path / "one" / "model.safetensors")
    assert not any(name.startswith("student.") for name in names)  # once is enough


def test_the_model_card_says_how_to_load(saved):
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "library_name: asit_lab" in card and "# made here" in card
    assert 'load_encoder("FOLDER")' in card and "[batch, 48]" in card


@pytest.mark.parametrize("own", ["mine", "{}\nHeard at night.\n", "At night. {}"])
def test_saving_again_keeps_a_card_of_one_s_own_and_says_so(copy, wave, own):
    card = copy / "README.md"
    card.write_text(own.format(card.read_text()))
    before = card.read_text()
    other = Encoder.random(load_config("smoke"), 9)
    with pytest.warns(UserWarning, match=r"copy/README\.md: kept as it is; see that it is of random init \(seed 9\)"):
        other.save_pretrained(copy)
    assert card.read_text() == before
    assert torch.equal(load_encoder(copy).embed(wave, RATE), other.embed(wave, RATE))


def test_saving_again_replaces_a_card_nobody_wrote_in(copy, tmp_path):
    other = Encoder.random(load_config("smoke", ["model.width=96"]), 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # its own is known again too
            other.save_pretrained(copy)
    other.save_pretrained(tmp_path / "new")
    assert (copy / "README.md").read_text() == (tmp_path / "new" / "README.md").read_text()
    assert "# random init (seed 9)" in (copy / "README.md").read_text()


# --- Folders that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_is_missing(copy, name):
    (copy / name).unlink()
    for load in (load_encoder, Encoder.from_pretrained, open_encoder):
        with pytest.raises(InputError, match=f"copy: has no {name}; a saved encoder is a folder with"):
            load(copy)


def test_weights_of_another_architecture(copy):
    Encoder.random(load_config("smoke", ["model.width=96", "model.depth=1"]), 0).save_pretrained(copy / "other")
    (copy / "other" / "model.safetensors").replace(copy / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_encoder(copy)
    text = str(caught.value)
    assert "model.safetensors: weights of another architecture" in text and "\n" not in text
    assert "backbone.cls_token [1, 1, 96] instead of [1, 1, 48]" in text
    assert "missing: backbone.blocks.1.norm1.weight [48]" in text
    assert text.count("[") < 40  # not all of them


def test_weights_of_something_else(copy):
    save_file({"encoder.layer.0": torch.zeros(3, 2)}, copy / "model.safetensors")
    with pytest.raises(
        InputError, match=r"missing: backbone\.cls_token \[1, 1, 48\].*1 unknown: encoder\.layer\.0 \[3, 2\]"
    ):
        load_encoder(copy)
    (copy / "model.safetensors").write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(InputError, match=r"model\.safetensors: not a readable \.safetensors file"):
        load_encoder(copy)


def test_a_configuration_of_something_else(copy):
    config = json.loads((copy / "config.json").read_text())
    for text, message in {
        json.dumps({"architectures": ["BertModel"]}): "not a configuration of asit_lab: architectures: unknown key",
        json.dumps(config | {"model": config["model"] | {"width": "wide"}}): "model.width: 'wide' is not valid",
        json.dumps([1]): "not a configuration of asit_lab",
        "{": "not a configuration of asit_lab",
    }.items():
        (copy / "config.json").write_text(text)
        with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
            load_encoder(copy)


def test_a_snapshot_of_another_architecture(tmp_path):
    """The same sentence for a run's snapshots: here the header's configuration is not that of the weights."""
    from asit_lab.objectives import build_objective
    from asit_lab.runs.snapshot import save_snapshot

    objective = build_objective(load_config("smoke"), clips=10)
    wider = load_config("smoke", ["model.width=96"])
    save_snapshot(tmp_path / "step-1.safetensors", objective.student, objective.teacher, wider, 1)
    with pytest.raises(
        InputError, match=r"step-1\.safetensors, teacher\.backbone: .*: cls_token \[1, 1, 48\] instead of"
    ):
        load_encoder(tmp_path / "step-1.safetensors")


# --- The hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(saved, tmp_path, monkeypatch):
    """huggingface_hub without a network, and a cache that has the saved folder as me/tiny."""
    from huggingface_hub import constants

    repository = tmp_path / "cache" / "models--me--tiny"
    shutil.copytree(saved, repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_repository(offline, wave):
    wanted = made().embed(wave, RATE)
    for source in ("hf://me/tiny", f"hf://me/tiny@{REVISION}"):
        assert torch.equal(load_encoder(source).embed(wave, RATE), wanted)
    assert torch.equal(open_encoder("hf://me/tiny").embed(wave, RATE), wanted)
    found = Encoder.from_pretrained("me/tiny", revision="main", cache_dir=offline)
    assert torch.equal(found.embed(wave, RATE), wanted)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "export").mkdir()
    monkeypatch.setenv("ASIT_LAB_HOME", str(tmp_path))
    with pytest.raises(InputError, match="export/nope: no such folder; .* load_encoder takes hf://export/nope"):
        Encoder.from_pretrained("export/nope")


def test_a_repository_that_cannot_be_had(offline):
    for source in ("hf://me/nothing", "hf://me/tiny@v2", "hf://not/a/repository"):
        with pytest.raises(InputError, match=f"^{source.partition('@')[0]}: ") as caught:
            load_encoder(source)
        assert "\n" not in str(caught.value)
    (offline / "models--me--tiny" / "snapshots" / REVISION / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_encoder("hf://me/tiny")


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers everything with one status."""

    def do_GET(self):
        status, code = self.server.answer
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_CONNECT = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub_that_answers(tmp_path, monkeypatch):
    """Makes a Hub, or a proxy, on this machine that answers one status."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    servers = []

    def serving(status, code=""):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        server.answer = (status, code)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serving
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", "127.0.0.1 has no such repository, or it is private: check the name, or log in"),
        (401, "", "127.0.0.1 does not accept the login: log in by `hf auth login` or HF_TOKEN, or download"),
        (403, "GatedRepo", "access is restricted: accept the terms at https://127.0.0.1/me/tiny and log in"),
    ],
)
def test_a_hub_that_refuses_says_what_to_do(hub_that_answers, monkeypatch, status, code, words):
    from huggingface_hub import constants, hf_api

    address = hub_that_answers(status, code)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(InputError) as caught:
        load_encoder("hf://me/tiny")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("ConnectError", "[Errno -2] Name or service not known", "huggingface.co cannot be reached, or the connection"),
        ("ConnectError", "[SSL: CERTIFICATE_VERIFY_FAILED] unable to get", "set SSL_CERT_FILE to its own, or download"),
        (
            "ProxyError",
            "407 Proxy Authentication Required",
            "the proxy does not let huggingface.co through; check HTTPS",
        ),
        (
            "ConnectError",
            "[Errno 111] Connection refused: http://127.0.0.1:40740/",
            "cannot be reached, or the connection",
        ),
        ("ReadTimeout", "timed out", "huggingface.co does not answer in time; check the network and HTTPS_PROXY"),
        ("RemoteProtocolError", "peer closed connection", "or the connection broke off; check the network"),
        ("OSError", "", "the disk is full ("),
    ],
)
def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch, kind, text, words):
    import huggingface_hub
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    network = sys.modules[HTTPError.__module__.partition(".")[0]]
    cause = OSError(errno.ENOSPC, "No space left on device") if kind == "OSError" else getattr(network, kind)(text)

    def fail(*arguments, **options):
        raise LocalEntryNotFoundError("An error happened while trying to locate the files") from cause

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(InputError) as caught:
        fetch_file("me/tiny", "model.safetensors")
    assert str(caught.value).startswith("hf://me/tiny: ") and words in str(caught.value)
    assert "locate the files" not in str(caught.value) and "\n" not in str(caught.value)


def test_push(saved, monkeypatch):
    from types import SimpleNamespace

    from huggingface_hub import HfApi

    calls, files = [], {}

    def create_repo(self, repo_id, **options):
        calls.append((repo_id, options["private"]))
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, commit_message, **_):
        files.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
        return f"commit of {repo_id}: {commit_message}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    address = made().push_to_hub("me/tiny", private=True, commit_message="first")
    assert address == "commit of me/tiny: first" and calls == [("me/tiny", True)]
    assert files["model.safetensors"] == (saved / "model.safetensors").read_bytes()
    assert files["config.json"] == (saved / "config.json").read_bytes()
    assert b'load_encoder("hf://me/tiny")' in files["README.md"]

    def refused(self, repo_id, **options):
        raise PermissionError("401 no token\nand more")

    monkeypatch.setattr(HfApi, "create_repo", refused)
    login = "huggingface.co does not accept the login: log in by `hf auth login` or HF_TOKEN, or save it by"
    with pytest.raises(InputError, match=rf"^hf://me/tiny: {login} [a-z_ ]+ \(PermissionError\)$"):
        made().push_to_hub("me/tiny")


def test_without_huggingface_hub(saved, wave, monkeypatch):
    """Folders can be read; what needs it says so."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    enc = load_encoder(saved)
    assert torch.equal(enc.embed(wave, RATE), made().embed(wave, RATE))
    for call in (
        lambda: load_encoder("hf://me/tiny"),
        lambda: enc.push_to_hub("me/tiny"),
        lambda: enc.save_pretrained("x"),
    ):
        with pytest.raises(InputError, match="needs huggingface_hub: pip install huggingface-hub"):
            call()


def test_a_saved_encoder_keeps_whether_it_was_pretrained(tmp_path, smoke_run):
    untrained, pretrained = Encoder.random(load_config("smoke"), 1), load_encoder(smoke_run.dir)
    for enc, flag in ((untrained, False), (open_encoder("smoke"), False), (pretrained, True)):
        enc.save_pretrained(tmp_path / "saved")
        assert enc.pretrained is flag and load_encoder(tmp_path / "saved").pretrained is flag


def test_a_folder_without_the_flag_goes_by_its_name(copy):
    tensors = load_file(copy / "model.safetensors")
    for name, flag in {"micro, step 9": True, "smoke, untrained": False, "random init (seed 1)": False}.items():
        save_file(tensors, copy / "model.safetensors", metadata={"asit_lab": json.dumps({"name": name})})
        assert load_encoder(copy).pretrained is flag
