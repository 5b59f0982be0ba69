"""`python -m modelyard_workers`: hears doorbells and trains. With `--check`: exit code 0 if a worker here is ready."""

from __future__ import annotations

import argparse
import os
import sys

from pydantic import ValidationError

from modelyard.core import logs

from .ready_file import is_ready
from .settings import WorkerSettings

_WRONG_SETTINGS = 2


def main() -> int:
    """Reads the settings from the environment and runs; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m modelyard_workers", description=__doc__)
    parser.add_argument("--check", action="store_true", help="for health probes; needs MODELYARD_WORKER_READY_FILE")
    check = parser.parse_args().check
    try:
        settings = WorkerSettings()  # type: ignore[call-arg]  # they come from the environment
    except ValidationError as error:
        return _complain(error)
    if check:
        return 0 if settings.ready_file is not None and is_ready(settings.ready_file) else 1
    # Pool processes are to ignore a SIGTERM that reaches the whole process group: the main process tells them what to
    # do. Read by billiard when it is imported, hence before anything of Celery's.
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    from . import program

    logs.configure(settings.log_format, settings.log_level, service="worker")
    return program.run(settings)


def _complain(error: ValidationError) -> int:
    # Without the values: one of them is a URL with a password.
    prefix = WorkerSettings.model_config.get("env_prefix", "")
    for problem in error.errors(include_input=False, include_url=False):
        sys.stderr.write(f"{prefix}{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}\n")
    return _WRONG_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
