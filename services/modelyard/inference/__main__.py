"""`python -m modelyard.inference`: settings from the environment, see `settings`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from modelyard.core import logs

from .lane.requirements import LaneUnavailable
from .settings import InferenceSettings


def main() -> int:
    """Serves until SIGTERM or SIGINT; the exit status."""
    settings = InferenceSettings()  # type: ignore[call-arg]  # the environment fills it
    reasons: list[str] = []
    for lane, serve in _LANES.items():
        if settings.lane not in ("auto", lane) or (lane == "direct" and settings.needs_envoy):
            continue
        try:
            return serve(settings, reasons)
        except LaneUnavailable as error:
            reasons.append(f"the {lane} lane cannot run here: {error}")
    print(*reasons, sep="\n", file=sys.stderr)
    return 1


# Each imports what it needs: the process around Envoy serves nothing itself and stays small. Each raises
# LaneUnavailable before it has begun anything; `reasons` says why others were not taken.


def _serve_directly(settings: InferenceSettings, _reasons: list[str]) -> int:
    from .lane import direct

    direct.check_requirements()
    direct.run(settings)
    return 0


def _serve_expressly(settings: InferenceSettings, reasons: list[str]) -> int:
    from .lane.program import run
    from .lane.requirements import find_requirements

    requirements = find_requirements()
    _warn(settings, "express", reasons)
    return run(settings, requirements)


def _serve_plainly(settings: InferenceSettings, reasons: list[str]) -> int:
    from modelyard.core import serving

    from .application import build

    _warn(settings, "plain", reasons)
    serving.run(
        "inference", settings, lambda: build(settings), lambda pod, _: serving.start(pod, settings, tls=settings.tls)
    )
    return 0


def _warn(settings: InferenceSettings, lane: str, reasons: list[str]) -> None:
    logs.configure(settings.log_format, settings.log_level, service="inference")
    for reason in reasons:
        logs.get_logger().warning(reason, lane=lane)


_LANES: Mapping[str, Callable[[InferenceSettings, list[str]], int]] = {
    "direct": _serve_directly,
    "express": _serve_expressly,
    "plain": _serve_plainly,
}
"""From the fastest to the one that runs anywhere."""


if __name__ == "__main__":
    sys.exit(main())
