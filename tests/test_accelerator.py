"""Where products take bfloat16: on a CPU that has it, and only in the context."""

from __future__ import annotations

import pytest
import torch

from quads_mcu.training import accelerator

_CPU = torch.device("cpu")


@pytest.mark.parametrize(("has", "taken"), [(False, torch.float32), (True, torch.bfloat16)])
def test_products_take_bfloat16_where_the_cpu_has_it(
    has: bool, taken: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has, raising=False)
    linear, x = torch.nn.Linear(8, 4), torch.randn(3, 8)
    with accelerator.mixed_precision(_CPU):
        y = linear(x)
    assert y.dtype == taken and linear.weight.dtype == torch.float32
    exact = x.double() @ linear.weight.double().T + linear.bias.double()
    torch.testing.assert_close(y.double(), exact, atol=0.05 if has else 1e-5, rtol=0)
    assert linear(x).dtype == torch.float32


def test_an_older_pytorch_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    with accelerator.mixed_precision(_CPU):
        assert torch.nn.Linear(8, 4)(torch.randn(3, 8)).dtype == torch.float32
