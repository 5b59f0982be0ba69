"""The door's direct lane as a whole: whether it is taken, its server, the pods it knows, the tunnels beside it."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence

from modelyard.envoy.process import Admin
from modelyard.http2 import library

from .front import Front
from .listener import Sockets
from .pods import healthy_pods
from .settings import DoorSettings
from .tunnels import Tunnels


class LaneUnavailable(Exception):
    """The lane that is asked for cannot run here; the text says why."""


def takes_direct_lane(settings: DoorSettings) -> bool:
    """Whether predictions go past Envoy. Says so on standard error, or why not, unless Envoy was asked for.

    Raises LaneUnavailable.
    """
    if settings.lane == "envoy":
        return False
    reason = _obstacle(settings)
    if reason is not None and settings.lane == "direct":
        raise LaneUnavailable(f"MODELYARD_DOOR_LANE=direct: {reason}")
    if reason is None:
        print("predictions take the door's direct lane, past Envoy", file=sys.stderr)
    else:
        print(f"the door's direct lane is not taken, predictions go through Envoy: {reason}", file=sys.stderr)
    return reason is None


def _obstacle(settings: DoorSettings) -> str | None:
    if settings.tls_certificate_file is not None:
        return "it has no TLS"
    if settings.access_log:
        return "it has no access log"
    try:
        library.check_requirements()
    except library.Unavailable as error:
        return str(error)
    return None


class DirectLane:
    """Use it in one event loop."""

    def __init__(self, settings: DoorSettings, behind: Sockets, admin: Admin) -> None:
        """`behind`: where Envoy listens. `admin`: its interface, which says which pods are well."""
        self._settings = settings
        self._behind = behind
        self._admin = admin
        self._tunnels = Tunnels(behind.tunnels, settings.max_connections)
        self._front = Front(self._tunnels.take)
        self._following: asyncio.Task[None] | None = None

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Serves on listening sockets until `close`. Raises OSError."""
        settings = self._settings
        self._front.open(
            listeners, self._behind.calls,
            max_message_bytes=settings.max_message_bytes, max_connections=settings.max_connections,
        )  # fmt: skip
        self._following = asyncio.create_task(self._follow())

    async def drain(self, hurry: asyncio.Event) -> None:
        """Lets calls end, for as long as the settings say or until it is urgent; without effect if it is not open."""
        if self._following is not None:
            await self._front.leave(self._settings.drain_s, hurry)

    async def close(self) -> None:
        """Closes all connections; without effect if it is not open."""
        if self._following is None:
            return
        self._following.cancel()
        await self._tunnels.close()
        self._front.close()

    async def _follow(self) -> None:
        """Sends predictions to the pods that Envoy finds well."""
        while True:
            try:
                self._front.set_pods(await asyncio.to_thread(healthy_pods, self._admin))
            except (OSError, ValueError, LookupError) as error:
                print(f"Envoy does not say which pods are well: {error}", file=sys.stderr)
            await asyncio.sleep(self._settings.health_interval_s)
