"""The main job, shown on real data: train, publish, serve, swap under load. Exits non-zero if any promise is broken.

Starts a cluster of its own in a temporary folder on a free port and leaves nothing running. `make demo` runs it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cluster import ClusterFailedError, running_cluster
from demo_data import Table, write_diabetes, write_digits
from drawing import draw_digit, provenance_lines, truth_table
from foreign_client import Answer, TritonClient
from rich.console import Console
from rich.rule import Rule

from modelyard import Client
from modelyard.cli.watching import watch
from modelyard.client.training import State
from modelyard.core.errors import RemoteError
from modelyard.training import recipes
from modelyard.v1.training_job_pb2 import TrainingJob

console = Console(highlight=False, soft_wrap=True)

R2_MARGIN = 0.05
"""How far the network's R² may lie below the linear baseline's."""
LEAST_ACCURACY = 0.97
LEAST_REQUESTS = 2_000
"""Requests that the swap must carry without a failure."""
MOST_SECONDS_TO_FIRST_STEP = 5.0
MOST_SECONDS_TO_SERVED = 2.0


class BrokenPromiseError(Exception):
    """The demo saw something that Modelyard promises not to happen."""


def expect(condition: bool, promise: str) -> None:
    """Raises BrokenPromiseError unless the condition holds."""
    if not condition:
        raise BrokenPromiseError(promise)
    console.print(f"  [green]✓[/] {promise}")


def main() -> int:
    """Runs the whole story; answers the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="modelyard-demo-") as folder:
        try:
            tell(Path(folder))
        except (BrokenPromiseError, ClusterFailedError, RemoteError) as error:
            console.print(f"\n[bold red]The demo failed:[/] {error}")
            return 1
    console.print(Rule(f"done in {time.monotonic() - started:.0f} s, nothing left running", style="green"))
    return 0


def tell(folder: Path) -> None:
    """Starts the cluster and shows both tasks on it."""
    console.print(Rule("1. A cluster on this machine, every program a process of its own"))
    with running_cluster(folder / "data") as endpoint, Client(endpoint.address, endpoint.token) as client:
        triton = TritonClient(endpoint.address, endpoint.token)
        show_diabetes(client, triton, write_diabetes(folder))
        show_digits(client, triton, write_digits(folder))
        console.print(Rule("The end: everything is stopped"))


