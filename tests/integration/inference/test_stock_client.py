"""tritonclient, as anybody installs it, against a pod: no special treatment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from onnx import TensorProto

from support import graphs
from support.foreign_venv import triton_python
from support.identity import Identity
from support.inference_pod import Pod
from support.served_registry import ServedRegistry, digest_of

SCRIPT = Path(__file__).with_name("triton_calls.py")


async def test_the_stock_triton_client_sees_what_it_expects(
    registry: ServedRegistry, pod: Pod, identity: Identity
) -> None:
    registry.add("scale", graphs.scale(2))
    registry.add("text", graphs.identity(TensorProto.STRING))
    registry.add("half", graphs.identity(TensorProto.FLOAT16))
    for model in ("scale", "text", "half"):
        await pod.until_ready(model)
    python = await asyncio.to_thread(triton_python)
    process = await asyncio.create_subprocess_exec(
        python, SCRIPT, pod.address, identity.token("admin"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    seen = json.loads(out)
    doubled = [[2, 4], [6, 8]]
    assert seen == {
        "live": True, "ready": True, "model_ready": True, "other_ready": False, "server": "modelyard",
        "metadata": {
            "name": "scale", "versions": ["1"], "platform": "onnxruntime_onnx",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": ["-1", "2"]}],
        },
        "platform": "onnxruntime_onnx", "max_batch_size": 1024, "backend": "onnxruntime",
        "digest": digest_of(graphs.scale(2)), "index": ["READY"] * 3,
        "answer": doubled, "id": "42", "version": "1", "asked": doubled,
        "text": ["é", "b"], "half": [[1, 2], [3, 4]], "half_type": "float16", "successes": 2,
        "wrong_shape": "StatusCode.INVALID_ARGUMENT", "unknown_model": "StatusCode.NOT_FOUND",
        "unknown_statistics": "StatusCode.INVALID_ARGUMENT",
        "unload": None, "unloaded": "StatusCode.NOT_FOUND", "load": None, "again": doubled,
        "asynchronous": [[[2 * i, 4 * i], [6 * i, 8 * i]] for i in range(20)],
    }  # fmt: skip
