"""What a prediction costs without a transport: callers in a loop call `Predictor.predict` in one process.

    .venv/bin/python benchmarks/predict_loop.py [--callers 32] [--seconds 2] [--rounds 5] [--profile]

For each network: predictions per second, processor time of each (caller included; the best round), the mean batch, and
what raw `session.run` does at its best batch size. The other figures are medians over the rounds; raw and served rounds
take turns, so that a noisy machine harms both.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import uvloop
from onnx import TensorProto, helper, numpy_helper

from modelyard.inference.execution.calibration import Wishes, plan_execution
from modelyard.inference.execution.cpus import available_cpus
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from modelyard.inference.prediction import Predictor
from modelyard.inference.serving.desired import WantedModel, WantedVersion
from modelyard.inference.serving.table import ModelEntry, ServingTable
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.tensors import Array, add_input

NETWORKS = {"small": (10, 20, 40, 1), "wide": (768, 3072, 3072, 768)}
RAW_ROWS = (8, 16, 32, 64, 128)


def network(sizes: Sequence[int]) -> bytes:
    """An ONNX file: Gemm and Relu in turn, random weights."""
    random = np.random.default_rng(0)
    nodes, constants, last = [], [], "x"
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        weights = (random.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{index}"))
        constants.append(numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}"))
        name = "y" if index == len(sizes) - 2 else f"g{index}"
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [name]))
        if name != "y":
            nodes.append(helper.make_node("Relu", [name], [f"h{index}"]))
            last = f"h{index}"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", sizes[-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


class Bench:
    """One network, served and raw."""

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        path = folder / "model.onnx"
        path.write_bytes(network(sizes))
        self.session = GraphSession(path, RuntimeOptions(device="cpu"))
        wishes = Wishes(runners=available_cpus(), queue_size=1024, max_batch_size=1024)
        self.plan = plan_execution(self.session, wishes, predictable=True)
        wanted = WantedVersion("m", 1, "digest", 1, (), (), 20, 10, "", "", "", "")
        self.version = LoadedVersion(wanted, self.session, self.plan)
        table = ServingTable()
        entry = ModelEntry("m", wanted=WantedModel("m", {1: wanted}, {"live": 1}), loaded={1: self.version})
        table.models["m"] = entry
        table.known = True
        entry.switch()
        table.publish()
        self.predictor = Predictor(table)
        self.row = np.random.default_rng(1).standard_normal((1, sizes[0])).astype(np.float32)

    async def served(self, callers: int, seconds: float) -> list[float]:
        """The times of all predictions, in seconds."""
        request = pb.ModelInferRequest(model_name="m", id="17")
        add_input(request, "x", self.row)
        content = request.SerializeToString()
        end = time.perf_counter() + seconds
        times: list[float] = []

        async def caller() -> None:
            while (start := time.perf_counter()) < end:
                response = await self.predictor.predict(pb.ModelInferRequest.FromString(content))
                response.SerializeToString()
                times.append(time.perf_counter() - start)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return times

    def raw(self, rows: int, threads: int, seconds: float) -> float:
        """Rows a second of `session.run` in so many threads."""
        feeds: dict[str, Array] = {"x": np.repeat(self.row, rows, axis=0)}
        end = time.perf_counter() + seconds
        counts = [0] * threads

        def work(number: int) -> None:
            while time.perf_counter() < end:
                self.session.run(feeds, ["y"])
                counts[number] += rows

        start = time.perf_counter()
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - start)

    def best_raw(self, seconds: float) -> tuple[int, int]:
        """Rows and threads with which `raw` is fastest."""
        settings = list(product(RAW_ROWS, (1, available_cpus())))
        return max(settings, key=lambda setting: self.raw(*setting, seconds / 2))


async def measure(name: str, options: argparse.Namespace) -> None:
    """Prints the figures of one network."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), NETWORKS[name])
        print(f"{name}: {bench.plan.reason}, up to {bench.plan.batch_rows} rows, "
              f"inline {bench.plan.inline_rows}, split {bench.plan.split_rows}")  # fmt: skip
        await bench.served(options.callers, 0.5)
        # The raw run of a tiny graph is all Python, and says nothing.
        best = None if name == "small" else bench.best_raw(options.seconds)
        rates, medians, raws, costs = [], [], [], []
        for _ in range(options.rounds):
            processor_s = time.process_time()
            times = await bench.served(options.callers, options.seconds)
            rates.append(len(times) / options.seconds)
            costs.append((time.process_time() - processor_s) / len(times))
            medians.append(statistics.median(times))
            if best is not None:
                raws.append(bench.raw(*best, options.seconds))
        counted = bench.version.statistics
        rate = statistics.median(rates)
        print(f"  {rate:,.0f} predictions/s, {1e6 * min(costs):.1f} µs of processor each, "
              f"p50 {statistics.median(medians) * 1e6:,.0f} µs, "
              f"{counted.row_count / counted.execution_count:.1f} rows a batch")  # fmt: skip
        if raws:
            ratios = [served / raw for served, raw in zip(rates, raws, strict=True)]
            print(
                f"  raw {statistics.median(raws):,.0f} rows/s with {best} rows and threads; "
                f"served reaches {statistics.median(ratios):.0%}"
            )
        if options.profile:
            profile = cProfile.Profile()
            profile.enable()
            await bench.served(options.callers, options.seconds)
            profile.disable()
            profile.print_stats("tottime")
        await bench.version.retire()


def main() -> None:
    """Measures the networks named on the command line, else all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], help="which networks")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for name in options.networks or NETWORKS:
        uvloop.run(measure(name, options))


if __name__ == "__main__":
    main()
