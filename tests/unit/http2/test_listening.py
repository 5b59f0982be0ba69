"""Where the direct lane listens: on all addresses that a host's name has here, on one port."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard.http2.listening import listen, real_address

NOT_HERE = ("203.0.113.7", "198.51.100.7")  # addresses for documents (RFC 5737), which no machine should have


def known_as(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> str:
    """A name that stands for these addresses, which a resolver's configuration would have to say otherwise."""
    resolve = socket.getaddrinfo

    def resolved(host: str, *rest: Any, **more: Any) -> list[Any]:
        return [found for one in (hosts if host == "pod.test" else [host]) for found in resolve(one, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return "pod.test"


@contextmanager
def listening(where: str) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(listener)) for listener in listen(where)]


def hosts_of(listeners: Sequence[socket.socket]) -> list[str]:
    return [listener.getsockname()[0] for listener in listeners]


def test_a_name_stands_for_all_its_addresses_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    name = known_as(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1", *(["::1"] if socket.has_ipv6 else []))
    with listening(f"{name}:0") as listeners:
        assert hosts_of(listeners)[:2] == ["127.0.0.1", "127.0.0.2"]
        assert hosts_of(listeners)[2:] in ([], ["::1"])
        (port,) = {listener.getsockname()[1] for listener in listeners}
        assert real_address(f"{name}:0", listeners) == f"{name}:{port}"
        for host in hosts_of(listeners):
            socket.create_connection((host, port)).close()


def test_addresses_that_are_not_here_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    name = known_as(monkeypatch, NOT_HERE[0], "127.0.0.2")
    with listening(f"{name}:0") as listeners:
        assert hosts_of(listeners) == ["127.0.0.2"]


def test_a_name_with_no_address_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = known_as(monkeypatch, *NOT_HERE)
    with pytest.raises(OSError, match=rf"cannot listen on {name}:0: .*Cannot assign requested address.*{NOT_HERE[0]}"):
        listen(f"{name}:0")


def test_a_port_that_somebody_has_at_one_address_is_refused_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        name = known_as(monkeypatch, "127.0.0.1", "127.0.0.2")
        with pytest.raises(OSError, match=f"cannot listen on {name}:{port}: .*Address already in use"):
            listen(f"{name}:{port}")
    with listening(f"127.0.0.1:{port}"):
        pass  # what it had begun with is free again


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(OSError, match=r"cannot listen on nobody\.invalid:0: "):
        listen("nobody.invalid:0")


def test_a_unix_socket_may_be_there_already(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/pod.sock"
    with listening(where), listening(where) as listeners:
        assert real_address(where, listeners) == where
