"""ServerLive, ServerReady, ServerMetadata."""

from __future__ import annotations

from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.oip import open_inference_pb2 as pb


@check("server.live", Level.REQUIRED)
def live(probe: Probe) -> None:
    """ServerLive says live. (Protocol: health.)"""
    answer = probe.call("ServerLive").ok(pb.ServerLiveResponse)
    probe.notes.expect(answer.live, "live: true", f"live: {answer.live}")


@check("server.ready", Level.REQUIRED)
def ready(probe: Probe) -> None:
    """ServerReady says ready while models are served. (Protocol: health.)"""
    answer = probe.call("ServerReady").ok(pb.ServerReadyResponse)
    probe.notes.expect(answer.ready, "ready: true", f"ready: {answer.ready}")


@check("server.metadata", Level.REQUIRED)
def metadata(probe: Probe) -> None:
    """ServerMetadata names the server and its version. (Protocol: server metadata.)"""
    answer = probe.call("ServerMetadata").ok(pb.ServerMetadataResponse)
    probe.notes.expect(bool(answer.name and answer.version), "a name and a version", answer)


@check("server.extensions", Level.TRITON)
def extensions(probe: Probe) -> None:
    """The declared extensions are names, each given once. (Triton: clients look for the names they know.)"""
    declared = list(probe.call("ServerMetadata").ok(pb.ServerMetadataResponse).extensions)
    probe.notes.expect(all(declared) and len(set(declared)) == len(declared), "distinct names", declared)
