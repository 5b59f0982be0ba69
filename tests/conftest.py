"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.identity import Identity


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    """A new signing key with its key set on disk."""
    folder = tmp_path / "identity"
    folder.mkdir()
    return Identity.create(folder)
