"""How long OpenMP's threads should spin before they sleep: training steps alone and beside other work.

    python benchmarks/waiting.py > benchmarks/waiting.md

Each row is a process of its own, as libgomp reads the setting once. Beside: with as many busy processes as cores.
"""

import os
import statistics
import subprocess
import sys
import time

SETTINGS = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "GOMP_SPINCOUNT=20000": {"GOMP_SPINCOUNT": "20000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
STEPS, ROUNDS = 8, 3


def steps() -> None:
    """Print the median seconds of a training step of `micro`."""
    import torch
    from lightning.fabric import Fabric

    from asit_lab import load_config
    from asit_lab.data import load_manifest, make_loader
    from asit_lab.objectives import build_objective
    from asit_lab.training.step import Stepper

    cfg = load_config("micro", ["data.source=synth:64", "train.precision=fp32"])
    manifest = load_manifest(cfg.data.source)
    fabric = Fabric(accelerator="cpu", devices=1)
    objective = build_objective(cfg, len(manifest))
    stepper = Stepper(fabric, cfg, objective, len(manifest))
    seconds = []
    for batch in make_loader(cfg, manifest, objective.views, stop=STEPS):
        began = time.perf_counter()
        stepper.gradients(batch)
        stepper.apply(batch.step)
        seconds.append(time.perf_counter() - began)
    print(statistics.median(seconds[2:]), torch.get_num_threads())


def measured(setting: dict[str, str]) -> float:
    """Seconds a step in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    # libgomp's default has to be given, else the package sets its own.
    environment = {**clean, **(setting or {"GOMP_SPINCOUNT": "300000"})}
    done = subprocess.run(
        [sys.executable, __file__, "steps"], capture_output=True, text=True, check=True, env=environment
    )
    return float(done.stdout.split()[0])


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; seconds a training step of `micro`, fp32, medians of {ROUNDS} rounds\n")
    print("| setting | alone | beside busy processes |\n|---|---|---|")
    alone = {name: [] for name in SETTINGS}
    beside = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):  # in turn, so that no setting has the quieter minutes
        for name, setting in SETTINGS.items():
            alone[name].append(measured(setting))
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
        try:
            for name, setting in SETTINGS.items():
                beside[name].append(measured(setting))
        finally:
            for process in busy:
                process.kill()
                process.wait()
    for name in SETTINGS:
        print(f"| {name} | {statistics.median(alone[name]):.3f} | {statistics.median(beside[name]):.3f} |")


if __name__ == "__main__":
    steps() if sys.argv[1:] == ["steps"] else main()
