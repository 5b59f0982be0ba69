"""What a prediction needs to know of the call that brought it, whatever transport that was."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from modelyard.core.interceptors import ANONYMOUS
from modelyard.core.tokens import Caller


class PredictionCall(NamedTuple):
    """One call, as its transport knows it. A tuple, since one is made for every prediction."""

    expires: float | None = None
    """The event loop's time after which the caller waits no more; None if it set no deadline."""
    caller: Caller = ANONYMOUS
    metadata: Mapping[str, str | bytes] = MappingProxyType({})
    """By key, in lower case as HTTP/2 sends them."""


UNTOLD = PredictionCall()
"""A call of which nothing is known: no deadline, no token, no metadata."""
