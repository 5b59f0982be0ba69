"""Real pods, on both fast lanes, behind a real door, replaced while callers predict."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc.aio
import pytest

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.envoy.process import Admin
from modelyard.oip.service import AioInferenceStub
from support import graphs
from support.background import serve_in_background
from support.door import free_port
from support.identity import Identity
from support.inference_pod import infer_request, output, row
from support.lane_program import LaneProgram, lane_program
from support.served_registry import ServedRegistry
from support.waiting import eventually_sync

CALLERS = 8


@contextmanager
def door(folder: Path, pods: list[str]) -> Iterator[str]:
    """A door before these pods; yields its address."""
    address = f"127.0.0.1:{free_port()}"
    admin_socket = folder / "door-admin.sock"
    variables = {
        "LISTEN": address, "INFERENCE_ADDRESSES": ",".join(pods), "GATEWAY_ADDRESSES": f"unix:{folder}/none.sock",
        "REGISTRY_ADDRESSES": f"unix:{folder}/none.sock", "ADMIN_SOCKET": str(admin_socket),
        "CONFIG_FILE": str(folder / "door.json"),
    }  # fmt: skip
    environment = os.environ | {f"MODELYARD_DOOR_{name}": value for name, value in variables.items()}
    process = subprocess.Popen([sys.executable, "-m", "modelyard.door"], env=environment)
    try:
        eventually_sync(Admin(admin_socket).is_live, timeout=60)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lane", ["direct", "express"])
async def test_pods_are_replaced_under_load_and_no_call_fails(lane: str) -> None:
    registry = ServedRegistry()
    registry.add("scale", graphs.scale(2))
    with tempfile.TemporaryDirectory(prefix="swap-") as name, ExitStack() as stack:
        folder = Path(name)
        identity = Identity.create(folder)
        served = stack.enter_context(serve_in_background(registry.service(), identity, f"unix:{folder}/registry.sock"))
        addresses = [f"unix:{folder}/{pod}/pod.sock" for pod in "ab"]

        def start(pod: str) -> LaneProgram:
            program = stack.enter_context(lane_program(served.address, identity, folder / pod, lane=lane))
            program.until_serving("scale")
            return program

        pods = {pod: start(pod) for pod in "ab"}
        address = stack.enter_context(door(folder, addresses))
        outcomes: Counter[str] = Counter()
        over = asyncio.Event()
        async with aio_channel(address, fixed_token(identity.token("predictor"))) as channel:
            stub = AioInferenceStub(channel)
            callers = [asyncio.create_task(_call_until(over, stub, outcomes)) for _ in range(CALLERS)]
            for pod, how in (("a", signal.SIGTERM), ("b", signal.SIGTERM), ("a", signal.SIGKILL)):
                before = outcomes["answered"]
                pods[pod].process.send_signal(how)
                status = await asyncio.to_thread(pods[pod].process.wait, 60)
                assert status == (0 if how is signal.SIGTERM else -how)
                pods[pod] = await asyncio.to_thread(start, pod)
                assert outcomes["answered"] > before
            over.set()
            await asyncio.gather(*callers)
    assert set(outcomes) == {"answered"}


async def _call_until(over: asyncio.Event, stub: AioInferenceStub, outcomes: Counter[str]) -> None:
    request = infer_request("scale", row(1, 2))
    while not over.is_set():
        try:
            answer = await stub.ModelInfer(request)
        except grpc.aio.AioRpcError as error:
            outcomes[f"{error.code().name}: {error.details()}"] += 1
        else:
            outcomes["answered" if output(answer) == [[2, 4]] else "wrong"] += 1
