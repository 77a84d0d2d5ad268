"""Collapse is called from the rows of a run, and only then; a step that is not finite names who made it so."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import asit_lab
from asit_lab import load_config
from asit_lab.audio import reading
from asit_lab.data import crops as views
from asit_lab.objectives import ASiT, criteria
from asit_lab.objectives.collapse import INFORMED, effective_rank, information, spread
from asit_lab.runs.snapshot import read_state
from asit_lab.training import collapse_watch, recorder

# --- Measures -------------------------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_information_against_its_definition():
    rows = softmax(np.random.default_rng(0).normal(size=(6, 9)) * 2)
    joint = rows / 6  # p(row, answer), rows equally likely
    wanted = (joint * np.log(joint / (joint.sum(0) / 6))).sum()  # sum of p log p / (p p)
    assert information(torch.tensor(rows)).item() == pytest.approx(wanted, rel=1e-9)


def test_information_is_nought_in_every_collapse_and_ln_n_where_rows_are_told_apart():
    uniform, one = torch.full((8, 64), 1 / 64), torch.eye(64)[[5] * 8]
    same = torch.rand(64).softmax(0).expand(8, 64)
    for collapsed in (uniform, one, same):
        assert information(collapsed).item() == pytest.approx(0.0, abs=1e-6)
    assert information(torch.eye(64)[:8]).item() == pytest.approx(math.log(8), rel=1e-6)


def test_one_recording_in_every_batch_is_no_collapse():
    cfg = load_config("micro")
    rows = [{"step": step, "rate": 1e-3, "loss_global": 0.0, "chance_global": 0.0} for step in range(0, 400, 10)]
    assert collapse_watch.verdict(cfg, pd.DataFrame(rows)) is None
    many = [row | {"loss_global": 3.46, "chance_global": 3.4657} for row in rows]
    assert "does not tell one clip from another" in collapse_watch.verdict(cfg, pd.DataFrame(many)).text


def test_spread_from_nought_to_one():
    rows = torch.randn(1, 5).expand(7, 5)
    assert spread(rows).item() == pytest.approx(0.0, abs=1e-6)
    assert spread(rows * torch.arange(1, 8)[:, None]).item() == pytest.approx(0.0, abs=1e-6)  # direction alone counts
    assert spread(torch.cat([torch.eye(5), -torch.eye(5)])).item() == pytest.approx(1.0, rel=1e-6)
    draws = np.random.default_rng(0).normal(size=(7, 5))
    unit = draws / np.linalg.norm(draws, axis=1, keepdims=True)
    assert spread(torch.tensor(draws)).item() == pytest.approx(np.sqrt(unit.var(0).sum()), rel=1e-5)


@pytest.mark.parametrize(("n", "width"), [(12, 5), (5, 12)])
def test_effective_rank_against_the_singular_values(n, width):
    draws = np.random.default_rng(0).normal(size=(n, width)) + 10
    values = np.linalg.svd(draws - draws.mean(0), compute_uv=False)
    share = values[values > 1e-9] / values.sum()
    assert effective_rank(torch.tensor(draws)).item() == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_effective_rank_counts_directions():
    assert effective_rank(torch.ones(6, 4)).item() == pytest.approx(1.0)
    line = torch.arange(6.0)[:, None] * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
    assert effective_rank(line).item() == pytest.approx(1.0, abs=0.05)
    cross = torch.cat([torch.eye(4), -torch.eye(4)])
    assert effective_rank(cross).item() == pytest.approx(4.0, rel=1e-5)


# --- The watch, on written rows -------------------------------------------------------------------------------------

LN = math.log(64)  # of the global head of `smoke`
HEALTHY, UNIFORM, ONE, SAME = (3.3, 0.5), (LN - 0.002, 0.001), (0.05, 0.02), (2.8, 0.01)  # entropy, information


def config(*overrides: str):
    only = "objective.weights={reconstruction: 0, local: 0, global: 1}"
    return load_config("smoke", ["train.steps=1000", only, *overrides])


def rows(*spans: tuple[int, tuple[float, float]], every: int = 10, rate: float = 1e-3) -> list[dict]:
    """Rows of a run: (last step, (entropy, information)) a span."""
    table, step = [], 0
    for last, (entropy, told) in spans:
        while step < last:
            answer = {"entropy_global": entropy, "information_global": told, "loss_global": entropy + 0.01}
            table.append({"step": step, "loss": 1.0, "rate": rate, **answer})
            step += every
    return table


def called(cfg, table: list[dict]) -> list[int]:
    """Steps of the rows at which there is a verdict."""
    watch = collapse_watch.Watch(cfg)
    return [row["step"] for row in table if watch.see(row)]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (UNIFORM, ["collapsed to uniform", "loss 4.17", "ln 64 = 4.16", "lower objective.teacher_temperature "]),
        (ONE, ["collapsed to one output", "entropy of the teacher 0.05", "objective.centre_momentum below 0.9"]),
        ((0.05, 0.4), ["collapsed to one output", "0.4 nat"]),  # all but one clip of a batch
        ((2.9, 0.06), ["collapsed to the same answer for every clip", "0.06 nat"]),
        (SAME, ["collapsed to the same answer for every clip", "0.01 nat", "centre_momentum", "teacher_temperature"]),
    ],
)
def test_each_way_of_collapsing_is_called_and_told_apart(state, words):
    table = rows((200, state))
    assert called(config(), table)[0] == 110  # ten steps at 1e-3, then a window of a hundred
    verdict = collapse_watch.verdict(config(), pd.DataFrame(table))
    assert (verdict.kind, verdict.parts, verdict.since) == ("collapsed", ("global head",), 10)
    assert verdict.text.startswith("the global head has collapsed")
    assert [word for word in [*words, "for 180 steps", "; try "] if word not in verdict.text] == []


def test_a_healthy_run_is_never_called():
    assert called(config(), rows((1000, HEALTHY))) == []
    assert called(config(), rows((1000, (LN - 0.2, 0.15)))) == []  # near uniform, but it tells clips apart
    assert called(config(), rows((1000, (0.1, 2.0)))) == []  # sharp, and not one output


def test_an_untrained_network_is_not_called():
    """Before the weights can have moved, answers that say nothing are no collapse."""
    assert called(config(), rows((900, UNIFORM), rate=1e-5)) == []
    assert 1100 <= called(config(), rows((1300, UNIFORM), rate=1e-5))[0] <= 1110  # a sum of a thousand rates
    assert called(config(), rows((50, UNIFORM), (1000, HEALTHY))) == []


def test_single_batches_do_not_decide():
    table = rows((1000, HEALTHY))
    for low in range(3, 100, 3):  # each third batch says nothing
        table[low] |= {"entropy_global": LN, "information_global": 0.0}
    assert called(config(), table) == []
    table = rows((1000, UNIFORM))
    for high in range(3, 100, 3):
        table[high]["information_global"] = 1.0
    assert called(config(), table)[0] == 110


def test_a_verdict_ends_when_it_is_over_and_comes_back():
    steps = called(config(), rows((300, HEALTHY), (600, SAME), (900, HEALTHY), (1200, ONE)))
    first = [step for step in steps if step < 900]
    assert 340 <= first[0] <= 360 and 640 <= first[-1] <= 660
    assert first == list(range(first[0], first[-1] + 10, 10))
    assert 940 <= steps[len(first)] <= 960 and steps[-1] == 1190


@pytest.mark.parametrize("every", [1, 10, 50])
def test_the_window_is_in_steps_and_in_rows(every):
    first = called(config(f"train.log_every={every}"), rows((600, UNIFORM), every=every))[0]
    assert first == {1: 110, 10: 110, 50: 250}[every]  # five rows, the first at step 50


def test_a_resumed_run_says_the_same(tmp_path):
    health_edge = INFORMED * (1 - 1e-10)  # below it as measured, not as logged
    table = rows((130, HEALTHY), (400, (4.0, health_edge)), (500, UNIFORM))
    whole = collapse_watch.Watch(config())
    verdicts = [whole.see(row) for row in table]
    logged = pd.DataFrame([{k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()} for row in table])
    logged.to_csv(tmp_path / "metrics.csv", index=False)
    read = pd.read_csv(tmp_path / "metrics.csv").to_dict("records")
    for cut in (0, 12, 20, 35):
        again = collapse_watch.Watch(config(), read[:cut])
        assert [again.see(row) for row in table[cut:]] == verdicts[cut:]
        assert again.verdict == verdicts[-1]


def test_rows_that_tell_nothing():
    assert collapse_watch.verdict(config(), pd.DataFrame({"step": []})) is None
    older = [{"step": step, "rate": 1e-3, "loss": 4.16, "entropy_global": 4.16} for step in range(0, 300, 10)]
    assert called(config(), older) == []  # of a version that did not measure information
    newer = [row | {"step": row["step"] + 300} for row in rows((200, HEALTHY))]
    assert called(config(), older + newer) == []
    table = rows((300, UNIFORM))
    for row in table[::2]:  # steps without anything to look at
        row |= {"entropy_global": math.nan, "information_global": math.nan}
    assert called(config(), table)[0] == 110
    assert called(config(), [row | {"information_global": math.nan} for row in table]) == []


def test_both_heads_are_named():
    cfg = load_config("smoke", ["train.steps=1000"])
    local = {"entropy_local": 0.01, "information_local": 0.0, "loss_local": 0.02}
    verdict = collapse_watch.verdict(cfg, pd.DataFrame([row | local for row in rows((200, UNIFORM))]))
    assert verdict.parts == ("local head", "global head")
    assert "local head has collapsed to one output" in verdict.text
    assert ". And the global head has collapsed to uniform" in verdict.text


def test_which_heads_are_watched():
    assert [c.part for c in criteria(load_config("asit-vit-s"))] == ["local head", "global head"]
    assert criteria(load_config("asit-vit-s", ["objective.weights={reconstruction: 1}"])) == []
    assert criteria(load_config("asit-vit-s", ["train.batch_size=4"])) == []  # the views of few clips are all alike


# --- The watch, on runs ---------------------------------------------------------------------------------------------

NO_CENTRING = "objective.centre_momentum=1.0"
NO_SHARPENING = ["objective.teacher_temperature=0.1", "objective.teacher_temperature_end=0.1"]
DISTIL = "objective.weights={reconstruction: 0, local: 1, global: 1}"


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(recorder, "save_samples", lambda *_: None)


def verdicts_of(out, *overrides: str) -> list[tuple[int, collapse_watch.CollapseVerdict]]:
    """(step, verdict) of the rows of a run of 200 steps of `smoke` that had one."""
    cfg = load_config("smoke", ["train.steps=200", "train.log_every=10", "train.checkpoint_every=200", *overrides])
    watch, seen = collapse_watch.Watch(cfg), []
    asit_lab.pretrain(cfg, out, on_log=lambda run, row: seen.append((row["step"], watch.see(row))))
    return [(step, verdict) for step, verdict in seen if verdict]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "how"),
    [
        ([NO_CENTRING, *NO_SHARPENING, DISTIL, "optim.rate=0.004"], "the same answer for every clip"),
        ([NO_CENTRING, *NO_SHARPENING, "optim.rate=0.004"], "the same answer for every clip"),
        ([NO_CENTRING, DISTIL, "optim.rate=0.004", "objective.ema=0.9"], "one output"),
    ],
    ids=["neither centring nor sharpening", "the same with reconstruction", "no centring"],
)
def test_a_run_set_up_to_collapse_is_called_within_200_steps(tmp_path, no_pictures, overrides, how):
    found = verdicts_of(tmp_path / "run", *overrides)
    assert found and "global head" in found[-1][1].parts
    assert f"the global head has collapsed to {how}" in found[-1][1].text


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], [DISTIL], ["optim.rate=0.004"], ["train.seed=1"], ["train.accumulate=2"]])
def test_a_healthy_run_of_200_steps_is_not_called(tmp_path, no_pictures, overrides):
    assert verdicts_of(tmp_path / "run", *overrides) == []


# --- Steps that are not finite --------------------------------------------------------------------------------------

RATE = 8000


def recordings(folder, count: int = 10):
    """A list of noises of 1 s, whose names are their groups."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        wave = 0.1 * generator.standard_normal(RATE)
        soundfile.write(folder / f"{i}.wav", wave.astype(np.float32), RATE, subtype="FLOAT")
    names = [f"{i}.wav,a,{i}" for i in range(count)]
    (folder / "list.csv").write_text("\n".join(["path,label,group", *names]) + "\n")
    return f"folder:{folder / 'list.csv'}"


