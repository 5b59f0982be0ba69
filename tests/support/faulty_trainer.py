"""A trainer that does what a test asks for, good or bad: `python faulty_trainer.py ACT … --workdir DIR --events-fd N`.

It keeps the contract of `modelyard_workers.trainer` where the act does not say otherwise. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = b"a model"


class Trainer:
    """The acts, each a method."""

    def __init__(self, workdir: Path, events: int) -> None:
        self.workdir = workdir
        self.events = events
        self.step = 0

    def send(self, update: dict[str, Any]) -> None:
        os.write(self.events, json.dumps(update).encode() + b"\n")

    def succeed(self) -> None:
        """A short training that goes well."""
        self.send({"state": "STATE_PREPARING"})
        self.send({"state": "STATE_RUNNING"})
        for step in range(1, 4):
            self.send({"progress": {"epoch": step, "step": str(step), "trainingLoss": 1 / step}})
        self.send({"state": "STATE_EVALUATING"})
        self.send({"evaluation": {"metrics": {"r2": 0.5}, "testRows": "10"}})
        self.send({"state": "STATE_EXPORTING"})
        self.leave_model(MODEL, hashlib.sha256(MODEL).hexdigest())

    def leave_model(self, content: bytes, digest: str) -> None:
        (self.workdir / "model.onnx").write_bytes(content)
        succeeded = {"digest": digest, "sizeBytes": str(len(content)), "libraryVersions": {"torch": "0"}}
        (self.workdir / "result.json").write_text(json.dumps({"succeeded": succeeded}))

    def check_inputs(self) -> None:
        """Prints what it was given, for the test to see."""
        job = json.loads((self.workdir / "job.json").read_text())
        dataset = json.loads((self.workdir / "dataset.json").read_text())
        content = (self.workdir / "dataset").read_bytes()
        print("job", job["name"], "dataset", dataset["digest"], hashlib.sha256(content).hexdigest())
        print("mode", oct(self.workdir.stat().st_mode & 0o777), "cwd", Path.cwd() == self.workdir)
        print("own variables", [name for name in os.environ if name.startswith("MODELYARD_")])
        print("session leader", os.getsid(0) == os.getpid(), "sigterm", signal.getsignal(signal.SIGTERM).name)  # type: ignore[union-attr]
        print("oom", Path("/proc/self/oom_score_adj").read_text().strip())

    def fail(self) -> None:
        """Reports that the data is unusable."""
        failed = {"reason": "FAILURE_REASON_DATA", "message": "too few rows"}
        (self.workdir / "result.json").write_text(json.dumps({"failed": failed}))

    def flood(self) -> None:
        """Prints 200 MB."""
        block = b"all work and no play makes jack a dull boy\n" * 25_000
        for _ in range(200_000_000 // len(block) + 1):
            sys.stdout.buffer.write(block)

    def long_line(self) -> None:
        """Prints one line of 50 MB, and one of bytes that are no text."""
        sys.stdout.buffer.write(b"x" * 50_000_000 + b"\n\xff\xfe\x00\x1b[31mred\n")

    def garbage(self) -> None:
        """Writes what is no event to the event pipe, a very long line among it."""
        for junk in (b"\x00\xff\n", b"{}{\n", b'{"state": "STATE_SUCCEEDED"}\n', b"[" * 3_000_000 + b"\n"):
            remaining = memoryview(junk)
            while remaining:
                remaining = remaining[os.write(self.events, remaining) :]

    def wait(self) -> None:
        """Runs until it is stopped."""
        self.send({"state": "STATE_RUNNING"})
        print("waiting", os.getpid(), flush=True)
        while True:
            time.sleep(0.05)

    def progress_until_told(self) -> None:
        """Sends numbered progress until a file named `enough` appears beside the work folder's parent."""
        self.send({"state": "STATE_RUNNING"})
        step = 0
        while not (self.workdir.parent.parent / "enough").exists():
            step += 1
            self.send({"progress": {"step": str(step)}})
            time.sleep(0.02)
        print("last step", step)

    def ignore_sigterm(self) -> None:
        """Does not listen."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def obey_sigterm(self) -> None:
        """Ends by SIGTERM as the contract says, and leaves a trace."""

        def stop(_number: int, _frame: object) -> None:
            print("stopped by SIGTERM", flush=True)
            sys.exit(143)

        signal.signal(signal.SIGTERM, stop)

    def resume(self) -> None:
        """Goes on from the checkpoint that it was given, and says so."""
        file = self.workdir / "checkpoint.safetensors"
        if file.exists():
            self.step = int(file.read_text().split()[-1])
        print("resumed after step", self.step, flush=True)

    def checkpoint(self) -> None:
        """Trains ten steps and saves a checkpoint."""
        self.step += 10
        content = f"state after step {self.step}"
        folder = self.workdir / "checkpoints"
        folder.mkdir(exist_ok=True)
        partial = folder / "partial"
        partial.write_text(content)
        partial.rename(folder / f"{self.step:012d}.safetensors")
        self.send({"checkpoint": {"epoch": 1, "step": str(self.step), "sizeBytes": str(len(content))}})

    def linked_checkpoint(self) -> None:
        """Claims that somebody else's file is a checkpoint."""
        (self.workdir / "checkpoints").mkdir()
        (self.workdir / "checkpoints" / f"{7:012d}.safetensors").symlink_to("/etc/passwd")
        self.send({"checkpoint": {"step": "7", "digest": "0" * 64}})

    def checkpoint_on_sigterm(self) -> None:
        """Ends by SIGTERM as the contract says: saves a checkpoint first."""

        def stop(_number: int, _frame: object) -> None:
            self.checkpoint()
            sys.exit(143)

        signal.signal(signal.SIGTERM, stop)

    def close_pipes(self) -> None:
        """Says nothing any more, and lives on."""
        print("closing", os.getpid(), flush=True)
        for descriptor in (0, 1, 2, self.events):
            os.close(descriptor)

    def sleep(self) -> None:
        """Lives on without a word."""
        while True:
            time.sleep(0.05)

    def eat_memory(self) -> None:
        """Takes memory until there is none."""
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1024)) * 10_240)

    def child_eats_memory(self) -> None:
        """Has a child do it, and breaks when the child is gone."""
        subprocess.run([sys.executable, __file__, "eat_memory"], check=True)

    def fill_disk(self) -> None:
        """Writes until nothing more fits."""
        with (self.workdir / "tmp" / "junk").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024 * 1024))

    def start_child(self) -> None:
        """Starts a process that holds the pipes open and would run for ever."""
        child = subprocess.Popen(["sleep", "1000"], pass_fds=(self.events,))
        print("child", child.pid, flush=True)

    def kill_self(self) -> None:
        """Dies as by the kernel's hand."""
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def crash(self) -> None:
        """Dies of an error without a result."""
        raise RuntimeError("something in the trainer broke")

    def wrong_digest(self) -> None:
        """Leaves a model that is not the one in the result."""
        self.leave_model(MODEL, hashlib.sha256(b"another").hexdigest())

    def linked_model(self) -> None:
        """Leaves a link instead of a model."""
        secret = Path("/etc/passwd")
        self.leave_model(MODEL, hashlib.sha256(secret.read_bytes()).hexdigest())
        (self.workdir / "model.onnx").unlink()
        (self.workdir / "model.onnx").symlink_to(secret)

    def broken_result(self) -> None:
        """Leaves a result that is none."""
        (self.workdir / "result.json").write_text('{"succeeded": {"digest"')

    def nothing(self) -> None:
        """Leaves no result."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("acts", nargs="+")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--events-fd", type=int)
    arguments = parser.parse_args()
    trainer = Trainer(arguments.workdir, arguments.events_fd)
    for act in arguments.acts:
        perform: Callable[[], None] = getattr(trainer, act)
        perform()


if __name__ == "__main__":
    main()
