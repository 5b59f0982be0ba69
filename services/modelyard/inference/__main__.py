"""`python -m modelyard.inference`: settings from the environment, see `settings`."""

from __future__ import annotations

import sys

from modelyard.core import logs

from .lane.requirements import LaneUnavailable, Requirements, find_requirements
from .settings import InferenceSettings


def main() -> int:
    """Serves until SIGTERM or SIGINT; the exit status."""
    settings = InferenceSettings()  # type: ignore[call-arg]  # the environment fills it
    try:
        requirements = find_requirements() if settings.lane != "plain" else None
    except LaneUnavailable as error:
        if settings.lane == "express":
            print(f"the express lane cannot run here: {error}", file=sys.stderr)
            return 1
        return _serve_plainly(settings, f"the express lane cannot run here: {error}")
    return _serve_plainly(settings) if requirements is None else _serve_expressly(settings, requirements)


# Each imports what it needs: the process around Envoy serves nothing itself and stays small.


def _serve_plainly(settings: InferenceSettings, reason: str = "") -> int:
    from modelyard.core import serving

    from .application import build

    logs.configure(settings.log_format, settings.log_level, service="inference")
    if reason:
        logs.get_logger().warning(reason, lane="plain")
    serving.run("inference", settings, lambda: build(settings), settings.tls)
    return 0


def _serve_expressly(settings: InferenceSettings, requirements: Requirements) -> int:
    from .lane.program import run

    return run(settings, requirements)


if __name__ == "__main__":
    sys.exit(main())
