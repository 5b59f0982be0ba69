"""Where pods live that run as processes on one lane: a registry with two models, and a folder for all they write."""

from __future__ import annotations

import os
import subprocess
import sys
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

    def beginning(self, first: str, lane: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """How a pod ends that has this Python run first, and is to use CUDA, which is not here."""
        program = f"import sys\n{first}\nfrom modelyard.inference.__main__ import main\nsys.exit(main())"
        settings = {
            "LANE": lane, "DEVICE": "cuda", "REGISTRY_ADDRESS": "unix:/nowhere",
            "CACHE_DIR": str(self.folder / "without"), "TOKEN_KEYS_FILE": str(self.identity.keys_file),
        }  # fmt: skip
        variables = {f"MODELYARD_INFERENCE_{name}": value for name, value in settings.items()}
        return subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | variables | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


NO_LIBRARY = "the package was installed without a C compiler, and so without its native "
"""How a lane says so; then "library" or "libraries"."""


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
