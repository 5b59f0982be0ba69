"""`python -m modelyard.registry`: settings from the environment, see `settings`."""

from __future__ import annotations

from modelyard.core.serving import run

from .allocator import bound_arenas
from .application import build
from .settings import RegistrySettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    bound_arenas()
    settings = RegistrySettings()  # type: ignore[call-arg]  # the environment fills it
    run("registry", settings, lambda: build(settings))


if __name__ == "__main__":
    main()