def short(source: str, *overrides: str):
    return load_config(
        "smoke",
        [f"data.source={source}", f"features.sample_rate={RATE}", "data.crop_seconds=0.5", "train.batch_size=4"]
        + ["train.checkpoint_every=3", "train.snapshots=1", "train.steps=8", *overrides],
    )


def stopped(cfg, out) -> str:
    """The message with which a run stops; its state is that of a step before, whole, and its status says so."""
    with pytest.raises(FloatingPointError) as problem:
        asit_lab.pretrain(cfg, out)
    run, text = asit_lab.load_run(out), str(problem.value)
    assert run.status == "failed" and text in run.progress["reason"]
    assert "not touched" in text and "resume='auto'" in text
    step = int(text.split(":")[0].removeprefix("step "))
    assert len(run.metrics) == step and np.isfinite(run.metrics.get("loss", [])).all()
    if step >= 3:
        state = read_state(run.state, torch.device("cpu"))
        assert state["step"] == step // 3 * 3
        assert all(torch.isfinite(t).all() for t in state["objective"].values())
    return text


def same_weights(a, b) -> bool:
    return a.snapshots[-1].read_bytes() == b.snapshots[-1].read_bytes()


def test_a_file_that_overflows_is_named_and_the_run_goes_on_without_it(tmp_path, no_pictures, monkeypatch):
    """Numbers whose square is infinite: nothing is wrong with a file until its features are."""
    monkeypatch.setattr(reading, "LOUDEST", 1e30)
    source = recordings(tmp_path / "data")
    cfg = short(source)
    whole = asit_lab.pretrain(cfg, tmp_path / "whole")
    train, _ = asit_lab.data.load_manifest(source).holdout(cfg.data.holdout)
    name = train.table["path"].iloc[3]
    good = Path(name).read_bytes()
    wave = soundfile.read(name, dtype="float32")[0]
    soundfile.write(name, wave * np.float32(1e25), RATE, subtype="FLOAT")
    text = stopped(cfg, tmp_path / "run")
    assert f"At fault by themselves: {name}; take" in text
    assert text.count(".wav") == 1
    Path(name).write_bytes(good)
    run = asit_lab.pretrain(cfg, tmp_path / "run")
    assert run.status == "finished" and same_weights(run, whole)


