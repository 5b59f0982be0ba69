"""Browsers: gRPC-Web over HTTP/1.1, and what CORS lets them do."""

from __future__ import annotations

import http.client
import struct
from collections.abc import Iterator

import pytest

from support.door import Yard
from support.waiting import eventually_sync

PAGE_ORIGIN = "https://console.example.com"
GET_MODEL = "/modelyard.v1.ModelService/GetModel"
TRAILERS = 0x80


@pytest.fixture
def connection(yard: Yard) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", yard.door.port, timeout=30)
    yield connection
    connection.close()


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        kind, length = struct.unpack(">BI", body[:5])
        found.append((kind, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def post(connection: http.client.HTTPConnection, path: str, message: bytes, **headers: str) -> http.client.HTTPResponse:
    sent = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body=frame(message), headers=sent)
    return connection.getresponse()


def test_a_unary_call_is_answered_with_its_status_in_the_body(connection: http.client.HTTPConnection) -> None:
    response = post(connection, GET_MODEL, b"hello", origin=PAGE_ORIGIN)
    (message_kind, message), (trailers_kind, trailers) = frames(response.read())
    assert response.status == 200
    assert response.headers["content-type"] == "application/grpc-web+proto"
    assert response.headers["access-control-allow-origin"] == PAGE_ORIGIN
    assert (message_kind, message) == (0, b"registry hello")
    assert trailers_kind == TRAILERS
    assert b"grpc-status:0\r\n" in trailers


def test_an_unknown_method_is_told_as_a_grpc_status_too(connection: http.client.HTTPConnection) -> None:
    response = post(connection, "/unheard.Of/Anything", b"")
    assert response.headers["grpc-status"] == "12"
    assert "offers no such method" in response.headers["grpc-message"]
    assert b"<html" not in response.read()


def test_the_callers_deadline_ends_a_call_at_the_door(connection: http.client.HTTPConnection) -> None:
    """HTTP/1.1 has no deadline of its own: what answers here is the door.

    Unless the service, which hears of the deadline too and ends the call at the same moment, was quicker: then it is
    asked again.
    """

    def by_the_door() -> bool:
        response = post(connection, GET_MODEL, b"", grpc_timeout="200m", x_behave="hang")
        response.read()
        return response.headers["grpc-message"] == "the time for the call was over before the service answered"

    eventually_sync(by_the_door)


def test_a_preflight_from_an_allowed_page_is_answered_by_the_door(connection: http.client.HTTPConnection) -> None:
    connection.request("OPTIONS", GET_MODEL, headers={"origin": PAGE_ORIGIN, "access-control-request-method": "POST"})
    response = connection.getresponse()
    assert response.headers["access-control-allow-origin"] == PAGE_ORIGIN
    assert "authorization" in response.headers["access-control-allow-headers"]


def test_a_page_from_elsewhere_is_allowed_nothing(connection: http.client.HTTPConnection) -> None:
    connection.request(
        "OPTIONS", GET_MODEL, headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert "access-control-allow-origin" not in connection.getresponse().headers
