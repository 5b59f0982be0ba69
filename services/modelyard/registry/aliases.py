"""Aliases: movable names for versions, with a history that only grows.

Every alias keeps a stack of the moves that can be undone. A move pushes itself; a rollback pops the last move and goes
back to the version before it. So rolling back again walks further into the past (5 → 4 → 3), never back and forth,
and a move after a rollback can itself be rolled back to where it came from. The stack's links are sequence numbers in
the history, so a rollback costs the same however long the history is. A deleted alias takes its stack with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import Conflict, NotFound, WrongState
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.tokens import Caller

from .models import lock_model, require_model
from .repetition import Repetition, Request
from .revisions import raise_revision
from .tables import model_alias_changes, model_aliases, model_versions, models
from .tenancy import visible_to
from .upserts import insert_if_absent
