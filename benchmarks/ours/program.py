"""Runs the cluster of `modelyard up`: `python -m benchmarks.ours.program DATA_DIRECTORY`.

Writes `benchmark.json` into the data directory once everything runs: `door` (its address), `token` (the administrator's
file) and `pod`, the environment of one more inference pod of this cluster. Ends on SIGINT.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from modelyard.local.cluster import ClusterOptions, local_cluster
from modelyard.local.programs import Layout, Program, local_programs
from modelyard.local.supervision import ProgramEvent

READY_FILE = "benchmark.json"


def _pod_environment(layout: Layout) -> dict[str, str]:
    """What a pod must be told, as in a cluster, but where it listens."""
    settings = {
        "REGISTRY_ADDRESS": layout.address("registry"),
        "CACHE_DIR": str(layout.folder("inference-direct")),
        "TOKEN_FILE": str(layout.identity.token_file("inference")),
        "TOKEN_KEYS_FILE": str(layout.identity.keys_file),
    }
    return {f"MODELYARD_INFERENCE_{key}": value for key, value in settings.items()}


async def _run(data_dir: Path) -> None:
    pod: dict[str, str] = {}

    def programs(layout: Layout) -> list[Program]:
        pod.update(_pod_environment(layout))
        return local_programs(layout)

    async with local_cluster(ClusterOptions(data_dir, port=0), _show, programs) as running:
        told = {"door": running.address, "token": str(running.token_file), "pod": pod}
        scratch = data_dir / f"{READY_FILE}.part"
        scratch.write_text(json.dumps(told))
        scratch.rename(data_dir / READY_FILE)
        await asyncio.Event().wait()


def _show(event: ProgramEvent) -> None:
    print(event.program, event.happening.value, event.pid, f"{event.seconds:.1f} s", event.detail, flush=True)


async def _until_a_signal(data_dir: Path) -> None:
    running = asyncio.create_task(_run(data_dir))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await asyncio.gather(running, return_exceptions=False)


def main() -> None:
    """The program."""
    try:
        asyncio.run(_until_a_signal(Path(sys.argv[1])))
    except asyncio.CancelledError:
        print("stopped", flush=True)


if __name__ == "__main__":
    main()
