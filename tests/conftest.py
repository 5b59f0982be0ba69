"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from support.identity import Identity

# Tests judge what comes out, not how fast: the machine may be busy with something else.
hypothesis.settings.register_profile("modelyard", deadline=None)
hypothesis.settings.load_profile("modelyard")


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    """A new signing key with its key set on disk."""
    folder = tmp_path / "identity"
    folder.mkdir()
    return Identity.create(folder)