def test_samples_that_are_no_numbers_are_told_from_what_they_cause(tmp_path, no_pictures, monkeypatch):
    """The reader refuses such files; whatever lets one past it, the file is named before anything is computed."""
    cfg = short(recordings(tmp_path / "data"))
    train, _ = asit_lab.data.load_manifest(cfg.data.source).holdout(cfg.data.holdout)
    name, read_row = train.table["path"].iloc[5], views.read_row

    def broken(path, *rest):
        wave = read_row(path, *rest)
        return wave * np.float32(math.nan) if path == name else wave

    monkeypatch.setattr(views, "read_row", broken)
    text = stopped(cfg, tmp_path / "run")
    assert f"Samples that are not numbers in {name}; take" in text and text.count(".wav") == 1


def test_a_file_of_nan_is_skipped_and_named(tmp_path, no_pictures):
    """One bad file is no reason to stop a night's run: it is listed, and another clip takes its place."""
    cfg = short(recordings(tmp_path / "data"), "data.max_bad_share=0.5")
    train, _ = asit_lab.data.load_manifest(cfg.data.source).holdout(cfg.data.holdout)
    name = train.table["path"].iloc[2]
    soundfile.write(name, np.full(RATE, math.nan, np.float32), RATE, subtype="FLOAT")
    run = asit_lab.pretrain(cfg, tmp_path / "run")
    assert run.status == "finished" and run.bad_files["path"].tolist() == [name]
    assert np.isfinite(run.metrics["loss"]).all()


