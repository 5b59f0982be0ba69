"""`python -m modelyard.door`: writes Envoy's configuration from the settings and runs Envoy until a signal.

python -m modelyard.door            # run
python -m modelyard.door --print    # show the configuration and exit
python -m modelyard.door --validate # have Envoy check the configuration and exit
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from modelyard.envoy.http import render
from modelyard.envoy.process import Admin, EnvoyMissing, EnvoyProcess, StopSignals, command_line, find_envoy

from .config import bootstrap
from .listener import NAME
from .settings import DoorSettings

USAGE_ERROR = 2
_EXIT_S = 5.0


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.door", description="The one port of all clients.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--print", action="store_true", help="show Envoy's configuration and exit")
    action.add_argument("--validate", action="store_true", help="have Envoy check the configuration and exit")
    arguments = parser.parse_args()
    try:
        settings = DoorSettings()
        binary = None if arguments.print else find_envoy(settings.envoy_binary)
    except (ValidationError, EnvoyMissing) as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    with _private_folder(settings) as folder:
        admin_socket = settings.admin_socket or folder / "admin.sock"
        text = render(bootstrap(settings, admin_socket))
        if binary is None:
            print(text, end="")
            return 0
        config_file = settings.config_file or folder / "envoy.json"
        config_file.write_text(text)
        command = command_line(
            binary, config_file,
            log_level=settings.log_level, drain_s=settings.drain_s, concurrency=settings.concurrency,
        )  # fmt: skip
        if arguments.validate:
            return subprocess.run([*command, "--mode", "validate"], check=False).returncode  # noqa: S603
        return asyncio.run(_serve(command, Admin(admin_socket), settings.drain_s))


@contextmanager
def _private_folder(settings: DoorSettings) -> Iterator[Path]:
    """A temporary folder, unless the settings name a place for everything that would be in it."""
    if settings.admin_socket and settings.config_file:
        yield settings.config_file.parent
        return
    with tempfile.TemporaryDirectory(prefix="modelyard-door-") as folder:
        yield Path(folder)


async def _serve(command: list[str], admin: Admin, drain_s: float) -> int:
    """Runs Envoy until it ends by itself or a signal comes and it has drained; a second signal ends the draining.

    Answers Envoy's exit status; 0 after a stop.
    """
    signals = StopSignals()
    envoy = await EnvoyProcess.start(command, admin, NAME)
    await envoy.until_ended_or(signals.stop)
    if envoy.ended.done():
        return envoy.ended.result()
    await envoy.drain(signals.hurry, drain_s)
    await envoy.end(_EXIT_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
