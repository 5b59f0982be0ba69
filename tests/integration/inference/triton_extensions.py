"""What the stock Triton client sees of the protocol's extensions. Runs in its own virtual environment:
`triton_extensions.py ADDRESS TOKEN PART`, where PART is a function here; prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException

address, token, part = sys.argv[1:4]
headers = {"authorization": f"Bearer {token}"}
client = triton.InferenceServerClient(address)


def tensor(name, array, datatype="FP32", module=triton):
    given = module.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def rows(number):
    return np.array([[number, number + 1]], dtype=np.float32)


def refused(call, *arguments, **options):
    try:
        call(*arguments, headers=headers, **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return "no error"


def datatypes():
    """Every datatype in and out, as it was sent: values and type by name."""
    seen = {}
    for name, values in json.loads(sys.argv[4]).items():
        kind = {"BYTES": object, "BF16": np.float32}.get(name) or np.dtype(name.lower().replace("fp", "float"))
        if name == "BYTES":
            values = [[value.encode() for value in row] for row in values]
        array = np.array(values, dtype=kind)
        answer = client.infer(name.lower(), [tensor("x", array, name)], headers=headers)
        back = answer.as_numpy("y")
        if name == "BYTES":
            back = np.vectorize(bytes.decode)(back)
        seen[name] = [answer.get_output("y").datatype, back.tolist()]
    return seen


def classification():
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    scores = np.array([[0.5, 3, -1, 2], [9, 8, 7, 10]], dtype=np.float32)
    answer = client.infer("four", [tensor("x", scores)], outputs=wanted, headers=headers)
    one = client.infer("vector", [tensor("x", scores[0])], outputs=wanted, headers=headers)
    return {
        "rows": np.vectorize(bytes.decode)(answer.as_numpy("y")).tolist(),
        "one": [element.decode() for element in one.as_numpy("y")],
        "datatype": answer.get_output("y").datatype,
        "of_text": refused(client.infer, "bytes", [tensor("x", np.array([[b"a"]], object), "BYTES")], outputs=wanted),
    }


def stream():
    """20 requests over one stream, two of them wrong, then a stream that an error ends."""
    replies = queue.Queue()

    def told(result, error):
        replies.put((result, error))

    client.start_stream(callback=told, headers=headers)
    for number in range(20):
        model = "nobody" if number in (3, 7) else "scale"
        client.async_stream_infer(
            model, [tensor("x", rows(number))], request_id=str(number), enable_empty_final_response=number % 2 == 0,
            priority=number % 3, sequence_id=number % 2, sequence_start=True, timeout=10_000_000,
        )  # fmt: skip
    client.stop_stream()
    seen = [replies.get_nowait() for _ in range(replies.qsize())]
    client.start_stream(callback=told, headers={**headers, "triton_grpc_error": "true"})
    client.async_stream_infer("nobody", [tensor("x", rows(0))])
    _, ended = replies.get(timeout=30)
    client.stop_stream()
    return {
        "ids": [result.get_response().id for result, error in seen if not error],
        "answers": [result.as_numpy("y").tolist() for result, error in seen if not error],
        "finals": [result.get_response().parameters["triton_final_response"].bool_param for result, e in seen if not e],
        "errors": [[index, error.message()] for index, (_, error) in enumerate(seen) if error],
        "ended": ended.status(),
        "left": replies.qsize(),
    }


def aio_stream():
    async def run():
        async def requests():
            for number in range(10):
                yield {"model_name": "scale", "inputs": [tensor("x", rows(number), module=triton_aio)],
                       "request_id": str(number)}  # fmt: skip

        async with triton_aio.InferenceServerClient(address) as own:
            return [
                [result.get_response().id, result.as_numpy("y").tolist(), error]
                async for result, error in own.stream_infer(requests(), headers=headers)
            ]

    return asyncio.run(run())


def shared_memory():
    key = f"/modelyard-test-{os.getpid()}"
    region = memory.create_shared_memory_region("region", key, 64)
    try:
        memory.set_shared_memory_region(region, [rows(1), rows(5)])
        client.register_system_shared_memory("region", key, 64, headers=headers)
        status = client.get_system_shared_memory_status(headers=headers, as_json=True)
        status["regions"]["region"].pop("key")
        given, wanted = triton.InferInput("x", [2, 2], "FP32"), triton.InferRequestedOutput("y")
        given.set_shared_memory("region", 16)
        wanted.set_shared_memory("region", 16, offset=32)
        answer = client.infer("scale", [given], outputs=[wanted], headers=headers)
        seen = {
            "status": status,
            "answer": memory.get_contents_as_numpy(region, np.float32, [2, 2], offset=32).tolist(),
            "in_message": len(answer.get_response().raw_output_contents[0]),
            "again": refused(client.register_system_shared_memory, "region", key, 64),
            "outside": refused(client.register_system_shared_memory, "other", key, 65),
            "unknown": refused(client.get_system_shared_memory_status, "other"),
            "cuda": client.get_cuda_shared_memory_status(headers=headers, as_json=True),
            "no_cuda": refused(client.register_cuda_shared_memory, "c", b"aGFuZGxl", 0, 64)[0],
            "cuda_unregister": client.unregister_cuda_shared_memory(headers=headers),
        }
        seen["streamed"] = streamed_through_memory(region, given, wanted)
        wanted.set_shared_memory("region", 8, offset=32)
        seen["too_small"] = refused(client.infer, "scale", [given], outputs=[wanted])[0]
        client.unregister_system_shared_memory("region", headers=headers)
        seen["gone"] = refused(client.infer, "scale", [given])
        seen["none"] = client.get_system_shared_memory_status(headers=headers, as_json=True)
        return seen
    finally:
        memory.destroy_shared_memory_region(region)


def streamed_through_memory(region, given, wanted):
    memory.set_shared_memory_region(region, [rows(7), rows(9)])
    replies = queue.Queue()
    client.start_stream(callback=lambda result, error: replies.put(error), headers=headers)
    client.async_stream_infer("scale", [given], outputs=[wanted])
    client.stop_stream()
    assert replies.get(timeout=30) is None
    return memory.get_contents_as_numpy(region, np.float32, [2, 2], offset=32).tolist()


def settings():
    return {
        "extensions": list(client.get_server_metadata(headers=headers).extensions),
        "log": client.get_log_settings(headers=headers, as_json=True)["settings"],
        "verbose": client.update_log_settings({"log_verbose_level": 1}, headers=headers, as_json=True)["settings"][
            "log_verbose_level"
        ],
        "quiet": client.update_log_settings({"log_verbose_level": 0}, headers=headers, as_json=True)["settings"][
            "log_verbose_level"
        ],
        "log_file": refused(client.update_log_settings, {"log_file": "/tmp/x"})[0],
        "trace": client.get_trace_settings(headers=headers, as_json=True)["settings"]["trace_mode"],
        "trace_file": refused(client.update_trace_settings, None, {"trace_file": "/tmp/x"})[0],
    }


print(json.dumps(globals()[part]()))