def break_loss(monkeypatch, at: int, times: float = math.inf):
    forward, count = ASiT.forward, [0]

    def broken(self, batch, step):
        losses = forward(self, batch, step)
        count[0] += step == at
        if step == at and count[0] <= times:
            losses.total = losses.total * math.nan
        return losses

    monkeypatch.setattr(ASiT, "forward", broken)


def break_gradient(monkeypatch, at: int):
    init, forward, now = ASiT.__init__, ASiT.forward, [0]

    def hooked(self, cfg, clips):
        init(self, cfg, clips)
        weight = self.student.backbone.blocks[1].mlp.fc1.weight
        weight.register_hook(lambda slope: slope * (math.nan if now[0] == at else 1.0))

    def counting(self, batch, step):
        now[0] = step
        return forward(self, batch, step)

    monkeypatch.setattr(ASiT, "__init__", hooked)
    monkeypatch.setattr(ASiT, "forward", counting)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("loss", marks=pytest.mark.slow),
        "gradient",
        pytest.param("gradient, clipped over all", marks=pytest.mark.slow),
    ],
)
def test_weights_at_fault_are_told_from_files(tmp_path, no_pictures, monkeypatch, what):
    clip = ["optim.clip_by=global"] if "over all" in what else []
    cfg = short("synth:12", *clip)
    whole = asit_lab.pretrain(cfg, tmp_path / "whole")
    with monkeypatch.context() as broken:
        (break_loss if what == "loss" else break_gradient)(broken, 4)
        text = stopped(cfg, tmp_path / "run")
    assert text.startswith("step 4: ") and ("(loss nan" in text) == (what == "loss")
    assert "gradient norm nan" in text
    assert "No file is at fault, silence gives the same" in text and text.count("synth://") == 4
    named = "the gradient of student.backbone.blocks.1.mlp.fc1.weight is not"
    assert (named in text) == ("; the gradient of" in text) == (what == "gradient")
    run = asit_lab.pretrain(cfg, tmp_path / "run")  # the cause is gone
    assert run.status == "finished" and same_weights(run, whole)
    pd.testing.assert_series_equal(run.metrics["loss"], whole.metrics["loss"])


