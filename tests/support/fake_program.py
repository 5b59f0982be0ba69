"""A program for a supervisor to look after.

    python fake_program.py FOLDER NAME [good | stubborn | broken | late-broken]

Notes in FOLDER/journal when it starts and when it ends; is well while FOLDER/NAME.well holds its process id.
`stubborn` ignores SIGTERM; `broken` ends by itself at once; `late-broken` each time but the first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path


def main(folder: Path, name: str, behaviour: str = "good") -> None:
    def note(what: str) -> None:
        with (folder / "journal").open("a") as journal:
            journal.write(f"{what} {name} {os.getpid()}\n")

    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else lambda *_: stop.set())
    seen_before = (folder / f"{name}.well").exists()
    note("started")
    if behaviour == "broken" or (behaviour == "late-broken" and seen_before):
        sys.exit("it is broken on purpose")
    (folder / f"{name}.well").write_text(str(os.getpid()))
    stop.wait()
    note("stopped")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
