"""Runs the cluster of `modelyard up` with one more inference pod, on a TCP port: `python -m benchmarks.ours.program`.

Arguments: the data directory, the pod's port. Writes `benchmark.json` into the data directory once everything runs:
`door`, `pod` (addresses) and `token` (the administrator's file). Ends on SIGINT.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from modelyard.core.probe import probe
from modelyard.local.cluster import ClusterOptions, local_cluster
from modelyard.local.programs import Layout, Program, local_programs
from modelyard.local.supervision import ProgramEvent

READY_FILE = "benchmark.json"


def direct_pod(layout: Layout, address: str) -> Program:
    """A pod as in a cluster: on TCP, told only what it must be told."""
    settings = {
        "LISTEN": address,
        "REGISTRY_ADDRESS": layout.address("registry"),
        "CACHE_DIR": str(layout.folder("inference-direct")),
        "TOKEN_FILE": str(layout.identity.token_file("inference")),
        "TOKEN_KEYS_FILE": str(layout.identity.keys_file),
    }
    return Program(
        "inference-direct",
        [sys.executable, "-m", "modelyard.inference"],
        lambda: probe(address, timeout_s=1.0),
        {f"MODELYARD_INFERENCE_{key}": value for key, value in settings.items()},
    )


async def _run(data_dir: Path, address: str) -> None:
    def programs(layout: Layout) -> list[Program]:
        return [*local_programs(layout), direct_pod(layout, address)]

    async with local_cluster(ClusterOptions(data_dir, port=0), _show, programs) as running:
        told = {"door": running.address, "pod": address, "token": running.token_file}
        scratch = data_dir / f"{READY_FILE}.part"
        scratch.write_text(json.dumps(told))
        scratch.rename(data_dir / READY_FILE)
        await asyncio.Event().wait()


def _show(event: ProgramEvent) -> None:
    print(event.program, event.happening.value, event.pid, f"{event.seconds:.1f} s", event.detail, flush=True)


async def _until_a_signal(data_dir: Path, address: str) -> None:
    running = asyncio.create_task(_run(data_dir, address))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await asyncio.gather(running, return_exceptions=False)


def main() -> None:
    """The program."""
    try:
        asyncio.run(_until_a_signal(Path(sys.argv[1]), f"127.0.0.1:{sys.argv[2]}"))
    except asyncio.CancelledError:
        print("stopped", flush=True)


if __name__ == "__main__":
    main()