def test_a_fault_that_does_not_come_again(tmp_path, no_pictures, monkeypatch):
    break_loss(monkeypatch, 5, times=1)
    text = stopped(short("synth:12"), tmp_path / "run")
    assert "finite numbers when it is computed again" in text and text.count("synth://") == 4


@pytest.mark.parametrize(
    "settings",
    [
        ["train.accumulate=2"],
        pytest.param(["train.precision=bf16"], marks=pytest.mark.slow),
        pytest.param(["mask.kinds={alien: 1}"], marks=pytest.mark.slow),
    ],
)
def test_several_files_at_fault_among_a_batch(tmp_path, no_pictures, settings, monkeypatch):
    monkeypatch.setattr(reading, "LOUDEST", 1e30)  # else they are left out as damaged
    source = recordings(tmp_path / "data", 12)
    cfg = short(source, "train.batch_size=8", "train.steps=2", *settings)
    train, _ = asit_lab.data.load_manifest(source).holdout(cfg.data.holdout)
    first = views.batch_indices(cfg.train.seed, 0, 8, len(train))[[1, 6]].tolist()
    names = [train.table["path"].iloc[row] for row in first]
    for name in names:
        soundfile.write(name, np.full(RATE, 1e25, np.float32) * np.sin(np.arange(RATE)), RATE, subtype="FLOAT")
    text = stopped(cfg, tmp_path / "run")
    assert text.count(".wav") == 2 and all(name in text for name in names)


def test_what_the_status_says_is_json(tmp_path, no_pictures, monkeypatch):
    break_loss(monkeypatch, 1)
    stopped(short("synth:12"), tmp_path / "run")
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["status"] == "failed" and status["reason"].startswith("FloatingPointError: step 1: ")
