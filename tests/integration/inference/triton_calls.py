"""What the stock Triton client sees of a pod. Runs in its own virtual environment: `triton_calls.py ADDRESS TOKEN`."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

address, token = sys.argv[1:3]
headers = {"authorization": f"Bearer {token}"}
rows = np.array([[1, 2], [3, 4]], dtype=np.float32)


def tensor(module, name, array):
    given = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array)
    return given


def refused(call, *arguments, **options):
    try:
        call(*arguments, headers=headers, **options)
    except InferenceServerException as error:
        return error.status()
    return "no error"


def blocking():
    client = triton.InferenceServerClient(address)
    scale = {"model_name": "scale", "inputs": [tensor(triton, "x", rows)], "headers": headers}
    answer = client.infer(request_id="42", **scale)
    asked = client.infer(outputs=[triton.InferRequestedOutput("y")], model_version="1", timeout=10_000_000, **scale)
    text = np.array([["é", "b"]], dtype=object)
    echo = client.infer("text", [tensor(triton, "x", text)], headers=headers)
    half = client.infer("half", [tensor(triton, "x", rows.astype(np.float16))], headers=headers)
    statistics = client.get_inference_statistics("scale", headers=headers, as_json=True)["model_stats"][0]
    config = client.get_model_config("scale", headers=headers).config
    return {
        "live": client.is_server_live(), "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("scale", headers=headers),
        "other_ready": client.is_model_ready("other", headers=headers),
        "server": client.get_server_metadata(headers=headers).name,
        "metadata": client.get_model_metadata("scale", headers=headers, as_json=True),
        "platform": config.platform, "max_batch_size": config.max_batch_size,
        "digest": config.parameters["digest"].string_value, "backend": config.backend,
        "index": [model.state for model in client.get_model_repository_index(headers=headers).models],
        "answer": answer.as_numpy("y").tolist(), "id": answer.get_response().id,
        "version": answer.get_response().model_version, "asked": asked.as_numpy("y").tolist(),
        "text": [element.decode() for element in echo.as_numpy("x" if echo.as_numpy("y") is None else "y").ravel()],
        "half": half.as_numpy("y").tolist(), "half_type": str(half.as_numpy("y").dtype),
        "successes": int(statistics["inference_stats"]["success"]["count"]),
        "wrong_shape": refused(client.infer, "scale", [tensor(triton, "x", rows[:, :1].copy())]),
        "unknown_model": refused(client.infer, "nobody", [tensor(triton, "x", rows)]),
        "unknown_statistics": refused(client.get_inference_statistics, "nobody"),
        "unload": client.unload_model("scale", headers=headers),
        "unloaded": refused(client.infer, "scale", [tensor(triton, "x", rows)]),
        "load": client.load_model("scale", headers=headers),
        "again": client.infer(**scale).as_numpy("y").tolist(),
    }  # fmt: skip


async def asynchronous():
    async with triton_aio.InferenceServerClient(address) as client:
        calls = [client.infer("scale", [tensor(triton_aio, "x", rows * i)], headers=headers) for i in range(20)]
        answers = await asyncio.gather(*calls)
        return [answer.as_numpy("y").tolist() for answer in answers]


print(json.dumps({**blocking(), "asynchronous": asyncio.run(asynchronous())}))