def show_diabetes(client: Client, triton: TritonClient, table: Table) -> None:
    """Steps 2 to 5 on the diabetes data."""
    console.print(Rule("2. Real data, a training job through the door"))
    upload(client, table)
    job = train(client, recipe="diabetes", seed=1)
    check_first_step(job)
    console.print(Rule("3. Trained, exported, compared, published"))
    check_diabetes(job)
    check_parity(client, job)
    console.print(Rule("4. Served: the stock Triton client asks through the door"))
    wait_until_served(client, "diabetes", "1", table)
    chosen = np.arange(0, len(table.rows), len(table.rows) // 8)[:8]
    answer = triton.predict("diabetes", table.rows[chosen], output="prediction")
    console.print(truth_table([values[0] for values in answer.values], table.truth[chosen]))
    console.print(provenance_lines(answer), soft_wrap=True)
    check_provenance(answer, job)
    show_swap(client, triton, table)


def show_swap(client: Client, triton: TritonClient, table: Table) -> None:
    """Trains version 2 while a client keeps asking."""
    console.print(Rule("5. A second version is swapped in while a client keeps asking"))
    load = triton.keep_asking("diabetes", table.rows[0])
    try:
        job = train(client, recipe="diabetes", seed=2)
        wait_until_served(client, "diabetes", "2", table)
        time.sleep(1.0)  # some more requests behind the swap
        report = load.stop()
    finally:
        load.kill()
    seconds = report.first_answer.get("2", float("inf")) - job.finish_time.ToNanoseconds() / 1e9
    expect(set(report.first_answer) == {"1", "2"}, f"versions that answered: {', '.join(sorted(report.first_answer))}")
    expect(
        report.failed == 0,
        f"{report.requests:,} requests across the swap, {report.failed} failed {report.errors or ''}",
    )
    expect(report.requests >= LEAST_REQUESTS, f"at least {LEAST_REQUESTS:,} requests ran across it")
    expect(
        seconds < MOST_SECONDS_TO_SERVED,
        f"from job finished to version 2 answering: {max(seconds, 0):.2f} s (limit {MOST_SECONDS_TO_SERVED:.0f} s)",
    )


def show_digits(client: Client, triton: TritonClient, table: Table) -> None:
    """The same for images: a small convolutional network."""
    console.print(Rule("6. A second task: handwritten digits, a small convolutional network"))
    upload(client, table)
    job = train(client, recipe="digits", seed=1)
    accuracy = job.evaluation.metrics["accuracy"]
    expect(accuracy >= LEAST_ACCURACY, f"accuracy {accuracy:.4f} on held-out images (limit {LEAST_ACCURACY})")
    wait_until_served(client, "digits", "1", table)
    index = 1234
    answer = triton.predict("digits", table.rows[index][np.newaxis, np.newaxis], output="logits")
    console.print(draw_digit(table.rows[index], np.asarray(answer.values[0]), int(table.truth[index])))


def upload(client: Client, table: Table) -> None:
    """Uploads a file as a dataset."""
    dataset = client.datasets.upload(table.path)
    shapes = {"×".join(map(str, column.shape)) or "scalar" for column in dataset.columns}
    console.print(
        f"  {dataset.name}: {dataset.row_count:,} rows, {len(dataset.columns)} columns ({', '.join(sorted(shapes))}), "
        f"sha256 {dataset.digest[:12]}…"
    )


def train(client: Client, *, recipe: str, seed: int) -> TrainingJob:
    """Submits a recipe and follows the job to its end."""
    spec = recipes.builtin_recipe(recipe)
    spec.seed = seed
    job = client.training.submit(spec)
    console.print(f"  {job.name}: {job.parameter_count:,} parameters, at most {spec.max_epochs} epochs, seed {seed}")
    watch(client, job.name, console=console)
    job = client.training.get(job.name)
    expect(
        job.state == State.STATE_SUCCEEDED,
        f"{job.name} published {job.model_version or 'nothing: ' + job.failure_message}",
    )
    return job


def check_first_step(job: TrainingJob) -> None:
    """The bar on the way from submission to the first step."""
    seconds = (job.start_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9
    expect(
        seconds < MOST_SECONDS_TO_FIRST_STEP,
        f"from submission to the first training step: {seconds:.2f} s (limit {MOST_SECONDS_TO_FIRST_STEP:.0f} s)",
    )


def check_diabetes(job: TrainingJob) -> None:
    """The bar on quality."""
    ours, linear = job.evaluation.metrics["r2"], job.evaluation.baseline_metrics["r2"]
    expect(ours >= linear - R2_MARGIN, f"R² {ours:.3f} on held-out rows, linear baseline {linear:.3f}")


def check_parity(client: Client, job: TrainingJob) -> None:
    """The exported graph computes what PyTorch computed."""
    _models, model, _versions, version = job.model_version.split("/")
    parity = client.models.version(model, version).parity
    batches = ", ".join(map(str, parity.batch_sizes))
    expect(
        parity.max_relative_error <= parity.relative_tolerance,
        f"ONNX Runtime against PyTorch on {parity.rows} rows at batches {batches}: "
        f"largest relative difference {parity.max_relative_error:.1e} (limit {parity.relative_tolerance:.0e})",
    )


def wait_until_served(client: Client, model: str, version: str, table: Table) -> None:
    """Asks until the version answers; a fresh model is UNAVAILABLE for a moment, never NOT_FOUND."""
    row = table.rows[:1] if table.rows.ndim == 2 else table.rows[:1, np.newaxis]
    deadline = time.monotonic() + 30
    while True:
        try:
            if client.predict(model, {"input": row}).version == version:
                return
        except RemoteError as error:
            if error.reason not in ("UNAVAILABLE", "NOT_FOUND") or time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise BrokenPromiseError(f"version {version} of {model} was not served within 30 s")
        time.sleep(0.02)


def check_provenance(answer: Answer, job: TrainingJob) -> None:
    """What the pod says of the numbers' origin is what the job says."""
    expect(
        answer.parameters.get("training_job") == job.name
        and answer.parameters.get("dataset_digest") == job.dataset_digest,
        "the served version names the job and the data it came from",
    )


if __name__ == "__main__":
    sys.exit(main())
