"""What the queue costs: submissions through the door at a steady rate, then claims, reports and ends at the gateway.

    .venv/bin/python benchmarks/submissions.py [--rate 50] [--seconds 6] [--finished 10000]

Starts door, gateway (SQLite), registry and broker as `modelyard up` does, without workers. Measures twice: in an empty
database, and with `--finished` jobs in it that have ended. A submission's time is that from when it was due, so one
that is held up by those before it counts as held up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import uvloop

from modelyard import Client
from modelyard.core.channels import aio_channel, fixed_token
from modelyard.local.cluster import ClusterOptions, local_cluster
from modelyard.local.programs import Layout, Program, local_programs
from modelyard.local.state import LocalClusterState
from modelyard.v1 import (
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
    training_spec_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

PROGRAMS = {"redis", "registry", "gateway", "door"}
TABLE = "a,b,y\n" + "".join(f"{i},{i % 7},{2 * i}\n" for i in range(200))
REPORTS = 2
"""Reports of each job that is claimed."""


@dataclass
class Times:
    """Seconds of calls of one kind."""

    name: str
    seconds: list[float] = field(default_factory=list)
    gateway_cpu_s: float = 0.0
    """Processor time of the gateway, all calls together."""

    async def of(self, call: Awaitable[Any]) -> Any:
        """Waits for a call and takes its time."""
        began = time.perf_counter()
        answer = await call
        self.seconds.append(time.perf_counter() - began)
        return answer

    @contextmanager
    def with_cpu(self, gateway: psutil.Process) -> Iterator[None]:
        """Adds what processor time the gateway takes meanwhile."""
        before = gateway.cpu_times()
        yield
        after = gateway.cpu_times()
        self.gateway_cpu_s += after.user - before.user + after.system - before.system

    def line(self) -> str:
        """For people: how many, median, 99th percentile, longest; and the gateway's processor time of each."""
        ordered = sorted(self.seconds)
        p50, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        cpu = self.gateway_cpu_s / len(ordered)
        figures = "".join(f"{1e3 * value:9.2f}" for value in (p50, p99, ordered[-1], cpu))
        return f"{self.name:<10}{len(ordered):7}{figures}"


def spec() -> training_spec_pb2.TrainingSpec:
    """What is submitted: a small network."""
    layers = [
        training_spec_pb2.Layer(linear=training_spec_pb2.LinearLayer(outputs=8)),
        training_spec_pb2.Layer(activation=training_spec_pb2.ACTIVATION_RELU),
        training_spec_pb2.Layer(linear=training_spec_pb2.LinearLayer(outputs=1)),
    ]
    return training_spec_pb2.TrainingSpec(
        dataset="datasets/table",
        model="models/table",
        task=training_spec_pb2.TASK_REGRESSION,
        target_column="y",
        network=training_spec_pb2.Network(layer_list=training_spec_pb2.LayerList(layers=layers)),
        optimizer=training_spec_pb2.Optimizer(learning_rate=0.01, adam=training_spec_pb2.Adam()),
        max_epochs=10,
    )


