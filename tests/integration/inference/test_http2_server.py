"""The pod's own HTTP/2 server, without a pod behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import grpc

from modelyard.inference.lane.arrivals import ArrivingCall, JointArrival
from modelyard.inference.lane.http2_server import Http2Server

PATH = "/some.Service/Method"
PATIENCE_S = 20.0


class Receiver:
    """Answers calls with their own message, and does not come back before the caller has heard."""

    def __init__(self, heard: threading.Event) -> None:
        self._heard = heard
        self.was_heard: list[bool] = []

    def arrived(self, call: ArrivingCall) -> None:
        call.answer(call.message or b"")
        self.was_heard.append(self._heard.wait(PATIENCE_S))

    def arrived_together(self, arrival: JointArrival) -> None:
        raise AssertionError("nothing comes together here")

    def coming(self, call: ArrivingCall) -> None:
        pass

    def completed(self, call: ArrivingCall) -> None:
        self.arrived(call)

    def gone(self, identifier: int, request_id: bytes | None) -> None:
        pass

    def all_told(self) -> None:
        pass


def call_once(address: str, heard: threading.Event) -> bytes:
    with grpc.insecure_channel(address) as channel:
        answer: bytes = channel.unary_unary(PATH)(b"hello", timeout=PATIENCE_S, wait_for_ready=True)
        heard.set()
    return answer


async def test_the_answer_to_a_lone_call_is_sent_at_once(tmp_path: Path) -> None:
    """Not when the receiver comes back: it counts what it answered, and the caller need not wait for that."""
    heard = threading.Event()
    receiver = Receiver(heard)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Http2Server()
    server.open(receiver, [listener], PATH, str(tmp_path / "nobody"), max_message_bytes=1024, max_connections=8)
    try:
        answer = await asyncio.to_thread(call_once, f"127.0.0.1:{listener.getsockname()[1]}", heard)
    finally:
        server.close()
    assert answer == b"hello"
    assert receiver.was_heard == [True]
