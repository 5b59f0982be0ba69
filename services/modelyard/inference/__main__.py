"""`python -m modelyard.inference`: settings from the environment, see `settings`."""

from __future__ import annotations

from modelyard.core.serving import run

from .application import build
from .settings import InferenceSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = InferenceSettings()  # type: ignore[call-arg]  # the environment fills it
    run("inference", settings, lambda: build(settings))


if __name__ == "__main__":
    main()
