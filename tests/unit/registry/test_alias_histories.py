"""Any series of moves, rollbacks and deletions, against a plain list that says what must be true."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from modelyard.core.database import Database
from modelyard.core.errors import Conflict, NotFound, WrongState
from modelyard.registry.alias_history import list_alias_changes
from modelyard.registry.aliases import Alias, Aliases
from modelyard.registry.models import Models
from modelyard.registry.repetition import Repetition
from modelyard.registry.served import Served, read_served
from support.registry_rows import add_model, caller

T = TypeVar("T")

VERSIONS = 4
NAMES = st.sampled_from(["live", "canary"])
NUMBERS = st.integers(1, VERSIONS)


class AliasMachine(RuleBasedStateMachine):
    """`self.stacks[alias]` is every version that the alias can be rolled back to, and the one it has, oldest first."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="aliases-"))
        shutil.copy(self.template, self.folder / "registry.db")
        self.runner = asyncio.Runner()
        self.database = Database(f"sqlite+aiosqlite:///{self.folder}/registry.db")
        repetition = Repetition(self.database)
        self.aliases = Aliases(self.database, repetition, lambda: None)
        self.models = Models(self.database, repetition, lambda: None)
        self.stacks: dict[str, list[int]] = {}
        self.moves: list[tuple[str, int, int]] = []
        self.etags: dict[str, str] = {}
        self.requests: dict[str, Alias] = {}
        self.told = Served(0)
        self.who = caller()
        self.run(add_model(self.database, "m", VERSIONS))

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def moved(self, alias: str, version: int) -> None:
        self.moves.append((alias, self.version_of(alias), version))

    def version_of(self, alias: str) -> int:
        return self.stacks[alias][-1] if alias in self.stacks else 0

    @rule(alias=NAMES, version=NUMBERS, checked=st.booleans())
    def set(self, alias: str, version: int, *, checked: bool) -> None:
        etag = self.etags.get(alias, "") if checked else ""
        answer = self.run(self.aliases.set(self.who, "m", alias, version, etag=etag))
        if self.version_of(alias) != version:
            self.moved(alias, version)
            self.stacks.setdefault(alias, []).append(version)
        assert answer.version == version
        self.etags[alias] = str(answer.sequence)

    @rule(alias=NAMES, version=NUMBERS)
    def set_with_an_old_etag(self, alias: str, version: int) -> None:
        with pytest.raises(Conflict):
            self.run(self.aliases.set(self.who, "m", alias, version, etag="999999"))

    @rule(alias=NAMES, version=NUMBERS, number=st.integers(1, 3))
    def set_by_request(self, alias: str, version: int, number: int) -> None:
        request_id = f"{alias}-{version}-{number}"
        answer = self.run(self.aliases.set(self.who, "m", alias, version, request_id=request_id))
        if request_id in self.requests:
            assert answer == self.requests[request_id]
            return
        self.requests[request_id] = answer
        if self.version_of(alias) != version:
            self.moved(alias, version)
            self.stacks.setdefault(alias, []).append(version)
        self.etags[alias] = str(answer.sequence)

    @rule(alias=NAMES)
    def roll_back(self, alias: str) -> None:
        work = self.aliases.rollback(self.who, "m", alias)
        if alias not in self.stacks:
            with pytest.raises(NotFound):
                self.run(work)
        elif len(self.stacks[alias]) == 1:
            with pytest.raises(WrongState):
                self.run(work)
        else:
            answer = self.run(work)
            self.moved(alias, self.stacks[alias][-2])
            self.stacks[alias].pop()
            assert answer.version == self.version_of(alias)
            self.etags[alias] = str(answer.sequence)

    @rule(alias=NAMES)
    def delete(self, alias: str) -> None:
        work = self.aliases.delete(self.who, "m", alias, etag=self.etags.get(alias, ""))
        if alias not in self.stacks:
            with pytest.raises(NotFound):
                self.run(work)
        else:
            self.run(work)
            self.moved(alias, 0)
            del self.stacks[alias], self.etags[alias]

    @invariant()
    def the_model_shows_every_alias(self) -> None:
        expected = {alias: stack[-1] for alias, stack in self.stacks.items()}
        assert self.run(self.models.get(self.who, "m")).aliases == expected

    @invariant()
    def the_history_is_every_move_in_order(self) -> None:
        page, _token = self.run(list_alias_changes(self.database, self.who, "m", "", 1000, ""))
        assert [(change.alias, change.previous_version, change.version) for change in reversed(page)] == self.moves
        assert [change.sequence for change in page] == list(range(len(self.moves), 0, -1))

    @invariant()
    def a_watcher_who_hears_only_of_changes_knows_everything(self) -> None:
        before = self.told.revision
        self.told = self.run(read_served(self.database, self.told))
        whole = self.run(read_served(self.database))
        assert self.told == whole
        assert whole.revision == len(self.moves) >= before
        served = {alias: stack[-1] for alias, stack in self.stacks.items()}
        assert [model.aliases for model in whole.everything()] == ([served] if served else [])
        assert all(set(model.versions) == set(served.values()) for model in whole.everything())


def test_aliases_do_what_a_plain_list_says(migrated: Path) -> None:
    machine = type("Machine", (AliasMachine,), {"template": migrated})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=10, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]),
    )
