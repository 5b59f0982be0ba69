"""Asks a program whether it is well: `python -m modelyard.core.probe ADDRESS [SERVICE]`.

For container health checks. Exit code 0 if grpc.health.v1 answers SERVING, else 1 with one line that says why.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 3.0


def probe(address: str, service: str = "", *, timeout_s: float = _TIMEOUT_S) -> str:
    """Why the service at this address is not well; empty if it is. `address`: `host:port` or `unix:/path`."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # the stub sets it on itself
                request, timeout=timeout_s
            )
        except grpc.RpcError as error:
            call: grpc.Call = error  # type: ignore[assignment]  # what a stub raises is a call too
            return f"{call.code().name}: {call.details()}"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main() -> None:
    """The command."""
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python -m modelyard.core.probe ADDRESS [SERVICE]")
    sys.exit(probe(*sys.argv[1:]) or 0)


if __name__ == "__main__":
    main()
