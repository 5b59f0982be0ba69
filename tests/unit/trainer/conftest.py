"""Fixtures of the trainer's parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    """Deterministic algorithms, a fixed seed and one thread, as in the trainer's own process; undone afterwards."""
    before = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    torch.set_deterministic_debug_mode("error")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_deterministic_debug_mode(before[0])
    torch.set_num_threads(before[1])
