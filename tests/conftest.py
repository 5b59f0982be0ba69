"""Fixtures for every test."""

from __future__ import annotations

import gc
from pathlib import Path

import hypothesis
import pytest

from modelyard.core.telemetry import keep_onnx_runtime_quiet
from support.identity import Identity

keep_onnx_runtime_quiet()

# Tests judge what comes out, not how fast: the machine may be busy with something else.
hypothesis.settings.register_profile("modelyard", deadline=None)
hypothesis.settings.load_profile("modelyard")


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at a gigabyte of it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    """A new signing key with its key set on disk."""
    folder = tmp_path / "identity"
    folder.mkdir()
    return Identity.create(folder)
