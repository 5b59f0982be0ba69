"""Pods that serve the conformance suite's reference models, as processes, one on each lane."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.conformance.models.graphs import reference_graph
from modelyard.conformance.reference import MODELS

from .background import serve_in_background
from .identity import Identity
from .lane_program import lane_program
from .served_registry import ServedRegistry

LANES = ("plain", "express", "direct")
_SETTINGS = {"SYSTEM_SHARED_MEMORY": "true", "TRIAL_LOADS": "false", "DRAIN_DELAY_S": "0"}


@dataclass(frozen=True)
class ConformancePod:
    """Where it listens, and a token that may do everything."""

    address: str
    token: str


@contextmanager
def conformance_pods() -> Iterator[Mapping[str, ConformancePod]]:
    """A pod on each lane with every reference model ready and shared memory allowed."""
    registry = ServedRegistry()
    for model in MODELS:
        registry.add(model.full_name, reference_graph(model))
    with tempfile.TemporaryDirectory(prefix="conformance-") as name, ExitStack() as stack:
        folder = Path(name)
        identity = Identity.create(folder)
        socket = f"unix:{folder}/registry.sock"
        served = stack.enter_context(serve_in_background(registry.service(), identity, socket))
        programs = {
            lane: stack.enter_context(lane_program(served.address, identity, folder / lane, lane=lane, **_SETTINGS))
            for lane in LANES
        }
        for program in programs.values():
            for model in MODELS:
                program.until_serving(model.full_name)
        token = identity.token("admin")
        yield {lane: ConformancePod(program.address, token) for lane, program in programs.items()}
