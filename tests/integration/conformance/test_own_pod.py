"""Our own pod passes every check on either lane; servers with a fault do not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from modelyard.conformance.probe import Probe, Target
from modelyard.conformance.run import Outcome, choose, run, run_check
from modelyard.oip import open_inference_pb2 as pb
from support import faults
from support.conformance_pod import LANES, ConformancePod
from support.faulty_proxy import Fault, FaultyProxy

INTERNAL = grpc.StatusCode.INTERNAL


def _target(pod: ConformancePod, address: str = "") -> Target:
    return Target(address or pod.address, token=pod.token)


def _double_success(response: pb.ModelStatisticsResponse) -> None:
    for one in response.model_stats:
        one.inference_stats.success.count *= 2


def _microseconds(response: pb.ModelStatisticsResponse) -> None:
    for one in response.model_stats:
        one.inference_stats.success.ns //= 1000


def _seconds(response: pb.ModelStatisticsResponse) -> None:
    for one in response.model_stats:
        one.last_inference //= 1000


def _foreign_states(response: pb.RepositoryIndexResponse) -> None:
    for row in response.models:
        row.state = f"State.{row.state}"


def _field_one(request: pb.RepositoryModelLoadRequest) -> None:
    request.repository_name, request.model_name = request.model_name, request.repository_name


def _numpy_names(response: pb.ModelMetadataResponse) -> None:
    for tensor in response.inputs:
        tensor.datatype = "float32"


def _with_batch(response: pb.ModelConfigResponse) -> None:
    for tensor in response.config.input:
        tensor.dims.insert(0, -1)


def _always_ready(response: pb.ModelReadyResponse) -> None:
    response.ready = True


def _fixed_rate(response: pb.TraceSettingResponse) -> None:
    response.settings["trace_rate"].value[:] = ["1", "2"]


def _no_region(request: pb.SystemSharedMemoryUnregisterRequest) -> None:
    request.name = "another"


FAULTS: list[tuple[str, Fault, str]] = [
    ("typed answers", faults.Changed("ModelInfer", faults.typed_answers), "contents.raw_answer_to_raw"),
    ("both forms", faults.Changed("ModelInfer", faults.both_forms), "contents.one_form_in_answers"),
    ("swapped contents", faults.Changed("ModelInfer", faults.swapped_contents), "infer.values"),
    ("swapped contents", faults.Changed("ModelInfer", faults.swapped_contents), "infer.input_order"),
    ("no id", faults.Changed("ModelInfer", faults.no_id), "infer.id"),
    ("an id of its own", faults.Changed("ModelInfer", faults.own_id), "infer.no_id"),
    ("no version", faults.Changed("ModelInfer", faults.no_version), "infer.model_version"),
    ("cut contents", faults.Changed("ModelInfer", faults.short_contents), "infer.contents_fit"),
    ("half precision", faults.Changed("ModelInfer", faults.half_precision), "datatypes.fp32_raw"),
    ("text instead of bytes", faults.Changed("ModelInfer", faults.readable_text), "datatypes.bytes_raw"),
    ("another's answer", faults.OverTaken(), "calls.at_once"),
    ("another's answer", faults.OverTaken(), "calls.cancels"),
    ("raw contents cut", faults.Asked("ModelInfer", faults.trimmed_raw), "refused.raw_too_long"),
    ("typed contents filled", faults.Asked("ModelInfer", faults.raw_of_typed), "refused.typed_too_short"),
    ("rows left out", faults.Asked("ModelInfer", faults.trimmed_rows), "calls.over_max_batch"),
    ("wrapped integers", faults.Asked("ModelInfer", faults.wrapped_integers), "datatypes.int8_range"),
    ("any version", faults.Asked("ModelInfer", faults.any_model_version), "refused.unknown_version"),
    ("inputs by position", faults.Asked("ModelInfer", faults.renamed_inputs), "refused.renamed_input"),
    ("all outputs", faults.Asked("ModelInfer", faults.all_outputs), "outputs.subset"),
    ("all outputs", faults.Asked("ModelInfer", faults.all_outputs), "classification.best"),
    ("no parameters", faults.Asked("ModelInfer", faults.no_parameters), "parameters.reserved_prefix"),
    ("offset ignored", faults.Asked("ModelInfer", faults.ignored_offset), "memory.inputs"),
    ("region ignored", faults.Asked("ModelInfer", faults.ignored_output_region), "memory.output"),
    ("never unregistered", faults.Asked("SystemSharedMemoryUnregister", _no_region), "memory.unregister"),
    ("another code", faults.Recoded(INTERNAL, "no"), "code.wrong_datatype"),
    ("a code without a text", faults.Recoded(grpc.StatusCode.INVALID_ARGUMENT, ""), "code.wrong_datatype"),
    ("everything is found", faults.Content(), "refused.unknown_model"),
    ("everything is found", faults.Content(), "health.unknown"),
    ("everything is ready", faults.Changed("ModelReady", _always_ready), "model.ready_unknown"),
    ("4 MiB", faults.Limited(), "wire.5_mib"),
    ("dead after bad bytes", faults.Dying(), "wire.malformed"),
    ("bare predictions in a stream", faults.Streamed(faults.unwrapped), "stream.answers"),
    ("a stream in another order", faults.Streamed(faults.reversed_stream), "stream.order"),
    ("a stream that ends with an error", faults.Streamed(faults.first_error_ends), "stream.error_inside"),
    ("errors without an id", faults.Streamed(faults.anonymous_errors), "stream.error_inside"),
    ("no final answer", faults.Streamed(faults.never_final), "stream.final_response"),
    ("counted twice", faults.Changed("ModelStatistics", _double_success), "statistics.counts"),
    ("microseconds", faults.Changed("ModelStatistics", _microseconds), "statistics.stages"),
    ("seconds", faults.Changed("ModelStatistics", _seconds), "statistics.last_inference"),
    ("states of its own", faults.Changed("RepositoryIndex", _foreign_states), "repository.index"),
    ("another field number", faults.Asked("RepositoryModelLoad", _field_one), "repository.load_again"),
    ("datatypes of its own", faults.Changed("ModelMetadata", _numpy_names), "model.metadata_tensors"),
    ("shapes with the batch", faults.Changed("ModelConfig", _with_batch), "config.tensors"),
    ("a setting that stays", faults.Changed("TraceSetting", _fixed_rate), "settings.trace_write"),
]
"""What is wrong, the fault, and the check that has to see it."""


@pytest.fixture(scope="module")
def probe(pod: ConformancePod, proxy: FaultyProxy) -> Probe:
    """Through the proxy, which is good when a test begins."""
    probe = Probe(_target(pod, proxy.address))
    assert probe.subject.batched
    return probe


@pytest.mark.parametrize("lane", LANES)
def test_our_pod_passes_every_check(lane: str, pods: Mapping[str, ConformancePod]) -> None:
    report = run(_target(pods[lane]), choose())
    wrong = [f"{one.check.id}: expected {one.expected}; got {one.got}" for one in report.results
             if one.outcome is not Outcome.PASS]  # fmt: skip
    assert not wrong
    assert report.server.startswith("modelyard ")


@pytest.mark.parametrize(("fault", "check_id"), [one[1:] for one in FAULTS], ids=[f"{a}-{c}" for a, _, c in FAULTS])
def test_a_fault_is_noticed(fault: Fault, check_id: str, probe: Probe, proxy: FaultyProxy) -> None:
    (check,) = choose([check_id])
    proxy.fault = Fault()
    before = run_check(check, probe)
    proxy.fault = fault
    try:
        spoiled = run_check(check, probe)
    finally:
        proxy.fault = Fault()
    assert (before.outcome, spoiled.outcome) == (Outcome.PASS, Outcome.FAIL), (before, spoiled)


def test_the_command_and_pytest_run_the_same_checks(pod: ConformancePod, tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    which = ["--only", "infer", "--only", "code.*"]
    junit = tmp_path / "report.xml"
    command = subprocess.run(
        [folder / "modelyard", "conformance", pod.address, "--token", pod.token, *which, "--json", "--junit", junit],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert command.returncode == 0, command.stderr
    document = json.loads(command.stdout)
    count = len(document["results"])
    assert count == len(choose(["infer", "code.*"]))
    assert {one["outcome"] for one in document["results"]} == {"pass"}
    assert junit.read_text().count("<testcase") == count
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "modelyard.conformance.pytest_plugin", "-p", "no:cacheprovider",
         "--pyargs", "modelyard.conformance.suite", "--server", pod.address, "--token", pod.token,
         "--conformance-only", "infer", "--conformance-only", "code.*"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert pytest_run.returncode == 0, pytest_run.stdout
    assert f"{count} passed" in pytest_run.stdout
