"""The sockets on which the server listens."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from modelyard.core import logs
from modelyard.envoy.addresses import TcpAddress, UnixAddress, parse_address

log = logs.get_logger()

_BACKLOG = 4096
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that a name has and this machine has not, as ::1 where there is no IPv6."""
_PORTS_TRIED = 10

Place: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A socket's family and address."""


def listen(where: str) -> list[socket.socket]:
    """Listens on a Unix socket, or on all addresses that a host's name has here, all on one port; raises OSError."""
    address = parse_address(where, lowest_port=0)
    try:
        return [_listen_unix(address.path)] if isinstance(address, UnixAddress) else _listen_tcp(address)
    except OSError as error:
        raise OSError(f"cannot listen on {where}: {error}") from error


def real_address(where: str, listeners: Sequence[socket.socket]) -> str:
    """Where they listen, with the real port."""
    if listeners[0].family == socket.AF_UNIX:
        return where
    return f"{where.rpartition(':')[0]}:{listeners[0].getsockname()[1]}"


def _listen_unix(path: str) -> socket.socket:
    Path(path).unlink(missing_ok=True)  # a killed predecessor's
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(_BACKLOG)
    return listener


def _listen_tcp(address: TcpAddress) -> list[socket.socket]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, place) for family, _kind, _protocol, _name, place in found))
    dual = address.host == "::" and socket.has_dualstack_ipv6()
    tries = 1 if address.port or len(places) == 1 else _PORTS_TRIED
    while True:
        tries -= 1
        try:
            return _listen_at(places, dual=dual)
        except OSError as error:
            # The port that is free at the first address may be taken at another one.
            if error.errno != errno.EADDRINUSE or not tries:
                raise


def _listen_at(places: Sequence[Place], *, dual: bool) -> list[socket.socket]:
    """Listens at those of these places that are here, and at the first one's port."""
    listeners: list[socket.socket] = []
    port = None
    missing: list[OSError] = []
    try:
        for family, (host, asked, *scope) in places:
            place = (host, port or asked, *scope)
            try:
                listener = socket.create_server(place, family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing.append(error)
                continue
            listeners.append(listener)
            port = listener.getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise missing[0]
    for reason in missing:
        log.info("an address of the host is not here", error=str(reason))
    return listeners
