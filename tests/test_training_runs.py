"""Small runs of ASiT itself: reproducible to the bit, resumable to the bit, in every arrangement of the losses."""

import json
from itertools import combinations

import pytest
import torch
from children import ctrl_c_in_row

import asit_lab
from asit_lab import arithmetic, load_config
from asit_lab.encoder import load_encoder
from asit_lab.objectives.asit import ASiT
from asit_lab.runs.snapshot import read_snapshot, read_state
from asit_lab.training import recorder

# No pictures: they take longer than the training here. What does no harm to see is on: drop path, shifts, every kind.
SMALL = ["data.source=synth:20", "features.sample_rate=8000", "data.crop_seconds=0.5", "train.snapshots=1"]
RICH = [
    "model.drop_path=0.3",
    "data.circular_shift=0.5",
    "mask.kinds={zeros: 1, noise: 1, alien: 1, time: 1, frequency: 1, none: 1}",
]


@pytest.fixture(autouse=True)
def no_pictures(smoke_run, monkeypatch):  # `smoke_run` is made before, with its pictures
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)


def pretrain(out, *overrides: str, **options):
    return asit_lab.pretrain(load_config("smoke", [*SMALL, *overrides]), out, **options)


def measured(run) -> list[str]:
    """metrics.csv line by line."""
    return (run.dir / "metrics.csv").read_text().splitlines()


def weights(run) -> dict[str, torch.Tensor]:
    return read_snapshot(run.snapshots[-1])[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)


def same_snapshots(a, b) -> bool:
    """Whether two runs kept the same snapshots, tensors and headers (whose order in the file is arbitrary)."""
    pairs = [(read_snapshot(x), read_snapshot(y)) for x, y in zip(a.snapshots, b.snapshots, strict=True)]
    return all(same(x[0], y[0]) and x[1:] == y[1:] for x, y in pairs)


# --- A run ----------------------------------------------------------------------------------------------------------


