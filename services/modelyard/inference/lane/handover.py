"""What the process around Envoy and the Python inside Envoy tell each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

GRPC_SOCKET_VARIABLE = "MODELYARD_POD_GRPC_SOCKET"
CONTROL_VARIABLE = "MODELYARD_POD_CONTROL"
EXECUTABLE_VARIABLE = "MODELYARD_POD_EXECUTABLE"

DRAIN = b"d"
"""Say NOT_SERVING, and go on answering."""
END_STREAMS = b"e"
"""Streams without an end of their own end now."""


@dataclass(frozen=True, slots=True)
class Handover:
    """What the Python inside Envoy is given at its start, by environment variables."""

    grpc_socket: str
    """Where it serves everything but ModelInfer, for Envoy: an absolute path."""
    control: int
    """The file descriptor of a pipe from which it reads the words above."""
    executable: str
    """The Python program, for whoever starts another."""

    def environment(self) -> dict[str, str]:
        """The variables."""
        return {
            GRPC_SOCKET_VARIABLE: self.grpc_socket,
            CONTROL_VARIABLE: str(self.control),
            EXECUTABLE_VARIABLE: self.executable,
        }

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Handover:
        """The variables as they were given; raises KeyError or ValueError."""
        return cls(
            environment[GRPC_SOCKET_VARIABLE], int(environment[CONTROL_VARIABLE]), environment[EXECUTABLE_VARIABLE]
        )
