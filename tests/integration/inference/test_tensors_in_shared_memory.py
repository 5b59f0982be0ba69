"""Tensors in /dev/shm, through a pod: in and out, between tenants, and with clients that pull the memory away."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from onnx import TensorProto

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod, running_pod
from support.served_registry import ServedRegistry

Code = grpc.StatusCode
SIZE = 4096


@pytest.fixture
def shared() -> Iterator[Path]:
    """An object of `SIZE` bytes in the machine's shared memory."""
    path = Path("/dev/shm") / f"modelyard-test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(SIZE))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
async def sharing(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> AsyncIterator[Pod]:
    """A pod that takes tensors in shared memory; `same` answers what it is given, `text` too."""
    registry.add("same", graphs.identity(TensorProto.FLOAT, ("batch", "any")))
    registry.add("text", graphs.identity(TensorProto.STRING, ("batch",)))
    settings = {"system_shared_memory": True, "max_request_bytes": 1 << 20}
    async with running_pod(registry_address, identity, tmp_path / "pod", **settings) as pod:
        for model in ("same", "text"):
            await pod.until_ready(model)
        yield pod


def register(
    path: Path, name: str = "r", offset: int = 0, byte_size: int = SIZE
) -> pb.SystemSharedMemoryRegisterRequest:
    return pb.SystemSharedMemoryRegisterRequest(name=name, key=f"/{path.name}", offset=offset, byte_size=byte_size)


def put(parameters: Any, byte_size: int, offset: int = 0, region: str = "r") -> None:
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = byte_size
    parameters["shared_memory_offset"].int64_param = offset


def request_for(shape: tuple[int, ...], *, at: int = 0, to: int | None = None) -> pb.ModelInferRequest:
    """Floats from the region, and if `to` is given back into it."""
    request = pb.ModelInferRequest(model_name="same")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=shape)
    size = 4 * int(np.prod(shape))
    put(tensor.parameters, size, at)
    if to is not None:
        put(request.outputs.add(name="y").parameters, size, to)
    return request


async def refusal(pod: Pod, request: pb.ModelInferRequest) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        await pod.infer(request)
    return raised.value


async def test_tensors_go_in_and_out_at_their_offsets(sharing: Pod, shared: Path) -> None:
    values = np.arange(8, dtype=np.float32)
    with shared.open("r+b") as file:
        file.seek(64 + 32)
        file.write(values.tobytes())
    await sharing.stub.SystemSharedMemoryRegister(register(shared, offset=64, byte_size=1024))
    response = await sharing.infer(request_for((2, 4), at=32, to=512))
    assert list(response.raw_output_contents) == [b""]
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("FP32", [2, 4])
    content = shared.read_bytes()  # noqa: ASYNC240 - a moment
    assert content[64 + 512 : 64 + 512 + 32] == values.tobytes()
    assert not any(content[64 + 544 :])


async def test_text_is_behind_its_lengths_in_memory_too(sharing: Pod, shared: Path) -> None:
    raw = b"\2\0\0\0hi\0\0\0\0"
    with shared.open("r+b") as file:
        file.write(raw)
    await sharing.stub.SystemSharedMemoryRegister(register(shared))
    request = pb.ModelInferRequest(model_name="text")
    put(request.inputs.add(name="x", datatype="BYTES", shape=[2]).parameters, len(raw))
    assert (await sharing.infer(request)).raw_output_contents[0] == raw


async def test_a_tensor_in_memory_is_checked_like_any_other(sharing: Pod, shared: Path) -> None:
    await sharing.stub.SystemSharedMemoryRegister(register(shared))
    short = request_for((1, 2))
    short.inputs[0].parameters["shared_memory_byte_size"].int64_param = 7
    outside = request_for((1, 2), at=SIZE - 4)
    both = request_for((1, 2))
    both.inputs[0].contents.fp32_contents.extend([1, 2])
    for request, text in ((short, "expected 8 bytes"), (outside, "inside the region"), (both, "got both")):
        error = await refusal(sharing, request)
        assert (error.code, error.violations[0].field) == (Code.INVALID_ARGUMENT, "inputs[0].contents")
        assert text in error.message
    small = request_for((1, 2), to=0)
    small.outputs[0].parameters["shared_memory_byte_size"].int64_param = 7
    error = await refusal(sharing, small)
    assert (error.code, error.violations[0].field) == (Code.INVALID_ARGUMENT, "outputs[0].parameters")
    assert "should be at least 8 bytes" in error.message


