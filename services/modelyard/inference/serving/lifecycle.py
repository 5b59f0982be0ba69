"""What the pod tells of its versions' lives to whoever watches them. Called in the event loop."""

from __future__ import annotations

from typing import Protocol

from .desired import WantedVersion
from .versions import LoadedVersion


class LifecycleObserver(Protocol):
    """Hears of every load, and of every change of what answers."""

    def loaded(self, version: LoadedVersion, seconds: float) -> None:
        """A version is ready to answer, so many seconds after its load began."""

    def load_failed(self, version: WantedVersion) -> None:
        """A try to load a version failed."""

    def switched(self, model: str) -> None:
        """An alias of the model is answered by another version than before, or by none."""


class NullLifecycleObserver:
    """Watches nothing."""

    def loaded(self, version: LoadedVersion, seconds: float) -> None:
        """Nothing."""

    def load_failed(self, version: WantedVersion) -> None:
        """Nothing."""

    def switched(self, model: str) -> None:
        """Nothing."""
