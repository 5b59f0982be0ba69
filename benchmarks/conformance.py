"""Runs the conformance suite against ours and the other servers, and writes the tables of docs/conformance.md.

`python -m benchmarks.conformance [--publish] [NAME ...]`; NAME: modelyard, door, triton, mlserver, kserve. Without one:
all. Each server gets the reference models in its own form (`modelyard conformance models`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import workshop
from benchmarks.environments import run as run_command
from benchmarks.ours import running_cluster
from benchmarks.peers import KServe, MLServer, ModelFile, Peer, Triton
from benchmarks.peers.peer import Plan
from modelyard.conformance.models.graphs import write_graphs
from modelyard.conformance.models.kserve import write_kserve_program
from modelyard.conformance.models.mlserver import write_mlserver_folder
from modelyard.conformance.models.triton import write_triton_repository
from modelyard.conformance.probe import Target
from modelyard.conformance.reference import ADD, MODELS
from modelyard.conformance.registry import Check
from modelyard.conformance.report import as_json, compared, dumped
from modelyard.conformance.run import Report, choose, run

PAGE = workshop.REPOSITORY / "docs/conformance.md"
BEGIN, END = "<!-- begin of the latest run -->", "<!-- end of the latest run -->"
_MODELS = [ModelFile(ADD.full_name, Path())]
"""What is waited for; the files are written by each server's own plan."""


class ReferenceTriton(Triton):
    """Triton with the reference models in its Python backend, which may be loaded and unloaded."""

    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """As for a measurement, with other models."""
        del models
        plan = super().plan(place, work, port, [])
        write_triton_repository(work / "models")
        explicit = ["--model-control-mode=explicit", "--load-model=*"]
        return Plan([*plan.command, *explicit], plan.environment, plan.stop_signal)


class ReferenceMLServer(MLServer):
    """MLServer with the reference models as a runtime of a few lines."""

    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """As for a measurement, with other models."""
        del models
        write_mlserver_folder(work)
        plan = super().plan(place, work, port, [])
        return Plan(plan.command, {"PYTHONPATH": str(work)}, plan.stop_signal)


class ReferenceKServe(KServe):
    """KServe's Python server with the reference models as a program of a few lines."""

    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """As for a measurement, with another program."""
        del models
        write_kserve_program(work)
        plan = super().plan(place, work, port, [])
        python, _program, *options = plan.command
        return Plan([python, str(work / "serve.py"), *options], plan.environment, plan.stop_signal)


@contextmanager
def _ours(through: str) -> Iterator[Target]:
    """A pod of a local cluster, called directly or through the door, with shared memory allowed."""
    os.environ["MODELYARD_INFERENCE_SYSTEM_SHARED_MEMORY"] = "true"
    files = write_graphs(workshop.folder("conformance", "onnx"))
    graphs = [ModelFile(model.full_name, file) for model, file in zip(MODELS, files, strict=True)]
    with running_cluster(graphs) as cluster:
        yield Target(getattr(cluster, through), token=cluster.token)


@contextmanager
def _peer(peer: Peer) -> Iterator[Target]:
    with peer.running(_MODELS) as address:
        yield Target(address)


SERVERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "modelyard": (f"Modelyard {version('modelyard')}, pod", lambda: _ours("pod")),
    "door": ("Modelyard, through the door", lambda: _ours("door")),
    "triton": ("Triton 2.51 (nvidia-pytriton 0.7.0)", lambda: _peer(ReferenceTriton())),
    "mlserver": ("MLServer 1.7.1", lambda: _peer(ReferenceMLServer())),
    "kserve": ("KServe 0.21.0, Python server", lambda: _peer(ReferenceKServe())),
}
"""Title and how to start it, by name."""


def check(name: str) -> None:
    """Runs the suite against one server and keeps the result in the workshop.

    A server that a check has ended is started again for the checks that are left.
    """
    report: Report | None = None
    left: Sequence[Check] = choose()
    while left:
        with SERVERS[name][1]() as target:
            part = run(target, left)
        left = part.unfinished
        report = part if report is None else replace(report, results=[*report.results, *part.results], unfinished=[])
    if report is not None:
        _file(name).write_text(dumped(as_json(report)), encoding="utf-8")


def publish() -> None:
    """Puts the tables of all kept results between the markers of docs/conformance.md."""
    names = [name for name in SERVERS if _file(name).exists()]
    documents = [json.loads(_file(name).read_text(encoding="utf-8")) for name in names]
    tables = compared(documents, [SERVERS[name][0] for name in names])
    commit = run_command("git", "-C", str(workshop.REPOSITORY), "rev-parse", "--short", "HEAD").strip()
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} lacks the markers {BEGIN} and {END}")
    said = f"Checks of commit {commit}."
    PAGE.write_text(f"{before}{BEGIN}\n\n{said}\n\n{tables}\n{END}{after}", encoding="utf-8")


def _file(name: str) -> Path:
    return workshop.folder("conformance") / f"{name}.json"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SERVERS))
    parser.add_argument("--publish", action="store_true", help="rewrite the tables of docs/conformance.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SERVERS):
        parser.error(f"no server is called {', '.join(sorted(unknown))}")
    for name in arguments.names or SERVERS:
        check(name)
        print(f"{SERVERS[name][0]}: {_file(name)}", flush=True)
    if arguments.publish:
        publish()


if __name__ == "__main__":
    main()
