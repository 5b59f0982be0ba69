"""The protocol's extensions through tritonclient, as anybody installs it: no special treatment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from support import graphs
from support.foreign_venv import triton_python
from support.identity import Identity
from support.inference_pod import Pod, running_pod
from support.served_registry import ServedRegistry

SCRIPT = Path(__file__).with_name("triton_extensions.py")

VALUES: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, [[True, False]]),
    "UINT8": (TensorProto.UINT8, [[0, 2**8 - 1]]),
    "UINT16": (TensorProto.UINT16, [[0, 2**16 - 1]]),
    "UINT32": (TensorProto.UINT32, [[0, 2**32 - 1]]),
    "UINT64": (TensorProto.UINT64, [[0, 2**64 - 1]]),
    "INT8": (TensorProto.INT8, [[-(2**7), 2**7 - 1]]),
    "INT16": (TensorProto.INT16, [[-(2**15), 2**15 - 1]]),
    "INT32": (TensorProto.INT32, [[-(2**31), 2**31 - 1]]),
    "INT64": (TensorProto.INT64, [[-(2**63), 2**63 - 1]]),
    "FP16": (TensorProto.FLOAT16, [[-0.5, 65504]]),
    "FP32": (TensorProto.FLOAT, [[-0.5, 2.0**100]]),
    "FP64": (TensorProto.DOUBLE, [[-0.5, 2.0**1000]]),
    "BF16": (TensorProto.BFLOAT16, [[-0.5, 2.0**100]]),
    "BYTES": (TensorProto.STRING, [["", "grün"]]),
}


async def seen_by_triton(pod: Pod, identity: Identity, part: str, *arguments: str) -> Any:
    """What the stock client saw of a part of the protocol."""
    python = await asyncio.to_thread(triton_python)
    process = await asyncio.create_subprocess_exec(
        python, SCRIPT, pod.address, identity.token("admin"), part, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.fixture
async def scale_pod(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[Pod]:
    """A pod with shared memory that serves `scale`."""
    registry.add("scale", graphs.scale(2))
    async with running_pod(registry_address, identity, tmp_path / "pod", system_shared_memory=True) as pod:
        await pod.until_ready("scale")
        yield pod


async def test_every_datatype_goes_in_and_comes_out(registry: ServedRegistry, pod: Pod, identity: Identity) -> None:
    for name, (element_type, _) in VALUES.items():
        registry.add(name.lower(), graphs.identity(element_type))
        await pod.until_ready(name.lower())
    sent = {name: values for name, (_, values) in VALUES.items()}
    seen = await seen_by_triton(pod, identity, "datatypes", json.dumps(sent))
    assert seen == {name: [name, values] for name, values in sent.items()}


async def test_classes_instead_of_scores(registry: ServedRegistry, pod: Pod, identity: Identity) -> None:
    registry.add("four", graphs.identity(TensorProto.FLOAT, ("batch", 4)))
    registry.add("vector", graphs.identity(TensorProto.FLOAT, (4,)))
    registry.add("bytes", graphs.identity(TensorProto.STRING, ("batch", 1)))
    for model in ("four", "vector", "bytes"):
        await pod.until_ready(model)
    seen = await seen_by_triton(pod, identity, "classification")
    assert seen["rows"] == [["3.000000:1", "2.000000:3"], ["10.000000:3", "9.000000:0"]]
    assert seen["one"] == ["3.000000:1", "2.000000:3"]
    assert seen["datatype"] == "BYTES"
    status, message = seen["of_text"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "unsupported type BYTES" in message


async def test_a_stream_answers_in_order_and_survives_errors(scale_pod: Pod, identity: Identity) -> None:
    seen = await seen_by_triton(scale_pod, identity, "stream")
    good = [number for number in range(20) if number not in (3, 7)]
    assert seen["ids"] == [str(number) for number in good]
    assert seen["answers"] == [[[2 * number, 2 * number + 2]] for number in good]
    assert seen["finals"] == [True] * 18
    unknown = "models/nobody is not served: there is no such model, or no alias leads to a version of it"
    assert seen["errors"] == [[3, unknown], [7, unknown]]
    assert (seen["ended"], seen["left"]) == ("StatusCode.NOT_FOUND", 0)


async def test_an_asynchronous_stream_answers_in_order(scale_pod: Pod, identity: Identity) -> None:
    seen = await seen_by_triton(scale_pod, identity, "aio_stream")
    assert seen == [[str(number), [[2 * number, 2 * number + 2]], None] for number in range(10)]


async def test_tensors_in_shared_memory(scale_pod: Pod, identity: Identity) -> None:
    seen = await seen_by_triton(scale_pod, identity, "shared_memory")
    assert seen == {
        "status": {"regions": {"region": {"name": "region", "byte_size": "64"}}},
        "answer": [[2, 4], [10, 12]], "in_message": 0, "streamed": [[14, 16], [18, 20]],
        "again": ["StatusCode.ALREADY_EXISTS", "shared memory region 'region' already in manager"],
        "outside": seen["outside"], "unknown": ["StatusCode.NOT_FOUND", "Unable to find shared memory region: 'other'"],
        "cuda": {}, "no_cuda": "StatusCode.UNIMPLEMENTED", "cuda_unregister": None,
        "too_small": "StatusCode.INVALID_ARGUMENT",
        "gone": ["StatusCode.NOT_FOUND", "Unable to find shared memory region: 'region'"], "none": {},
    }  # fmt: skip
    assert seen["outside"][0] == "StatusCode.INVALID_ARGUMENT"


async def test_extensions_log_and_trace_settings_by_triton_s_names(scale_pod: Pod, identity: Identity) -> None:
    seen = await seen_by_triton(scale_pod, identity, "settings")
    assert set(seen["extensions"]) == {
        "classification", "model_repository", "model_configuration", "schedule_policy", "statistics", "trace",
        "logging", "parameters", "system_shared_memory",
    }  # fmt: skip
    assert seen["log"]["log_error"] == {"bool_param": True}
    assert (seen["verbose"], seen["quiet"]) == ({"uint32_param": 1}, {"uint32_param": 0})
    assert seen["trace"] == {"value": ["opentelemetry"]}
    assert seen["log_file"] == seen["trace_file"] == "StatusCode.INVALID_ARGUMENT"