def test_a_smoke_run_leaves_everything(smoke_run):
    names = {str(path.relative_to(smoke_run.dir)) for path in smoke_run.dir.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        ".lock",
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "result.json",
        "samples/step-3.png",
        "samples/step-6.png",
        "snapshots/step-3.safetensors",
        "snapshots/step-6.safetensors",
        "state.pt",
        "status.json",
        "timings.csv",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000 for path in smoke_run.samples)
    metrics = smoke_run.metrics
    assert metrics["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert metrics.notna().all().all() and (metrics.abs() < 1e9).all().all()
    weights = smoke_run.config.objective.weights
    weighted = sum(weight * metrics[f"loss_{name}"] for name, weight in weights.items()) / sum(weights.values())
    assert metrics["loss"].tolist() == pytest.approx(weighted.tolist(), rel=1e-5)
    assert {"rate", "weight_decay", "momentum", "teacher_temperature", "entropy_local", "centre_global"} <= set(metrics)
    assert smoke_run.status == "finished" and smoke_run.result["bad_files"] == 0
    assert smoke_run.result["backbone_parameters"] < smoke_run.result["parameters"]
    assert json.loads((smoke_run.dir / "environment.json").read_text())["torch"] == torch.__version__
    assert load_config(smoke_run.dir) == load_config("smoke")


def test_same_seed_same_bytes_other_seed_not(tmp_path):
    a, b, other = (pretrain(tmp_path / n, *RICH, f"train.seed={s}") for n, s in (("a", 1), ("b", 1), ("other", 2)))
    assert measured(a) == measured(b)
    assert same_snapshots(a, b)
    assert not set(measured(a)[1:]) & set(measured(other)[1:])
    different = [name for name, tensor in weights(a).items() if not torch.equal(tensor, weights(other)[name])]
    assert "teacher.backbone.blocks.0.attn.qkv.weight" in different and "student.decoder.mlp.0.weight" in different


def test_a_frozen_backbone_keeps_its_start_weights(tmp_path):
    start = pretrain(tmp_path / "start", *RICH, "train.steps=2")
    options = ("objective.weights={reconstruction: 1}", f"train.init_from={start.dir}", "train.freeze_backbone=true")
    before, after = weights(start), weights(pretrain(tmp_path / "frozen", *RICH, *options, "train.steps=3"))
    for name in (name for name in after if "backbone" in name):
        assert torch.equal(after[name], before[name.replace("student.", "teacher.")]), name
    for name in (name for name in after if "decoder" in name):
        assert not torch.equal(after[name], before[name]), name


def test_loader_processes_change_nothing(tmp_path):
    none, two = (pretrain(tmp_path / str(n), *RICH, f"data.workers={n}") for n in (0, 2))
    assert measured(none) == measured(two) and same(weights(none), weights(two))


def test_the_global_generator_changes_nothing(tmp_path):
    torch.manual_seed(1)
    a = pretrain(tmp_path / "a", *RICH, "train.steps=2")
    torch.manual_seed(2)
    torch.rand(7)
    before = torch.get_rng_state()
    b = pretrain(tmp_path / "b", *RICH, "train.steps=2")
    assert measured(a) == measured(b) and same(weights(a), weights(b))
    assert torch.equal(torch.get_rng_state(), before)  # nor does a run draw from it


# --- Going on -------------------------------------------------------------------------------------------------------

ARRANGEMENTS = {
    "as it is": [],
    "bf16": ["train.precision=bf16"],
    "in parts": ["train.accumulate=2", "train.batch_size=16"],
    "learned weights": ["objective.combine=uncertainty"],
    "loader processes": ["data.workers=1"],
}


@pytest.mark.parametrize(
    "arrangement",
    [pytest.param(name, marks=() if name in ("as it is", "in parts") else pytest.mark.slow) for name in ARRANGEMENTS],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, arrangement):
    overrides = [*RICH, *ARRANGEMENTS[arrangement], "train.steps=8", "train.snapshots=2"]
    whole = pretrain(tmp_path / "whole", *overrides)

    with ctrl_c_in_row(4):  # rows 3 and 4 are past the state saved after step 2
        assert pretrain(tmp_path / "parts", *overrides).status == "interrupted"
    assert len(asit_lab.load_run(tmp_path / "parts").metrics) == 5
    parts = pretrain(tmp_path / "parts", *overrides, resume="must")
    assert parts.status == "finished"
    assert measured(parts) == measured(whole)
    assert len(parts.snapshots) == 2 and same_snapshots(parts, whole)
    assert parts.result == whole.result


def test_a_run_stopped_before_its_first_state_begins_again(tmp_path):
    whole = pretrain(tmp_path / "whole")
    with ctrl_c_in_row(1):
        assert not pretrain(tmp_path / "parts").state.exists()
    parts = pretrain(tmp_path / "parts")
    assert measured(parts) == measured(whole) and same(weights(parts), weights(whole))


def test_a_finished_run_is_given_back_as_it_is(tmp_path, monkeypatch):
    run = pretrain(tmp_path / "run", "train.steps=2")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.dir.rglob("*") if path.is_file()}
    monkeypatch.setattr("asit_lab.training.pretrain.load_manifest", None)  # not even the data is looked at
    again = pretrain(tmp_path / "run", "train.steps=2")
    assert again.status == "finished" and again.result == run.result
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.dir.rglob("*") if path.is_file()
    }
    with pytest.raises(asit_lab.InputError, match="already holds a run"):
        pretrain(tmp_path / "run", "train.steps=2", resume="never")
    with pytest.raises(asit_lab.InputError, match=r"train\.steps: 2 there, 3 requested"):
        pretrain(tmp_path / "run", "train.steps=3")


# --- Arrangements of the losses, the corruption, the arithmetic -----------------------------------------------------

LOSSES = ("reconstruction", "local", "global")


