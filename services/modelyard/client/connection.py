"""Where the cluster is and who we are: said by the caller, else by the environment, else by a cluster on this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from modelyard.core import channels
from modelyard.core.errors import RemoteError, raise_remote
from modelyard.local import state

DEFAULT_TIMEOUT_S = 60.0
"""How long a call may take unless said otherwise; uploads, downloads and watches have no limit."""

_RESETS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED})
"""What gRPC makes of a stream that was reset, by whom and when it was."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A cluster's door and a token for it."""

    address: str
    """`host:port`, or `https://host:port` for TLS."""
    token: str

    @classmethod
    def find(cls, address: str | None = None, token: str | None = None) -> Endpoint:
        """Fills in what is not given from MODELYARD_ADDRESS and MODELYARD_TOKEN, then from a running local cluster.

        A local cluster's token is only used with its own address: it is no business of any other.
        """
        address = address or os.environ.get("MODELYARD_ADDRESS")
        token = token if token is not None else os.environ.get("MODELYARD_TOKEN")
        local = state.discover()
        if local and (address is None or address == local.address):
            address = local.address
            token = token if token is not None else Path(local.token_file).read_text().strip()
        if address is None:
            raise ConnectionError(
                "no cluster: start one with `modelyard up`, or set MODELYARD_ADDRESS (and MODELYARD_TOKEN)"
            )
        return cls(address, token or "")


class Connection:
    """An open channel with the token on every call; errors come out as RemoteError."""

    def __init__(self, endpoint: Endpoint, *, root_certificates: bytes | None = None) -> None:
        """`root_certificates`: PEM, to trust a private authority for `https://`."""
        self.endpoint = endpoint
        address, tls = endpoint.address, endpoint.address.startswith("https://")
        self.channel = channels.sync_channel(
            address.removeprefix("https://").removeprefix("http://"),
            channels.fixed_token(endpoint.token),
            tls=tls,
            root_certificates=root_certificates,
        )

    def close(self) -> None:
        """Closes the channel."""
        self.channel.close()


@contextmanager
def translated() -> Iterator[None]:
    """Raises RemoteError for what a stub raises inside."""
    try:
        yield
    except grpc.RpcError as error:
        raise_remote(error)


def is_break(error: RemoteError) -> bool:
    """Whether the connection broke, rather than a service having answered: our services always give a reason."""
    return error.code is grpc.StatusCode.UNAVAILABLE or (error.code in _RESETS and not error.reason)


def pages(fetch: Callable[[str], tuple[list[Answer], str]], limit: int | None) -> Iterator[Answer]:
    """All items of a paged list, at most `limit`. `fetch` takes a page token and answers a page and the next token."""
    token, given = "", 0
    while True:
        items, token = fetch(token)
        for item in items:
            if limit is not None and given >= limit:
                return
            yield item
            given += 1
        if not token:
            return


__all__ = ["DEFAULT_TIMEOUT_S", "Connection", "Endpoint", "RemoteError", "is_break", "pages", "translated"]
