"""A scripted job, and the command beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Command
from support.identity import Identity
from support.scripted_training import Script, scripted_training


@pytest.fixture
def script(identity: Identity, tmp_path: Path) -> Iterator[Script]:
    """A job that waits."""
    with scripted_training(identity, tmp_path) as one:
        yield one


@pytest.fixture
def command(script: Script, identity: Identity) -> Command:
    """The command, beside that job."""
    told = {"MODELYARD_ADDRESS": script.server.address, "MODELYARD_TOKEN": identity.token("developer")}
    return Command({**told, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"})
