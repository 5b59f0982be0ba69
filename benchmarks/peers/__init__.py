"""Other servers of the Open Inference Protocol, set up and launched alike.

    with PEERS["triton"].running([ModelFile("small", Path("small.onnx"))]) as address:
        ...

On a command line: `python -m benchmarks.peers triton small=small.onnx` serves until Ctrl-C.
"""

from benchmarks.environments import SetUpFailed
from benchmarks.processes import StartFailed

from .kserve import KServe
from .mlserver import MLServer
from .peer import ModelFile, Peer, Tuning
from .triton import Triton

PEERS: dict[str, Peer] = {peer.name: peer for peer in (Triton(), MLServer(), KServe())}
"""By name."""

__all__ = ["PEERS", "KServe", "MLServer", "ModelFile", "Peer", "SetUpFailed", "StartFailed", "Triton", "Tuning"]
