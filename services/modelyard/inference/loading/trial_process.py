"""The process in which a version is loaded before the pod loads it: what a hostile graph does, it does here.

Started once, it imports what a load needs and then forks for every trial: a trial costs milliseconds, not the half
second that the imports take. A trial has bounded memory and time, may write no file, and is the first to go when the
machine runs out of memory. Tasks come on standard input, answers leave by standard output, where nothing else may be
printed. The end of the input is the end of the process, and with it of its trials.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelyard.core.errors import DeadlineExceeded, ModelyardError, ResourceExhausted
from modelyard.core.leash import die_with_parent
from modelyard.inference.execution.run_watch import RunWatch
from modelyard.inference.execution.sessions import LOAD_ERRORS, GraphSession, RunLimits, RuntimeOptions, brief
from modelyard.inference.serving.desired import WantedTensor

from .agreement import agreed_signature
from .graph_file import read_graph_file
from .trial_messages import TrialFacts, TrialTask

_READ_BYTES = 65_536
_OPEN_FILES = 64
_FIRST_TO_GO = 1000  # oom_score_adj, proc(5)
_STATUS = Path("/proc/self/status")
_VIRTUAL = re.compile(r"^VmSize:\s+(\d+) kB", re.MULTILINE)
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)


def main() -> None:
    """Answers until the input ends."""
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries and logs print must not stand among the answers
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler is needed for the wakeup
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the pod's business
    signal.set_wakeup_fd(waker)
    trials: dict[int, int] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, _READ_BYTES)
            _report_ended(trials, answers)
        if 0 in readable:
            data = os.read(0, _READ_BYTES)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                trials[_fork(request, answers)] = request["id"]


def _report_ended(trials: dict[int, int], answers: int) -> None:
    """Tells the pod of trials that died. One that came to its end has answered."""
    for process in list(trials):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            number = trials.pop(process)
            if status:
                _say(answers, {"id": number, "killed_by": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0})


def _fork(request: dict[str, Any], answers: int) -> int:
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _say(answers, {"id": request["id"], **_answer(_task(request["task"]))})
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - whatever it is, the pod is told; to a log file it must not be written
        _say(answers, {"id": request["id"], "fault": f"{type(error).__name__}: {brief(error)}"})
        os._exit(0)
    finally:
        os._exit(1)  # whatever was raised: a child must never go on as if it were its parent


def _task(values: dict[str, Any]) -> TrialTask:
    sizes = tuple(values.pop("warm_up_batch_sizes"))
    inputs, outputs = (
        tuple(WantedTensor(t["name"], t["datatype"], tuple(t["shape"])) for t in values.pop(role))
        for role in ("inputs", "outputs")
    )
    return TrialTask(inputs=inputs, outputs=outputs, warm_up_batch_sizes=sizes, **values)


def _answer(task: TrialTask) -> dict[str, Any]:
    _confine(task)
    try:
        return {"facts": asdict(_try(task))}
    except DeadlineExceeded:
        return {"refusal": f"it computes zeros for longer than {task.run_s:g} s"}
    except (MemoryError, ResourceExhausted):
        return {"refusal": f"loading it and computing zeros takes more than {task.memory_bytes} bytes of memory"}
    except ModelyardError as error:
        return {"refusal": error.message}
    except LOAD_ERRORS as error:
        return {"refusal": f"the graph fails on zeros: {brief(error)}"}


def _confine(task: TrialTask) -> None:
    """Bounds what this process may use from now on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO))
    for kind, amount in (
        (resource.RLIMIT_AS, _kilobytes(_VIRTUAL) * 1024 + task.memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _soft, hard = resource.getrlimit(kind)
        wanted = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (wanted, wanted))
    signal.setitimer(signal.ITIMER_REAL, task.time_s)  # nobody handles it: it ends the process, in whatever it is


def _try(task: TrialTask) -> TrialFacts:
    read_graph_file(Path(task.path)).check(task.location)
    before = _resident()
    options = RuntimeOptions(task.graph_threads, "cpu", task.mapped_weights)
    session = GraphSession(Path(task.path), options, RunLimits(RunWatch(task.run_s)))
    session.signature = agreed_signature(task.inputs, task.outputs, session.signature)
    session.warm_up(task.warm_up_batch_sizes)
    return TrialFacts(memory_bytes=max(0, _resident() - before))


def _resident() -> int:
    """Bytes of memory of its own that this process holds. Mapped files are the system's cache and not counted."""
    return _kilobytes(_ANONYMOUS) * 1024


def _kilobytes(line: re.Pattern[str]) -> int:
    found = line.search(_STATUS.read_text())
    if found is None:
        raise RuntimeError(f"{_STATUS} has no line like {line.pattern}")
    return int(found[1])


def _say(answers: int, message: dict[str, Any]) -> None:
    """One line in one write: lines of several processes do not mix, as they are shorter than a pipe's buffer."""
    os.write(answers, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
