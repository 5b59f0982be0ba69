"""Predictions go from the door straight to the pods, and nobody can tell but by the time it takes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest

from support.door import Yard, call, open_yard, unary
from support.waiting import eventually_sync

INFER = "/inference.GRPCInferenceService/ModelInfer"
READY = "/inference.GRPCInferenceService/ModelReady"
TO_PODS = "cluster.inference-hosts.upstream_rq_total"


@pytest.fixture(scope="module")
def direct_yard() -> Iterator[Yard]:
    with open_yard(LANE="direct") as yard:
        yield yard


def goes_past_envoy(yard: Yard, channel: grpc.Channel) -> bool:
    before = yard.door.statistic(TO_PODS)
    call(channel, INFER)
    return yard.door.statistic(TO_PODS) == before


@pytest.fixture
def channel(direct_yard: Yard) -> Iterator[grpc.Channel]:
    with direct_yard.door.channel() as channel:
        eventually_sync(lambda: goes_past_envoy(direct_yard, channel))
        yield channel


def test_predictions_go_past_envoy_and_every_other_call_through_it(direct_yard: Yard, channel: grpc.Channel) -> None:
    before = direct_yard.door.statistic(TO_PODS)
    assert {call(channel, INFER) for _ in range(20)} == {b"pod-a hello", b"pod-b hello"}
    assert direct_yard.door.statistic(TO_PODS) == before
    call(channel, READY)
    assert direct_yard.door.statistic(TO_PODS) == before + 1


def test_what_no_pod_has_begun_to_answer_is_sent_through_envoy(direct_yard: Yard, channel: grpc.Channel) -> None:
    before = direct_yard.door.statistic(TO_PODS)
    assert {call(channel, INFER, b"x", [("x-behave", "unavailable-pod-a")]) for _ in range(20)} == {b"pod-b x"}
    assert direct_yard.door.statistic(TO_PODS) > before


def test_a_pod_that_is_killed_while_it_works_costs_no_call(direct_yard: Yard) -> None:
    victim = direct_yard.pods[0]
    with direct_yard.door.channel() as channel:
        tags = [f"killed-{number}" for number in range(10)]
        futures = [unary(channel, INFER).future(b"x", metadata=[("x-behave", "slow"), ("x-tag", t)]) for t in tags]
        eventually_sync(lambda: len(victim.calls("killed")) > 0)
        victim.end(signal.SIGKILL)
        try:
            assert {future.result(timeout=60) for future in futures} == {b"pod-b x"}
        finally:
            victim.start()
            eventually_sync(lambda: call(channel, INFER).startswith(b"pod-a"))


def test_a_pod_that_hangs_gets_no_more_calls_once_its_health_checks_fail(direct_yard: Yard) -> None:
    hung, other = direct_yard.pods

    def ten_are_answered(channel: grpc.Channel) -> bool:
        futures = [unary(channel, INFER).future(b"x", timeout=1) for _ in range(10)]
        return {future.exception() or future.result() for future in futures} == {f"{other.name} x".encode()}

    with direct_yard.door.channel() as channel:
        hung.send(signal.SIGSTOP)
        try:
            eventually_sync(lambda: ten_are_answered(channel), timeout=60)
        finally:
            hung.send(signal.SIGCONT)
        eventually_sync(lambda: call(channel, INFER).startswith(hung.name.encode()), timeout=60)


def test_the_pod_hears_of_a_callers_cancel(direct_yard: Yard, channel: grpc.Channel) -> None:
    hanging = unary(channel, INFER).future(b"x", metadata=[("x-behave", "hang"), ("x-tag", "cancelled")])
    eventually_sync(lambda: any(pod.calls("cancelled") for pod in direct_yard.pods))
    hanging.cancel()
    eventually_sync(lambda: any(pod.cancelled("cancelled") for pod in direct_yard.pods))


async def test_what_the_calls_of_a_stopping_door_wait_for_is_still_answered() -> None:
    with open_yard(LANE="direct") as yard:
        async with yard.door.aio_channel() as channel:
            slow = asyncio.ensure_future(
                unary(channel, INFER)(b"x", metadata=[("x-behave", "slow"), ("x-tag", "last")])
            )
            while not any(pod.calls("last") for pod in yard.pods):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.01)
            yard.door.process.send_signal(signal.SIGTERM)
            assert (await slow).endswith(b" x")
            assert await asyncio.to_thread(yard.door.process.wait, 60) == 0


def test_a_connection_that_does_not_speak_http2_reaches_envoy_byte_by_byte(direct_yard: Yard) -> None:
    request = b"POST /nothing HTTP/1.1\r\nhost: door\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", direct_yard.door.port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            client.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404")


def run_door(**settings: str) -> subprocess.CompletedProcess[str]:
    variables = {f"MODELYARD_DOOR_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "modelyard.door", "--validate"]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )


def test_who_insists_on_the_lane_is_told_what_it_cannot_do() -> None:
    finished = run_door(LANE="direct", ACCESS_LOG="true")
    assert finished.returncode == 2
    assert "it has no access log" in finished.stderr


def test_who_does_not_insist_is_told_why_it_is_not_taken() -> None:
    finished = run_door(ACCESS_LOG="true")
    assert finished.returncode == 0
    assert "the door's direct lane is not taken" in finished.stderr


def test_who_asks_for_envoy_is_told_nothing() -> None:
    assert "direct lane" not in run_door(LANE="envoy", ACCESS_LOG="true").stderr
