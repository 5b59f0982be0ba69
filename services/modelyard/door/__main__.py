"""`python -m modelyard.door`: writes Envoy's configuration from the settings and runs Envoy until a signal.

python -m modelyard.door            # run
python -m modelyard.door --print    # show the configuration and exit
python -m modelyard.door --validate # have Envoy check the configuration and exit
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop
from pydantic import ValidationError

from modelyard.envoy.http import render
from modelyard.envoy.process import Admin, EnvoyMissing, EnvoyProcess, StopSignals, command_line, find_envoy
from modelyard.http2.listening import listen

from .config import bootstrap
from .direct import DirectLane, LaneUnavailable, takes_direct_lane
from .listener import NAME, Sockets
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
        is_direct = binary is not None and takes_direct_lane(settings)
    except (ValidationError, EnvoyMissing, LaneUnavailable) as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    with tempfile.TemporaryDirectory(prefix="modelyard-door-", dir=settings.run_dir) as name:
        folder = Path(name)
        admin_socket = settings.admin_socket or folder / "admin.sock"
        behind = Sockets(folder / "calls.sock", folder / "tunnels.sock") if is_direct else None
        text = render(bootstrap(settings, admin_socket, behind))
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
        try:
            listening = listen(settings.listen) if is_direct else []
        except OSError as error:
            print(error, file=sys.stderr)
            return 1
        return uvloop.run(_serve(settings, command, Admin(admin_socket), behind, listening))


async def _serve(
    settings: DoorSettings, command: list[str], admin: Admin, behind: Sockets | None, listening: list[socket.socket]
) -> int:
    """Runs Envoy until it ends by itself or a signal comes and it has drained; a second signal ends the draining.

    `behind`, `listening`: of the direct lane, if it is taken. Answers Envoy's exit status; 0 after a stop.
    """
    signals = StopSignals()
    envoy = await EnvoyProcess.start(command, admin, NAME)
    lane = DirectLane(settings, behind, admin) if behind else None
    if lane is not None and await envoy.until_live_or(signals.stop):  # who connects meanwhile waits
        lane.open(listening)
    await envoy.until_ended_or(signals.stop)
    if envoy.ended.done():
        return envoy.ended.result()
    if lane is not None:
        await lane.drain(signals.hurry)
    await envoy.drain(signals.hurry, settings.drain_s)
    if lane is not None:
        await lane.close()
    await envoy.end(_EXIT_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
