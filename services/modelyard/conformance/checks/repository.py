"""RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload.

Only the reference model `unbatched` is ever unloaded, never the model under test: a check may run against a server that
others use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from modelyard.conformance.answers import NOT_FOUND
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.oip import open_inference_pb2 as pb

from .model import UNKNOWN

EXTENSION: Final = "model_repository"
_STATES: Final = frozenset({"READY", "UNAVAILABLE", "LOADING", "UNLOADING", "UNKNOWN"})
_PAUSE_S: Final = 0.05


def _load(probe: Probe, name: str) -> None:
    probe.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name)).ok(pb.RepositoryModelLoadResponse)


def _unload(probe: Probe, name: str) -> None:
    request = pb.RepositoryModelUnloadRequest(model_name=name)
    probe.call("RepositoryModelUnload", request).ok(pb.RepositoryModelUnloadResponse)


def _is_ready(probe: Probe, name: str) -> bool:
    return probe.call("ModelReady", pb.ModelReadyRequest(name=name)).ok(pb.ModelReadyResponse).ready


def _until(probe: Probe, condition: Callable[[], bool]) -> bool:
    """Whether the condition became true within the time of one call."""
    deadline = time.monotonic() + probe.target.timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


@check("repository.index", Level.TRITON, extension=EXTENSION)
def index(probe: Probe) -> None:
    """RepositoryIndex lists the served model as READY, and knows the states only. (Triton.)"""
    answer = probe.call("RepositoryIndex", pb.RepositoryIndexRequest()).ok(pb.RepositoryIndexResponse)
    states = [row.state for row in answer.models if row.name == probe.target.model]
    probe.notes.expect("READY" in states, f"{probe.target.model} READY", states or "no such row")
    strange = {row.state for row in answer.models} - _STATES - {""}
    probe.notes.expect(not strange, "known states", sorted(strange))


@check("repository.index_ready", Level.TRITON, extension=EXTENSION)
def index_ready(probe: Probe) -> None:
    """RepositoryIndex with `ready` lists ready models only. (Triton.)"""
    answer = probe.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).ok(pb.RepositoryIndexResponse)
    others = [f"{row.name} {row.state}" for row in answer.models if row.state != "READY"]
    names = [row.name for row in answer.models]
    good = probe.target.model in names and not others
    probe.notes.expect(good, f"{probe.target.model} and nothing that is not ready", others or names or "no row")


@check("repository.load_unknown", Level.TRITON, extension=EXTENSION)
def load_unknown(probe: Probe) -> None:
    """Loading an unknown model is an error. (Triton: INTERNAL.)"""
    probe.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=UNKNOWN)).refused()


@check("repository.unload_unknown", Level.TRITON, extension=EXTENSION)
def unload_unknown(probe: Probe) -> None:
    """Unloading an unknown model is OK. (Triton.)"""
    _unload(probe, UNKNOWN)


@check("repository.load_parameter", Level.TRITON, extension=EXTENSION)
def load_parameter(probe: Probe) -> None:
    """Loading with an unknown parameter is an error. (Triton: INVALID_ARGUMENT; reference model `unbatched`.)"""
    request = pb.RepositoryModelLoadRequest(model_name=probe.reference("unbatched").name)
    request.parameters["conformance_unknown"].string_param = "x"
    probe.call("RepositoryModelLoad", request).refused()


@check("repository.load_again", Level.TRITON, extension=EXTENSION)
def load_again(probe: Probe) -> None:
    """Loading a loaded model is OK, and it answers afterwards. (Triton; reference model `unbatched`.)"""
    model = probe.reference("unbatched")
    _load(probe, model.name)
    probe.infer(model.request()).ok(pb.ModelInferResponse)


@check("repository.unload", Level.TRITON, extension=EXTENSION)
def unload(probe: Probe) -> None:
    """An unloaded model is not ready and NOT_FOUND; loaded again it answers. (Triton; reference model `unbatched`.)"""
    model = probe.reference("unbatched")
    _unload(probe, model.name)
    try:
        gone = _until(probe, lambda: not _is_ready(probe, model.name))
        probe.notes.expect_so(gone, "not ready after the unload", "still ready")
        probe.infer(model.request()).has_code(NOT_FOUND)
    finally:
        with probe.notes.aside():
            _load(probe, model.name)
    back = _until(probe, lambda: _is_ready(probe, model.name))
    probe.notes.expect_so(back, "ready after the load", "not ready")
    probe.infer(model.request()).ok(pb.ModelInferResponse)
