"""What other systems lack is done without: signals' senders on macOS, Apple's GPU."""

import os
import signal

import pytest
import torch
from lightning.fabric.accelerators import mps

from asit_lab.data import loader
from asit_lab.training.step import accelerator, launch


class Ended(Exception):
    pass


def test_a_loader_process_without_sigwaitinfo(monkeypatch):
    """As on macOS: a SIGTERM may be the scheduler's, so the trainer gets time before the process ends."""
    waited = []

    def end(status):
        raise Ended(status)

    monkeypatch.delattr(signal, "sigwaitinfo")
    monkeypatch.setattr(signal, "sigwait", lambda signals: waited.append(signals))
    monkeypatch.setattr(loader.time, "sleep", waited.append)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        loader._obey(trainer=1)
    assert waited == [{signal.SIGTERM}, loader.SIGTERM_GRACE_SECONDS]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a better device")
def test_apple_s_gpu_is_not_taken(monkeypatch):
    monkeypatch.setattr(mps.MPSAccelerator, "is_available", staticmethod(lambda: True))
    assert accelerator() == "cpu" and launch().device.type == "cpu"