@pytest.mark.parametrize("active", [on for count in (1, 2, 3) for on in combinations(LOSSES, count)], ids="+".join)
def test_losses_that_are_off_leave_no_trace(tmp_path, active):
    weights_ = ", ".join(f"{name}: {int(name in active)}" for name in LOSSES)
    run = pretrain(tmp_path / "run", f"objective.weights={{{weights_}}}", "train.steps=2")
    columns = set(run.metrics.columns)
    assert {f"loss_{name}" for name in LOSSES} & columns == {f"loss_{name}" for name in active}
    assert {f"centre_{name}" for name in LOSSES} & columns == {f"centre_{name}" for name in active if name != LOSSES[0]}
    assert run.metrics.notna().all().all()
    saved = weights(run)
    assert any(name.startswith("student.decoder.") for name in saved) == ("reconstruction" in active)
    assert (load_encoder(run.dir).decoder is not None) == ("reconstruction" in active)
    assert not torch.equal(saved["student.backbone.norm.weight"], torch.ones(48))  # something was learned


@pytest.mark.parametrize("kind", ["zeros", "noise", "alien", "time", "frequency", "none"])
def test_every_kind_of_corruption(tmp_path, kind):
    rest = ["objective.reconstruct=all", "objective.local_tokens=all"] if kind == "none" else []
    run = pretrain(tmp_path / "run", f"mask.kinds={{{kind}: 1}}", "train.steps=2", *rest)
    assert run.status == "finished" and run.metrics.notna().all().all()


def test_learned_weights_are_learned(tmp_path):
    run = pretrain(tmp_path / "run", "objective.combine=uncertainty", "optim.rate=0.1")
    learned = run.metrics[[f"log_variance_{name}" for name in LOSSES]]
    assert (learned.iloc[0] == 0).all()  # health is read after a first step at rate 0
    assert (learned.iloc[-1] != 0).all()
    first = run.metrics.iloc[0]
    assert first["loss"] == pytest.approx(sum(first[f"loss_{name}"] for name in LOSSES), rel=1e-5)


@pytest.fixture
def dtypes(monkeypatch):
    """What the parts of a step compute in: {"waves", "features", "blocks", "reconstruction", ...}."""
    seen: dict[str, set] = {}

    def note(name, tensor):
        seen.setdefault(name, set()).add(tensor.dtype)

    log_mel, losses = ASiT.log_mel, ASiT.losses

    def watched_log_mel(self, batch):
        result = log_mel(self, batch)
        note("waves", batch.waves)
        note("features", result)
        return result

    def watched_losses(self, *arguments):
        handle = self.student.backbone.blocks[0].mlp.fc1.register_forward_hook(lambda _m, _i, out: note("blocks", out))
        result = losses(self, *arguments)
        handle.remove()
        note("total", result.total)
        for name, loss in result.parts.items():
            note(name, loss)
        return result

    monkeypatch.setattr(ASiT, "log_mel", watched_log_mel)
    monkeypatch.setattr(ASiT, "losses", watched_losses)
    return seen


@pytest.mark.parametrize(
    "precision, units, inner",
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_bf16_is_the_model_s_arithmetic_alone(tmp_path, dtypes, monkeypatch, precision, units, inner):
    monkeypatch.setattr(arithmetic, "has_bf16", lambda device: units)
    run = pretrain(tmp_path / "run", f"train.precision={precision}")
    noted = [note for note in run.progress["notes"] if "bf16" in note]
    assert len(noted) == (precision == "bf16")  # and no units for it
    assert dtypes.pop("blocks") == {inner}
    assert dtypes == {name: {torch.float32} for name in ("waves", "features", "total", *LOSSES)}
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}


def test_bf16_stays_near_fp32(tmp_path):
    full, half = (pretrain(tmp_path / p, f"train.precision={p}").metrics for p in ("fp32", "bf16"))
    assert (full["loss_local"] != half["loss_local"]).all()  # it is another arithmetic,
    for name in LOSSES:  # but eight bits are enough
        assert half[f"loss_{name}"].tolist() == pytest.approx(full[f"loss_{name}"].tolist(), rel=0.02)


