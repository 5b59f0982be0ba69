"""A dependency that a laptop may lack: without it a test is skipped there, and fails where it was promised."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, variable: str) -> NoReturn:
    """Skips the test; fails it in CI when `variable` says `require`."""
    if os.environ.get("CI") and os.environ.get(variable) == "require":
        pytest.fail(f"{what} is missing, and {variable}=require")
    pytest.skip(f"{what} is not installed")
