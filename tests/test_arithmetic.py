"""Which arithmetic a network computes in, on which device."""

import pytest
import torch

from asit_lab import arithmetic


@pytest.fixture
def capabilities(monkeypatch):
    """What the processor is said to have."""
    found: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    arithmetic.has_bf16.cache_clear()
    yield found
    arithmetic.has_bf16.cache_clear()


@pytest.mark.parametrize(
    "names, units",
    [
        (["avx2", "fma3"], False),
        (["avx512_f", "avx512_vnni"], False),
        (["avx512_f", "avx512_bf16"], True),
        (["amx_tile", "amx_bf16"], True),
        (["neon"], False),
        (["neon", "bf16"], True),
    ],
)
def test_a_processor_has_bf16_by_its_units(capabilities, names, units):
    capabilities |= dict.fromkeys(names, True) | {"amx_fp16": False}
    assert arithmetic.has_bf16("cpu") == units
    assert arithmetic.arithmetic_of("auto", "cpu") == ("bf16" if units else "fp32")
    assert arithmetic.arithmetic_of("bf16", "cpu") == "bf16" and arithmetic.arithmetic_of("fp32", "cpu") == "fp32"
    assert bool(arithmetic.bf16_notes("bf16", "cpu")) != units
    assert not arithmetic.bf16_notes("auto", "cpu") and not arithmetic.bf16_notes("fp32", "cpu")


@pytest.mark.parametrize("precision, inner", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_is_of_products(precision, inner):
    with arithmetic.autocast(precision, "cpu"):
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == inner


def test_other_devices_have_none():
    assert not arithmetic.has_bf16("mps")
