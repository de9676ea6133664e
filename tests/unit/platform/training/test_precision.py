import pytest
import torch

from dytrack_platform.training import metrics
from dytrack_platform.training.metrics import computes_bf16, dtype_of

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("avx512", "amx", "dtype"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ],
)
def test_auto_is_bf16_where_the_processor_has_instructions_for_it(monkeypatch, avx512, amx, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert dtype_of("auto", CPU) == dtype


def test_a_torch_that_cannot_tell_gets_fp32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not computes_bf16(CPU)
    assert dtype_of("auto", CPU) == torch.float32


def test_a_gpu_that_emulates_bf16_gets_fp32(monkeypatch):
    """As PyTorch answers on a T4, which is older than Ampere."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert dtype_of("auto", torch.device("cuda")) == torch.float32


def test_a_named_precision_is_taken_at_its_word():
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert {name: dtype_of(name, CPU) for name in named} == named


def test_a_training_in_auto_reports_the_peak_of_what_it_runs_in(recipe, callbacks, monkeypatch):
    from dytrack_platform.training import loop, worker

    asked = []
    monkeypatch.setattr(loop, "peak_gflops", lambda device, dtype: asked.append(dtype) or 1.0)
    worker.train(recipe(train__precision="auto", train__epochs=1), callbacks)
    assert asked == [metrics.dtype_of("auto", CPU)]
