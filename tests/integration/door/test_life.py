"""The program `python -m modelyard.door`: its checks, its start and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import grpc
import psutil
import pytest

from support.door import Yard, call, free_port, open_yard, unary
from support.waiting import eventually_sync

GET_MODEL = "/modelyard.v1.ModelService/GetModel"


@pytest.fixture
def own_yard() -> Iterator[Yard]:
    with open_yard() as yard:
        yield yard


def run_door(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    variables = {f"MODELYARD_DOOR_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "modelyard.door", *arguments]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"ACCESS_LOG": "true", "CORS_ORIGINS": "*", "CONCURRENCY": "1"}, id="everything"),
        pytest.param(
            {
                "GATEWAY_ADDRESSES": "gateway.yard.svc:8501",
                "REGISTRY_ADDRESSES": "10.0.0.1:8502,10.0.0.2:8502",
                "INFERENCE_ADDRESSES": "pods.yard.svc:8503,[::1]:8503",
            },
            id="cluster",
        ),
    ],
)
def test_envoy_accepts_the_configuration_and_calls_nothing_in_it_deprecated(settings: dict[str, str]) -> None:
    finished = run_door("--validate", LOG_LEVEL="warning", **settings)
    assert finished.returncode == 0, finished.stderr
    assert "eprecated" not in finished.stderr


def test_the_configuration_can_be_printed_for_an_envoy_that_runs_elsewhere() -> None:
    finished = run_door("--print", LISTEN="0.0.0.0:8500", ADMIN_SOCKET="/run/door/admin.sock")
    config = json.loads(finished.stdout)
    assert config["admin"]["address"]["pipe"]["path"] == "/run/door/admin.sock"
    assert config["static_resources"]["listeners"][0]["address"]["socket_address"]["address"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"GATEWAY_ADDRESSES": "gateway"}, "gateway_addresses"),
        ({"TLS_KEY_FILE": "/etc/hostname"}, "belong together"),
        ({"ENVOY_BINARY": "/no/such/envoy"}, "/no/such/envoy"),
    ],
)
def test_a_wrong_setting_ends_the_program_with_its_name(settings: dict[str, str], said: str) -> None:
    finished = run_door(**settings)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_stopping_door_lets_calls_end_first(own_yard: Yard) -> None:
    answers: list[bytes] = []
    with own_yard.door.channel() as channel:
        slow = threading.Thread(
            target=lambda: answers.append(call(channel, GET_MODEL, b"slow", [("x-behave", "slow")]))
        )
        slow.start()
        eventually_sync(lambda: own_yard.door.admin.running_calls("door") == 1)
        own_yard.door.process.send_signal(signal.SIGTERM)
        assert own_yard.door.process.wait(timeout=60) == 0
        slow.join()
    assert answers == [b"registry slow"]


def test_a_door_in_a_hurry_does_not_wait_for_calls(own_yard: Yard) -> None:
    with own_yard.door.channel() as channel:
        hanging = unary(channel, GET_MODEL).future(b"", metadata=[("x-behave", "hang")])
        eventually_sync(lambda: own_yard.door.admin.running_calls("door") == 1)
        own_yard.door.process.send_signal(signal.SIGTERM)
        eventually_sync(lambda: own_yard.door.statistic("listener_manager.total_listeners_draining") >= 0)
        own_yard.door.process.send_signal(signal.SIGTERM)
        assert own_yard.door.process.wait(timeout=60) == 0
        assert isinstance(hanging.exception(timeout=30), grpc.RpcError)


def test_envoy_does_not_outlive_a_killed_door(own_yard: Yard) -> None:
    (envoy,) = psutil.Process(own_yard.door.process.pid).children()
    own_yard.door.process.kill()
    gone, alive = psutil.wait_procs([envoy], timeout=30)
    assert (gone, alive) == ([envoy], [])


def test_a_door_ends_when_its_envoy_does(own_yard: Yard) -> None:
    (envoy,) = psutil.Process(own_yard.door.process.pid).children()
    envoy.kill()
    assert own_yard.door.process.wait(timeout=60) != 0


def test_two_doors_do_not_share_a_port(own_yard: Yard) -> None:
    second = run_door(LISTEN=own_yard.door.address)
    assert second.returncode != 0
    assert "Address already in use" in second.stderr


def test_the_access_log_has_a_line_per_call_without_the_token() -> None:
    with open_yard() as yard:
        port = free_port()
        command = [sys.executable, "-m", "modelyard.door"]
        settings = {
            "LISTEN": f"127.0.0.1:{port}",
            "REGISTRY_ADDRESSES": yard.registry.address,
            "ACCESS_LOG": "true",
        }
        variables = {f"MODELYARD_DOOR_{name}": value for name, value in settings.items()}
        door = subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = unary(channel, GET_MODEL)
            stub(
                b"",
                metadata=[("authorization", "Bearer s3cret"), ("x-request-id", "call-1")],
                wait_for_ready=True,
                timeout=60,
            )
        door.send_signal(signal.SIGTERM)
        _, log = door.communicate(timeout=60)
    (line,) = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert (line["method"], line["grpc_status"], line["request_id"]) == (GET_MODEL, "OK", "call-1")
    assert "s3cret" not in log
