"""Where graphs run: what is chosen with and without CUDA, and what the runtime is told."""

from __future__ import annotations

from collections.abc import Iterator

import onnxruntime as ort
import pytest

from modelyard.core.errors import WrongState
from modelyard.inference.execution.devices import CPU, CUDA, cuda_computes
from modelyard.inference.execution.sessions import RuntimeOptions


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    cuda_computes.cache_clear()
    yield
    cuda_computes.cache_clear()


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where CUDA works."""
    monkeypatch.setattr("modelyard.inference.execution.sessions.cuda_computes", lambda: True)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this runtime is built for CUDA")
def test_a_runtime_that_names_cuda_and_cannot_compute_with_it_takes_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    assert (RuntimeOptions().providers(), RuntimeOptions().on_gpu) == ([CPU], False)
    with pytest.raises(WrongState, match="computes nothing with CUDA here"):
        RuntimeOptions(device="cuda").providers()


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(("device", "providers"), [("auto", [CUDA, CPU]), ("cuda", [CUDA, CPU]), ("cpu", [CPU])])
def test_cuda_is_taken_where_it_works_unless_told_otherwise(device: str, providers: list[str]) -> None:
    options = RuntimeOptions(device=device)
    assert (options.providers(), options.on_gpu) == (providers, CUDA in providers)


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(("tf32", "told"), [(False, "0"), (True, "1")])
def test_a_gpu_computes_as_precisely_as_the_processor_unless_told_otherwise(*, tf32: bool, told: str) -> None:
    of_cuda, of_cpu = RuntimeOptions(tf32=tf32).provider_options()
    assert of_cuda["use_tf32"] == told
    assert of_cuda["cudnn_conv_algo_search"] == "HEURISTIC"
    assert of_cpu == {}
