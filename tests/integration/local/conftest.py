"""Folders for a cluster, and a place where it is written down that is not the developer's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Folders:
    """Where a test's cluster keeps its things."""

    data: Path
    programs: Path
    """For the fake programs' notes."""
    state: Path
    """Where clients look for a cluster."""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "programs").mkdir()
    return Folders(tmp_path / "data", tmp_path / "programs", tmp_path / "state/modelyard")