class Bench:
    """Calls and takes times."""

    def __init__(self, door: grpc.aio.Channel, gateway: grpc.aio.Channel, process: psutil.Process) -> None:
        """`door`: with a user's token; `gateway`: with a worker's; `process`: the gateway."""
        self._process = process
        self._training = training_service_pb2_grpc.TrainingServiceStub(door)
        self._worker = worker_service_pb2_grpc.WorkerServiceStub(gateway)

    async def submit(self, rate: float, seconds: float) -> tuple[Times, list[str]]:
        """Submits at a steady rate, whether or not the calls before are answered; the names of the jobs."""
        times, began = Times("submit"), time.perf_counter() + 0.1
        calls = [
            self._submit(times, f"{began}-{i}".replace(".", "-"), began + i / rate)
            for i in range(round(rate * seconds))
        ]
        with times.with_cpu(self._process):
            return times, await asyncio.gather(*calls)

    async def _submit(self, times: Times, request_id: str, due: float) -> str:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        request = training_service_pb2.CreateTrainingJobRequest(
            training_job=training_job_pb2.TrainingJob(spec=spec()), request_id=request_id
        )
        job = await self._training.CreateTrainingJob(request)
        times.seconds.append(time.perf_counter() - due)
        return str(job.name)

    async def work(self, names: list[str]) -> list[Times]:
        """Claims, reports and ends as many jobs, one call after the other."""
        claims, reports, ends = Times("claim"), Times("report"), Times("finish")
        failed = worker_service_pb2.TrainingFailure(reason=training_job_pb2.TrainingJob.FAILURE_REASON_DATA)
        held: list[training_job_pb2.TrainingJob] = []
        with claims.with_cpu(self._process):
            for name in names:
                asks = worker_service_pb2.ClaimTrainingJobRequest(name=name, worker="bench/1")
                held.append((await claims.of(self._worker.ClaimTrainingJob(asks))).training_job)
        with reports.with_cpu(self._process):
            for job in held * REPORTS:
                report = worker_service_pb2.ReportTrainingJobRequest(name=job.name, attempt=job.attempt)
                await reports.of(self._worker.ReportTrainingJob(report))
        with ends.with_cpu(self._process):
            for job in held:
                end = worker_service_pb2.FinishTrainingJobRequest(name=job.name, attempt=job.attempt, failed=failed)
                await ends.of(self._worker.FinishTrainingJob(end))
        return [claims, reports, ends]

    async def round(self, title: str, rate: float, seconds: float) -> None:
        """One measurement, printed."""
        submissions, names = await self.submit(rate, seconds)
        print(f"{title}\n{'ms':<10}{'calls':>7}{'p50':>9}{'p99':>9}{'max':>9}{'gateway':>9}")
        for times in (submissions, *await self.work(names)):
            print(times.line())


def add_finished(database: Path, count: int) -> None:
    """Copies the newest job that has ended, with its history, `count` times."""
    connection = sqlite3.connect(database, timeout=30)
    (template,) = connection.execute(
        "SELECT id FROM jobs WHERE finish_time IS NOT NULL ORDER BY create_time DESC LIMIT 1"
    ).fetchone()
    for table, key in (("jobs", "id"), ("job_definitions", "job_id"), ("job_events", "job_id")):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        changed = {
            key: "'x' || n",
            "request_id": "NULL",
            "state": "CASE state WHEN 'FAILED' THEN 'SUCCEEDED' ELSE state END",
        }
        chosen = ", ".join(changed.get(column, column) for column in columns)
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table}, numbers WHERE {key} = ?",
            (count, template),
        )
    connection.commit()
    connection.close()


def without_workers(layout: Layout) -> list[Program]:
    """What takes submissions, and nothing that trains or predicts."""
    return [program for program in local_programs(layout) if program.name in PROGRAMS]


async def measure(cluster: LocalClusterState, options: argparse.Namespace) -> None:
    """Both rounds."""
    database = Path(cluster.data_dir) / "gateway.db"
    admin = await asyncio.to_thread(prepare, cluster)
    async with (
        aio_channel(cluster.address, fixed_token(admin)) as door,
        aio_channel(f"unix:{cluster.run_dir}/gateway.sock", fixed_token(admin)) as gateway,
    ):
        bench = Bench(door, gateway, gateway_process())
        _, names = await bench.submit(options.rate, 1.0)  # warms up
        await bench.work(names)
        await bench.round("no finished jobs", options.rate, options.seconds)
        await asyncio.to_thread(add_finished, database, options.finished)
        await bench.round(f"{options.finished} finished jobs", options.rate, options.seconds)


def gateway_process() -> psutil.Process:
    """The gateway, which this process has started."""
    return next(one for one in psutil.Process().children(recursive=True) if "modelyard.gateway" in one.cmdline())


def prepare(cluster: LocalClusterState) -> str:
    """Uploads the data set that the jobs name; the administrator's token."""
    token = Path(cluster.token_file).read_text().strip()
    with tempfile.TemporaryDirectory() as folder, Client(cluster.address, token) as client:
        path = Path(folder) / "table.csv"
        path.write_text(TABLE)
        client.datasets.upload(path, dataset="table")
    return token


async def main(options: argparse.Namespace) -> None:
    """A cluster of its own, in folders of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        chosen = ClusterOptions(Path(folder) / "data", port=0)
        async with local_cluster(chosen, lambda _event: None, without_workers) as cluster:
            await measure(cluster, options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0, help="submissions per second")
    parser.add_argument("--seconds", type=float, default=6.0, help="for how long")
    parser.add_argument("--finished", type=int, default=10_000, help="jobs that have ended, in the second round")
    uvloop.run(main(parser.parse_args()))
