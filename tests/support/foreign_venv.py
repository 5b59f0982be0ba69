"""A virtual environment for programs that must not share ours: the stock Triton client, which wants an older NumPy.

`make setup` makes it; a checkout without one gets it here, once. It lies in the repository's root, outside Git.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-tritonclient"
REQUIREMENT = "tritonclient[grpc]==2.50.0"


@cache
def triton_python() -> Path:
    """The interpreter that can import tritonclient and nothing of ours."""
    python = FOLDER / "bin" / "python"
    if not _has_client(python):
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True)
    return python


def _has_client(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([python, "-c", "import tritonclient.grpc"], capture_output=True, check=False).returncode == 0