async def test_a_pod_survives_memory_that_is_pulled_away_while_it_is_used(sharing: Pod, shared: Path) -> None:
    """Touching a page of a mapped object that its owner has cut off would end this process, the tests included."""
    await sharing.stub.SystemSharedMemoryRegister(register(shared))
    request = request_for((1, 1000), to=0)

    async def call() -> str:
        try:
            await sharing.infer(request)
        except RemoteError as error:
            return error.message
        return "OK"

    seen: set[str] = set()
    for size in [SIZE, 0, 100, SIZE, 3999, SIZE] * 20:
        calls = [asyncio.create_task(call()) for _ in range(4)]
        os.truncate(shared, size)
        seen.update(await asyncio.gather(*calls))
    (refused,) = {text.partition(": ")[2].partition(": ")[2] for text in seen if text != "OK"}
    assert refused == "the object behind the region 'r' is smaller than when it was registered"
    assert "OK" in seen
    shared.unlink()  # noqa: ASYNC240 - a moment
    assert (await sharing.infer(request_for((1, 2)))).outputs[0].shape == [1, 2]


async def test_a_region_larger_than_a_request_may_be_is_read_in_parts_only(sharing: Pod, shared: Path) -> None:
    os.truncate(shared, 1 << 40)  # costs its owner nothing
    await sharing.stub.SystemSharedMemoryRegister(register(shared, byte_size=1 << 40))
    error = await refusal(sharing, request_for((1, 1 << 30)))
    assert (error.code, error.violations[0].field) == (Code.INVALID_ARGUMENT, "inputs[0].contents")
    response = await sharing.infer(request_for((1, 200_000), at=1 << 39))
    assert response.raw_output_contents[0] == bytes(800_000)


async def test_tenants_do_not_see_one_another_s_regions(sharing: Pod, shared: Path, identity: Identity) -> None:
    await sharing.stub.SystemSharedMemoryRegister(register(shared))
    async with aio_channel(sharing.address, fixed_token(identity.token("predictor", tenant="other"))) as channel:
        stub = AioInferenceStub(channel)
        assert not (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ModelInfer(request_for((1, 2)))
        assert raised.value.code() is Code.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SystemSharedMemoryRegister(register(shared, "mine"))
        assert raised.value.code() is Code.PERMISSION_DENIED
        await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    status = await sharing.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="r"))
    assert (status.regions["r"].key, status.regions["r"].byte_size) == (f"/{shared.name}", SIZE)
    assert (await sharing.infer(request_for((1, 2)))).outputs[0].shape == [1, 2]


async def test_raw_contents_are_for_the_inputs_that_are_not_in_memory(
    registry: ServedRegistry, sharing: Pod, shared: Path
) -> None:
    kinds = dict.fromkeys(("a", "b", "c"), (TensorProto.FLOAT, ("batch", 1)))
    nodes = [graphs.helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    registry.add("three", graphs.graph(nodes, kinds, {f"{name}_out": kind for name, kind in kinds.items()}))
    await sharing.until_ready("three")
    with shared.open("r+b") as file:
        file.write(np.float32(2).tobytes())
    await sharing.stub.SystemSharedMemoryRegister(register(shared))
    request = pb.ModelInferRequest(model_name="three")
    for name in ("a", "b", "c"):
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[1, 1])
        if name == "b":
            put(tensor.parameters, 4)
        else:
            request.raw_input_contents.append(np.float32(1 if name == "a" else 3).tobytes())
    response = await sharing.infer(request)
    assert [np.frombuffer(raw, np.float32)[0] for raw in response.raw_output_contents] == [1, 2, 3]
