"""The line that tells Envoy whose a tunnelled connection is."""

from __future__ import annotations

import socket

import pytest

from modelyard.door.tunnels import proxy_line


@pytest.mark.parametrize(
    ("family", "host", "version"), [(socket.AF_INET, "127.0.0.1", "TCP4"), (socket.AF_INET6, "::1", "TCP6")]
)
def test_both_ends_are_named(family: socket.AddressFamily, host: str, version: str) -> None:
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"{host} is not here")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        accepted, _ = listener.accept()
        with accepted:
            port, here = client.getsockname()[1], listener.getsockname()[1]
            assert proxy_line(accepted) == f"PROXY {version} {host} {host} {port} {here}\r\n".encode()


def test_a_unix_socket_has_no_address() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert proxy_line(left) == b"PROXY UNKNOWN\r\n"