def test_parts_of_a_batch_make_the_same_step(tmp_path):
    """With losses that count every pixel and token, a batch in two parts is the batch: gradients are means."""
    every = ["objective.reconstruct=all", "objective.local_tokens=all", "train.batch_size=16", "train.steps=4"]
    whole, parts = (pretrain(tmp_path / str(n), *RICH, *every, f"train.accumulate={n}") for n in (1, 2))
    names = ["loss", *(f"loss_{name}" for name in LOSSES), "gradient_norm", "centre_local", "centre_global"]
    for name in names:
        assert parts.metrics[name].tolist() == pytest.approx(whole.metrics[name].tolist(), rel=1e-4)


def test_parts_that_do_not_divide(tmp_path):
    with pytest.raises(asit_lab.InputError, match=r"train\.accumulate: 3 does not divide train\.batch_size 8"):
        load_config("smoke", ["train.accumulate=3"])
    # Clips lend each other blocks in groups, which are as large as a part at most.
    assert pretrain(tmp_path / "run", "train.accumulate=2", "mask.kinds={alien: 1}").status == "finished"


# --- Start weights --------------------------------------------------------------------------------------------------


def test_start_weights_of_a_run(tmp_path):
    first = pretrain(tmp_path / "first", "optim.rate=0.01")
    # A first step of a warm-up has rate 0, so what a run of one step begins with is what it ends with.
    start = ["train.seed=5", "train.steps=1", "optim.warmup=1"]
    second = pretrain(tmp_path / "second", f"train.init_from={first.dir}", *start)
    there, here = weights(first), weights(second)
    for name, tensor in here.items():
        if name.startswith("objective."):  # centres begin anew
            continue
        source = name.replace("student.backbone", "teacher.backbone")
        torch.testing.assert_close(tensor, there[source], rtol=0, atol=1e-6)
    assert not torch.equal(there["teacher.backbone.norm.weight"], there["student.backbone.norm.weight"])
    one = pretrain(tmp_path / "one", f"train.init_from={first.snapshots[-1]}", *start)
    backbones = [{n: t for n, t in found.items() if not n.startswith("objective.")} for found in (weights(one), here)]
    assert same(*backbones)  # one snapshot is as good as its run, but for the heads
    assert "heads start untrained: only a run directory has trained ones" in one.progress["notes"]
    assert "heads taken over: local_mlp, global_mlp, cls_layer, data_layer" in second.progress["notes"]
    there, here = (read_state(run.state, torch.device("cpu"))["objective"] for run in (first, second))
    for name in (name for name in there if name.startswith("student.heads.")):
        torch.testing.assert_close(here[name], there[name], rtol=0, atol=1e-6)


def test_start_weights_are_not_needed_to_go_on(tmp_path):
    first = pretrain(tmp_path / "first", "train.steps=1")

    overrides = [f"train.init_from={first.dir}"]
    with ctrl_c_in_row(4):
        notes = pretrain(tmp_path / "run", *overrides).progress["notes"]
    assert any(note.startswith("start weights: step 1 of ") for note in notes)
    first.dir.rename(tmp_path / "elsewhere")
    assert pretrain(tmp_path / "run", *overrides).status == "finished"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", r"train\.init_from: .*nowhere does not exist"),
        ("empty", r"train\.init_from: .*empty holds no snapshot yet"),
        ("text.safetensors", r"text\.safetensors: not a readable \.safetensors file"),
        ("wide", r"weights of another architecture\n(.*\n)*.*blocks\.0\.attn\.proj\.bias: \(96,\) there, \(48,\) here"),
    ],
)
def test_start_weights_that_are_no_use(tmp_path, source, message):
    (tmp_path / "text.safetensors").write_text("no weights")
    if source == "empty":
        asit_lab.runs.directory.open_run(tmp_path / "empty", load_config("smoke"))
    if source == "wide":
        pretrain(tmp_path / "wide", "model.width=96", "train.steps=1")
    with pytest.raises(asit_lab.InputError, match=message):
        pretrain(tmp_path / "run", f"train.init_from={tmp_path / source}")
    run = asit_lab.load_run(tmp_path / "run")
    assert run.status == "failed" and run.progress["reason"].startswith("InputError: ")
