"""Serves models with another server until Ctrl-C: `python -m benchmarks.peers NAME MODEL=FILE.onnx ...`.

Prints `host:port` on a line of its own once all models are ready. Without a model: only sets the server up.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from . import PEERS, ModelFile, SetUpFailed, StartFailed

_USAGE = f"usage: python -m benchmarks.peers {{{','.join(PEERS)}}} [MODEL=FILE.onnx ...]"


def main() -> None:
    """The command."""
    name, *rest = sys.argv[1:] or [""]
    if name not in PEERS or not all("=" in argument for argument in rest):
        sys.exit(_USAGE)
    models = [ModelFile(model, Path(path)) for model, _, path in (argument.partition("=") for argument in rest)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the server too
    try:
        _serve(name, models)
    except (SetUpFailed, StartFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def _serve(name: str, models: list[ModelFile]) -> None:
    if not models:
        print(PEERS[name].set_up())
        return
    with PEERS[name].running(models) as address:
        print(address, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
