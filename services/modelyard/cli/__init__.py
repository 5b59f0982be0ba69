"""The `modelyard` command: everything a person or a script does with a cluster, built on the Python client."""

import importlib
import os


def _import_grpc_quietly() -> None:
    """Keeps gRPC's core from writing to standard error, across whatever is drawn there, when a connection ends.

    The command tells of it in its own words. gRPC reads how much to say when it is imported. The programs that
    `modelyard up` starts decide for themselves.
    """
    said = "GRPC_VERBOSITY" in os.environ
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    importlib.import_module("grpc")
    if not said:
        del os.environ["GRPC_VERBOSITY"]


_import_grpc_quietly()
