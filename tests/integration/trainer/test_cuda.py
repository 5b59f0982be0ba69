"""The same on an accelerator: a training killed again and again ends in the bytes of an undisturbed one.

Needs a GPU, and otherwise only what the trainer itself needs. Without this project's environment, at the top of the
sources:

    export PYTHONPATH=services:workers:tests
    python3 -m pytest -c /dev/null --rootdir . --noconftest tests/integration/trainer/test_cuda.py

or, where there is no pytest, with what each trainer printed:

    python3 -m support.interrupted_training
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch

from support import interrupted_training
from support.interrupted_training import CASES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("name", CASES)
def test_killed_on_an_accelerator_it_ends_in_the_same_model(tmp_path: Path, name: str) -> None:
    case, chance = CASES[name], random.Random(name)
    reference, seconds = interrupted_training.train_in_peace(tmp_path / "peace", case)
    assert "on cuda" in reference.output
    signals = chance.sample([signal.SIGTERM, signal.SIGTERM, signal.SIGKILL], k=3)
    trainers = interrupted_training.train_with_kills(tmp_path / "kills", case, chance, signals, seconds / 3)
    assert any("going on from the checkpoint" in trainer.output for trainer in trainers)
    assert interrupted_training.same_model(reference, trainers[-1])
