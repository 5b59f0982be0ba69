"""`python -m modelyard.inference` as a process: from its environment to its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.probe import probe
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub
from support import graphs, hostile_graphs
from support.identity import Identity
from support.inference_pod import PodClient, infer_request, output, row
from support.required import missing
from support.served_registry import ServedRegistry
from support.waiting import eventually

MODULES = """
import json, sys
import modelyard.inference.__main__, modelyard.inference.application
print(json.dumps(sorted(sys.modules)))
"""


@asynccontextmanager
async def program(
    registry_address: str, identity: Identity, folder: Path, *, within: tuple[str, ...] = (), **settings: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The running program and its address. `within`: a command that becomes the one behind it."""
    token_file = folder / "token"
    token_file.write_text(identity.token("service"))
    address = f"unix:{folder}/pod.sock"
    variables = {
        "LISTEN": address, "REGISTRY_ADDRESS": registry_address, "CACHE_DIR": str(folder / "cache"),
        "TOKEN_KEYS_FILE": str(identity.keys_file), "TOKEN_FILE": str(token_file), **settings,
    }  # fmt: skip
    environment = os.environ | {f"MODELYARD_INFERENCE_{name}": value for name, value in variables.items()}
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *within, sys.executable, "-m", "modelyard.inference", env=environment, stderr=log
        )
        try:
            yield process, address
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def serving(address: str, service: str = "") -> None:
    """Returns when the program says that it serves."""

    async def well() -> bool:
        return await asyncio.to_thread(probe, address, service) == ""

    await eventually(well)


async def test_every_accepted_request_is_answered_when_the_program_is_told_to_stop(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("slow", graphs.slow())
    async with program(registry_address, identity, tmp_path) as (process, address):
        await serving(address, "slow")
        async with aio_channel(address, fixed_token(identity.token("predictor"))) as channel:
            stub = AioInferenceStub(channel)
            request = infer_request("slow", {"x": row(*[1.0] * 700)["x"].repeat(8, axis=0)})
            answered, refused = 0, []

            async def call_until_refused() -> None:
                nonlocal answered
                while True:
                    try:
                        response = await stub.ModelInfer(request)
                    except grpc.aio.AioRpcError as error:
                        refused.append(error.code())
                        return
                    assert output(response)[7][0] == 1
                    answered += 1

            callers = [asyncio.create_task(call_until_refused()) for _ in range(6)]

            async def under_way() -> bool:
                return answered >= 8

            await eventually(under_way)
            process.send_signal(signal.SIGTERM)
            await asyncio.gather(*callers)
        assert await asyncio.wait_for(process.wait(), timeout=30) == 0
    # A caller that comes too late is told that nobody is there (CANCELLED is what grpc answers in the last moment,
    # before anybody has looked at the call); the door takes both to another pod. No accepted call was cut off.
    assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    # Only predictions that failed have a line.
    assert [line for line in lines if line["event"] == "call" and line["method"].endswith("ModelInfer")] == []
    assert [line["event"] for line in lines if line["event"] in ("serving", "stopping", "stopped")] == [
        "serving",
        "stopping",
        "stopped",
    ]


async def test_a_program_that_cannot_work_says_why_and_ends(
    registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    async with program(registry_address, identity, tmp_path, DEVICE="cuda") as (process, _address):
        assert await asyncio.wait_for(process.wait(), timeout=60) != 0
    assert "computes nothing with CUDA here" in (tmp_path / "log").read_text()


async def test_an_open_program_answers_without_a_token(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("scale", graphs.scale(2))
    async with program(registry_address, identity, tmp_path, ANONYMOUS_PREDICT="true") as (_process, address):
        await serving(address, "scale")
        async with aio_channel(address) as channel:
            response = await AioInferenceStub(channel).ModelInfer(infer_request("scale", row(1, 2)))
            live = await AioInferenceStub(channel).ServerLive(pb.ServerLiveRequest())
    assert (output(response), live.live) == ([[2, 4]], True)


async def test_the_program_imports_no_more_than_it_may() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", MODULES, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    modules = {name.partition(".")[0] for name in json.loads(out)}
    assert {"onnxruntime", "numpy", "grpc"} <= modules
    assert not modules & {"torch", "onnx", "sqlalchemy", "celery", "pyarrow"}


@pytest.mark.parametrize("lane", ["direct", "express", "plain"])
async def test_the_program_ends_while_a_graph_computes_for_ever(
    lane: str, registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    registry.add("endless", hostile_graphs.looping())
    quick = {"LANE": lane, "DRAIN_DELAY_S": "0", "SHUTDOWN_GRACE_S": "0.5", "MAX_RUN_S": "3600"}
    async with program(registry_address, identity, tmp_path, within=(), **quick) as (process, address):
        await serving(address, "endless")
        async with aio_channel(address, fixed_token(identity.token("predictor"))) as channel:
            stub = AioInferenceStub(channel)
            stuck = asyncio.ensure_future(stub.ModelInfer(infer_request("endless", row(2.0**62))))
            await asyncio.wait([stuck], timeout=0.5)
            assert not stuck.done()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 30) == 0
            assert isinstance((await asyncio.gather(stuck, return_exceptions=True))[0], grpc.aio.AioRpcError)


async def test_a_full_disk_is_the_reason_given_stops_nothing_and_is_made_room_on(
    registry: ServedRegistry, registry_address: str, identity: Identity, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    own_disk = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=1m tmpfs {cache} && exec "$@"', "sh")
    if not await may(own_disk):
        missing("a user namespace with a disk of its own", "MODELYARD_TEST_NAMESPACES")
    registry.add("small", graphs.scale(2))
    async with program(registry_address, identity, tmp_path, within=own_disk, LOAD_RETRY_FIRST_S="0.1") as (_, address):
        await serving(address, "small")
        async with aio_channel(address, fixed_token(identity.token("predictor"))) as channel:
            pod = PodClient(address, AioInferenceStub(channel), channel)
            registry.add("large", graphs.weighty(1, 300_000))  # 1.2 MB
            reason = await pod.until_state("large", 1, "UNAVAILABLE")
            assert "the pod's disk: No space left on device" in reason
            assert output(await pod.predict("small", row(1, 2))) == [[2, 4]]
            registry.point("large", "live", None)
            for number in (3, 4):  # 0.7 MB each: the disk holds one, the cache's limit would allow both
                registry.add(f"m{number}", graphs.weighty(number, 175_000))
                await pod.until_ready(f"m{number}")
                assert output(await pod.predict(f"m{number}", row(2))) == [[2.0 * number]]
                registry.point(f"m{number}", "live", None)


async def may(command: tuple[str, ...]) -> bool:
    """Whether this machine lets us."""
    try:
        process = await asyncio.create_subprocess_exec(*command, "true", stderr=asyncio.subprocess.DEVNULL)
    except FileNotFoundError:
        return False
    return await process.wait() == 0
