"""Where pods live that run as processes on one lane: a registry with two models, and a folder for all they write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import graphs
from .background import serve_in_background
from .identity import Identity
from .lane_program import LaneProgram, lane_program
from .served_registry import ServedRegistry


@dataclass(frozen=True)
class Yard:
    """A registry, and a folder for the pods before it. Its path fits a socket's."""

    folder: Path
    identity: Identity
    registry: str
    lane: str

    def pod(self, name: str, **settings: str) -> AbstractContextManager[LaneProgram]:
        """A pod on the lane, with a folder of this name."""
        return lane_program(self.registry, self.identity, self.folder / name, lane=self.lane, **settings)


@contextmanager
def lane_yard(lane: str) -> Iterator[Yard]:
    """A yard whose pods serve `scale`, which doubles, and `slow`."""
    registry = ServedRegistry()
    registry.add("scale", graphs.scale(2))
    registry.add("slow", graphs.slow())
    with tempfile.TemporaryDirectory(prefix="pods-") as name:
        folder = Path(name)
        identity = Identity.create(folder)
        with serve_in_background(registry.service(), identity, f"unix:{folder}/registry.sock") as served:
            yield Yard(folder, identity, served.address, lane)


def left_in(folder: Path) -> list[Path]:
    """What a pod has left of what it made for the time that it ran."""
    return [path for pattern in ("modelyard-*", "*.sock") for path in folder.glob(pattern)]
