"""The loop, driven by a toy objective that has nothing to do with ASiT, against the same training written plainly."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from children import ctrl_c_in_row
from torch import nn

import asit_lab
from asit_lab import load_config
from asit_lab.config import RunConfig
from asit_lab.data import load_manifest, make_loader
from asit_lab.data.sources import synth
from asit_lab.objectives import Losses
from asit_lab.runs.snapshot import read_snapshot, read_state
from asit_lab.training import pretrain as loop
from asit_lab.training import recorder
from asit_lab.training.collapse_watch import CollapseVerdict

STEPS = 7


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.decoder = nn.Linear(3, 1), None


class Toy(nn.Module):
    """Predicts the loudness of a crop from three thirds of it; the teacher is the student of the step before."""

    views = 1

    def __init__(self, cfg: RunConfig, clips: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(cfg.train.seed)
            self.student, self.teacher = Part(), Part().requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.clips, self.events = clips, []
        self.break_at, self.breaks = None, "loss"

    def reset_teacher(self) -> None:
        self.teacher.load_state_dict(self.student.state_dict())

    def forward(self, batch, step):
        self.events.append(("forward", step, batch.position.tolist(), self.student.backbone.weight.detach().clone()))
        thirds = batch.waves[:, 0].unflatten(1, (3, -1)).abs().mean(2)  # [B, 3]
        error = self.student.backbone(thirds).squeeze(1) - 3 * thirds.mean(1) - 1
        square, size = error.square().mean(), error.abs().mean()
        total = square + 0.5 * size
        if step == self.break_at:
            weight = self.student.backbone.weight
            # A loss of nan, or a finite loss whose gradient is not: the slope of a root at zero.
            total = total * math.nan if self.breaks == "loss" else total + (weight - weight.detach()).abs().sqrt().sum()
        return Losses(total, {"square": square, "size": size})

    def param_groups(self):
        linear = self.student.backbone
        return [{"params": [linear.weight], "decay": True}, {"params": [linear.bias], "decay": False}]

    @torch.no_grad()
    def after_step(self, step):
        self.events.append(("after", step, None, self.student.backbone.weight.detach().clone()))
        self.seen += 1
        self.reset_teacher()

    def health(self):
        return {"seen": self.seen.item()}

    def samples(self, batch):
        return {}


@pytest.fixture
def toy(monkeypatch):
    """Makes the loop build a Toy; `.made` is the last one, `.change(toy)` is called on each."""
    hook = SimpleNamespace(made=None, change=lambda toy: None)

    def build(cfg, clips):
        hook.made = Toy(cfg, clips)
        hook.change(hook.made)
        return hook.made

    monkeypatch.setattr(loop, "build_objective", build)
    return hook


def config(*overrides: str) -> RunConfig:
    return load_config(
        "smoke",
        ["data.source=synth:12", "features.sample_rate=6000", "data.crop_seconds=0.5", "train.batch_size=4"]
        + [f"train.steps={STEPS}", "train.log_every=2", "train.checkpoint_every=3", "train.snapshots=3"]
        + ["optim.rate=0.1", "optim.rate_batch=4", "optim.warmup=2", "optim.weight_decay_end=0.2", *overrides],
    )


def by_hand(cfg: RunConfig, clip) -> tuple[Toy, list[float], list[float]]:
    """The same training as a plain loop over whole batches: the trained toy, the losses, the norms before clipping."""
    train, _ = load_manifest(cfg.data.source).holdout(cfg.data.holdout)
    toy, losses, norms = Toy(cfg, len(train)), [], []
    weight, bias = toy.student.backbone.weight, toy.student.backbone.bias
    optimizer = torch.optim.AdamW([{"params": [weight]}, {"params": [bias]}], betas=cfg.optim.betas)
    for step, batch in enumerate(make_loader(cfg, train, 1, stop=STEPS)):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 2) / (STEPS - 2)))
        rate = 0.1 * step if step < 2 else 1e-6 + (0.1 - 1e-6) * cosine
        decay = 0.2 - 0.16 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        for group, value in zip(optimizer.param_groups, (decay, 0.0), strict=True):
            group["lr"], group["weight_decay"] = rate, value
        optimizer.zero_grad()
        loss = toy(batch, step).total
        loss.backward()
        norms.append(torch.cat([weight.grad.flatten(), bias.grad]).norm().item())
        clip([weight, bias])
        optimizer.step()
        losses.append(loss.item())
    return toy, losses, norms


def clip_each(limit):
    return lambda parameters: [nn.utils.clip_grad_norm_([p], limit) for p in parameters]


def clip_all(limit):
    return lambda parameters: nn.utils.clip_grad_norm_(parameters, limit)


@pytest.mark.parametrize(
    ("overrides", "clip"),
    [
        (["optim.clip=0"], lambda parameters: None),
        (["optim.clip=0.05", "optim.clip_by=tensor"], clip_each(0.05)),
        (["optim.clip=0.05", "optim.clip_by=global"], clip_all(0.05)),
        (["optim.clip=0.05", "optim.clip_by=tensor", "train.accumulate=2"], clip_each(0.05)),
        (["optim.clip=0", "train.accumulate=4"], lambda parameters: None),
    ],
    ids=["no clipping", "clip by tensor", "clip global", "clip and accumulate", "accumulate"],
)
def test_the_loop_is_plain_training(toy, tmp_path, overrides, clip):
    cfg = config(*overrides)
    run = asit_lab.pretrain(cfg, tmp_path / "run")
    wanted, losses, norms = by_hand(cfg, clip)
    assert run.status == "finished"
    for name, tensor in wanted.student.backbone.state_dict().items():
        torch.testing.assert_close(toy.made.student.backbone.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    assert run.metrics["loss"].tolist() == pytest.approx([losses[step] for step in (0, 2, 4, 6)], rel=1e-5)
    # Adam does not see the scale of a gradient, the norm does.
    assert run.metrics["gradient_norm"].tolist() == pytest.approx([norms[step] for step in (0, 2, 4, 6)], rel=1e-4)


def test_a_configuration_by_name_and_by_run(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("asit_lab.training.pretrain.load_config", lambda name: {"small": config()}[name])
    assert asit_lab.pretrain("small", tmp_path / "run").status == "finished"
    monkeypatch.undo()
    run = asit_lab.load_run(tmp_path / "run")
    assert asit_lab.load_config(run) == run.config and asit_lab.pretrain(run, run).status == "finished"


def test_the_order_of_a_step(toy, tmp_path):
    asit_lab.pretrain(config("train.accumulate=2"), tmp_path / "run")
    events = toy.made.events
    assert [event[:2] for event in events] == [
        event for step in range(STEPS) for event in (("forward", step), ("forward", step), ("after", step))
    ]
    for first, second, after in zip(events[::3], events[1::3], events[2::3], strict=True):
        assert (first[2], second[2]) == ([0, 1], [2, 3])
        assert torch.equal(first[3], second[3])  # nothing moves between the parts
        assert torch.equal(first[3], after[3]) == (first[1] == 0)  # the optimiser has: but the first rate is 0
    assert toy.made.clips == 10  # of 12 clips, two are held out


def test_what_the_run_directory_gets(toy, tmp_path):
    seen = []
    run = asit_lab.pretrain(config(), tmp_path / "run", on_log=lambda run, row: seen.append((len(run.metrics), row)))
    metrics = run.metrics
    assert metrics["step"].tolist() == [0, 2, 4, 6]
    assert metrics["epoch"].tolist() == [0, 1, 2, 3]
    assert metrics["seen"].tolist() == [1, 3, 5, 7]
    assert list(metrics.columns) == (
        ["step", "epoch", "loss", "loss_square", "loss_size", "rate", "weight_decay", "gradient_norm", "seen"]
    )
    total = metrics["loss_square"] + 0.5 * metrics["loss_size"]
    assert metrics["loss"].tolist() == pytest.approx(total.tolist(), rel=1e-5)
    assert (metrics["gradient_norm"] > 0).all()
    timings = run.timings  # no two runs agree on these, so they have a file of their own
    assert list(timings.columns) == ["step", "seconds", "clips_per_second"]
    assert timings["step"].tolist() == [0, 2, 4, 6]
    assert timings["seconds"].is_monotonic_increasing and run.progress["seconds"] > timings["seconds"].iloc[-1] > 0
    speeds = 8 / timings["seconds"].diff().iloc[1:]  # two steps of four clips since the row before
    assert timings["clips_per_second"].iloc[1:].tolist() == pytest.approx(speeds.tolist(), rel=1e-3)
    # on_log comes after the row was written, with the numbers that were
    assert [count for count, _ in seen] == [1, 2, 3, 4]
    assert [row["loss"] for _, row in seen] == pytest.approx(metrics["loss"].tolist(), rel=1e-6)
    assert [row["clips_per_second"] for _, row in seen] == pytest.approx(timings["clips_per_second"].tolist(), rel=1e-6)

    assert [path.name for path in run.snapshots] == [f"step-{step}.safetensors" for step in (2, 5, 7)]
    tensors, cfg, step = read_snapshot(run.snapshots[-1])
    assert (cfg, step) == (run.config, 7)
    assert torch.equal(tensors["student.backbone.weight"], toy.made.student.backbone.weight)
    assert torch.equal(tensors["teacher.backbone.weight"], toy.made.teacher.backbone.weight)
    assert {name for name in tensors if name.startswith("objective.")} == {"objective.seen"}
    assert tensors["objective.seen"] == 7
    assert not torch.equal(
        read_snapshot(run.snapshots[0])[0]["student.backbone.weight"], tensors["student.backbone.weight"]
    )
    assert run.samples == []  # the toy has none to show
    assert read_state(run.state, torch.device("cpu"))["step"] == 7  # to train longer from
    assert (run.progress["step"], run.progress["total_steps"]) == (7, 7)
    assert run.result["steps"] == 7 and run.result["training_clips"] == 10 and run.result["parameters"] == 4
    assert run.result["last"] == pytest.approx(
        {f"loss{n}": metrics[f"loss{n}"].iloc[-1] for n in ("", "_square", "_size")}
    )


@pytest.mark.parametrize(("steps", "snapshots", "kept"), [(7, 1, [7]), (3, 8, [1, 2, 3]), (10, 4, [2, 5, 8, 10])])
def test_snapshots_cover_the_run(toy, tmp_path, steps, snapshots, kept):
    run = asit_lab.pretrain(config(f"train.steps={steps}", f"train.snapshots={snapshots}"), tmp_path / "run")
    assert [int(path.stem.removeprefix("step-")) for path in run.snapshots] == kept


def test_epochs_are_counted_in_training_clips(toy, tmp_path):
    run = asit_lab.pretrain(config("train.steps=null", "train.epochs=2.5"), tmp_path / "run")
    assert run.result["steps"] == 5 and run.result["epochs"] == 2.5  # 10 clips are two batches of 4


# --- Stopping and going on ------------------------------------------------------------------------------------------


def test_an_interrupted_run_says_so_and_keeps_its_state(toy, tmp_path):
    with ctrl_c_in_row(4):
        run = asit_lab.pretrain(config(), tmp_path / "run")
    assert run.status == "interrupted"
    assert (run.progress["step"], run.progress["total_steps"]) == (3, 7)  # where a resume goes on
    state = read_state(run.state, torch.device("cpu"))
    assert state["step"] == 3 and state["clips"] == 10
    assert state["objective"]["seen"] == 3
    assert run.result == {}
    on = asit_lab.pretrain(config(), tmp_path / "run")
    assert (on.status, on.metrics["step"].tolist()) == ("finished", [0, 2, 4, 6])
    assert toy.made.seen == 7 and [event[1] for event in toy.made.events if event[0] == "after"] == [3, 4, 5, 6]


def test_going_on_elsewhere_is_noted(toy, tmp_path, monkeypatch):
    with ctrl_c_in_row(4):
        asit_lab.pretrain(config(), tmp_path / "run")
    monkeypatch.setattr("soxr.__version__", "99")
    with ctrl_c_in_row(4):
        notes = asit_lab.pretrain(config(), tmp_path / "run").progress["notes"]
    assert "continued at step 3" in notes
    assert any(note.startswith("soxr is 99, it was ") and "to a tolerance only" in note for note in notes)


def test_what_changed_on_the_way_stays_known(toy, tmp_path, monkeypatch):
    """Also over a start that was over before it saved anything: what counts is what the state was made with."""
    with ctrl_c_in_row(4):
        asit_lab.pretrain(config(), tmp_path / "run")
    monkeypatch.setattr("soxr.__version__", "99")
    with ctrl_c_in_row(4):
        asit_lab.pretrain(config(), tmp_path / "run")  # goes on at 3, would save at 6
    with ctrl_c_in_row(6):
        asit_lab.pretrain(config(), tmp_path / "run")  # saves at 6
    run = asit_lab.pretrain(config(), tmp_path / "run")
    (change,) = run.result["environment_changes"]
    assert change.startswith("step 3: soxr is 99, it was ")
    assert asit_lab.pretrain(config(), tmp_path / "other").result["environment_changes"] == []


def test_settings_without_effect_may_change_on_the_way(toy, tmp_path):
    whole = asit_lab.pretrain(config(), tmp_path / "whole")
    with ctrl_c_in_row(4):
        asit_lab.pretrain(config(), tmp_path / "run")
    others = ["data.workers=1", "data.cache_mb=0", "data.max_bad_share=1", "train.checkpoint_every=1"]
    run = asit_lab.pretrain(config(*others), tmp_path / "run")
    assert run.status == "finished" and run.config == config()
    assert "data.workers is 1 now, config.yaml says 0" in run.progress["notes"]
    for name in ("config.yaml", "metrics.csv", "result.json", "snapshots/step-7.safetensors"):
        assert (run.dir / name).read_bytes() == (whole.dir / name).read_bytes()
    with ctrl_c_in_row(4):
        asit_lab.pretrain(config(), tmp_path / "third")
    with pytest.raises(asit_lab.InputError, match=r"train\.log_every: 2 there, 1 requested"):
        asit_lab.pretrain(config("train.log_every=1"), tmp_path / "third")


def test_a_damaged_state_is_an_input_error(toy, tmp_path):
    with ctrl_c_in_row(4):
        run = asit_lab.pretrain(config(), tmp_path / "run")
    run.state.write_bytes(b"damaged")
    with pytest.raises(asit_lab.InputError, match=r"state\.pt: cannot be read as a saved state"):
        asit_lab.pretrain(config(), tmp_path / "run")
    assert run.status == "failed"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_not_taken(toy, tmp_path, what):
    def change(toy):
        toy.break_at, toy.breaks = 4, what

    toy.change = change
    with pytest.raises(FloatingPointError) as problem:
        asit_lab.pretrain(config("data.source=synth:12"), tmp_path / "run")
    broken, run = toy.made, asit_lab.load_run(tmp_path / "run")
    text = str(problem.value)
    assert text.startswith("step 4: ")
    named = re.findall(r"synth://\d+/\d+", text)
    # Ten clips make two steps an epoch: the sounds are those of the third, not those listed.
    assert {synth.parse(path)[0] for path in named} == {synth.stream(0, 2)} and len(named) == 4
    assert "square" in text
    assert ("(loss nan" in text) == (what == "loss")
    assert "gradient norm nan" in text or "gradient norm inf" in text
    last = [event for event in broken.events if event[0] == "after"][-1]
    assert last[1] == 3
    assert torch.equal(broken.student.backbone.weight, last[3])
    assert torch.equal(broken.teacher.backbone.weight, last[3]) and broken.seen == 4
    assert run.status == "failed" and run.progress["reason"] == f"FloatingPointError: {text}"
    assert read_state(run.state, torch.device("cpu"))["step"] == 3

    toy.change = lambda toy: None  # the cause is gone: the run goes on where it was saved
    assert asit_lab.pretrain(config("data.source=synth:12"), tmp_path / "run").status == "finished"


class Seen:
    """Stands in for health.Watch: from step 2 on the run has collapsed."""

    def __init__(self, cfg, rows):
        pass

    def see(self, row):
        return (
            CollapseVerdict("collapsed", ("all",), 2, "all has collapsed; try something") if row["step"] >= 2 else None
        )


def test_a_verdict_is_told_once_and_kept(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recorder, "Watch", Seen)
    seen = []
    run = asit_lab.pretrain(config(), tmp_path / "run", on_log=lambda run, row: seen.append(run.progress.get("health")))
    assert run.status == "finished" and run.progress["health"] == "all has collapsed; try something"
    assert seen == [None, *["all has collapsed; try something"] * 3]  # at once, not at the next saved state
    assert capsys.readouterr().out.count("step 2: all has collapsed; try something") == 1


def test_a_run_may_end_when_it_has_collapsed(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "Watch", Seen)
    run = asit_lab.pretrain(config("train.on_collapse=stop"), tmp_path / "run")
    assert (run.status, run.progress["reason"]) == ("failed", "all has collapsed; try something")
    assert run.progress["step"] == read_state(run.state, torch.device("cpu"))["step"] == 4  # after the step it was told
    assert run.result == {} and run.metrics["step"].tolist() == [0, 2]
    assert asit_lab.pretrain(config(), tmp_path / "run").status == "finished"  # to warn alone is no other run
