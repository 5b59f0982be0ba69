"""Writes what a pod answers: predictions, and what it says of models. Knows both the wire and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from modelyard.inference.execution.batches import DEFAULT_PRIORITY, PRIORITY_LEVELS, OutputContents
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.signature import TensorInfo
from modelyard.inference.observation.statistics import Duration, VersionStatistics
from modelyard.inference.serving.table import ModelEntry
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb

from .shared_memory import Region

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
ARTIFACT_NAME = "model.onnx"

_DATA_TYPES = {"BYTES": pb.TYPE_STRING} | {
    name.removeprefix("TYPE_"): number for name, number in pb.DataType.items() if name != "TYPE_STRING"
}
"""The number of each datatype in a ModelConfig."""


def prediction(
    request: pb.ModelInferRequest, version: LoadedVersion, names: Sequence[str], contents: Sequence[OutputContents]
) -> pb.ModelInferResponse:
    """The answer to a prediction, always with raw contents."""
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version.number_text, id=request.id)
    types = version.signature.outputs_by_name
    for name, content in zip(names, contents, strict=True):
        response.outputs.add(name=name, datatype=types[name].datatype.name, shape=content.shape)
        response.raw_output_contents.append(content.raw)
    # Only on request: it would double the size of a small answer.
    if "provenance" in request.parameters and request.parameters["provenance"].bool_param:
        for name, value in _provenance(version):
            response.parameters[name].string_param = value
    return response


def metadata(entry: ModelEntry, version: LoadedVersion) -> pb.ModelMetadataResponse:
    """Inputs and outputs of a version, and which versions are served beside it."""
    return pb.ModelMetadataResponse(
        name=entry.name,
        versions=[str(number) for number in sorted(entry.loaded)],
        platform=PLATFORM,
        inputs=map(_tensor_metadata, version.signature.inputs),
        outputs=map(_tensor_metadata, version.signature.outputs),
    )


def config(entry: ModelEntry, version: LoadedVersion, *, on_gpu: bool) -> pb.ModelConfig:
    """How a version is served and where it came from. Shapes are without the batch dimension, as in Triton."""
    first = 1 if version.signature.batched else 0
    answer = pb.ModelConfig(
        name=entry.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=version.max_batch_size,
        default_model_filename=ARTIFACT_NAME,
        version_policy=pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=sorted(entry.loaded))),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    kind = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    answer.instance_group.add(name=entry.name, count=version.execution.runners, kind=kind)
    for tensor in version.signature.inputs:
        answer.input.add(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype.name], dims=tensor.shape[first:])
    for tensor in version.signature.outputs:
        answer.output.add(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype.name], dims=tensor.shape[first:])
    if version.execution.batching:
        answer.dynamic_batching.CopyFrom(_dynamic_batching(version.execution))
    for name, value in (*_config_parameters(entry, version), *_execution_parameters(version.execution)):
        answer.parameters[name].string_value = value
    return answer


def statistics(name: str, version: LoadedVersion, *, on_gpu: bool) -> pb.ModelStatistics:
    """What was counted of a version since it was loaded."""
    counted = version.statistics
    return pb.ModelStatistics(
        name=name,
        version=version.number_text,
        last_inference=counted.last_inference_ms,
        inference_count=counted.row_count,
        execution_count=counted.execution_count,
        inference_stats=_stages(counted),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(batch.compute_input),
                compute_infer=_duration(batch.compute_infer),
                compute_output=_duration(batch.compute_output),
            )
            for size, batch in sorted(counted.batches.items())
        ],
        memory_usage=[pb.MemoryUsage(type="GPU" if on_gpu else "CPU", byte_size=version.room.size_bytes)],
    )


def index(entries: Iterable[ModelEntry], *, only_ready: bool) -> pb.RepositoryIndexResponse:
    """Every version that should be served or still is, by name and number."""
    rows = [row for entry in sorted(entries, key=lambda entry: entry.name) for row in _index_rows(entry)]
    return pb.RepositoryIndexResponse(models=[row for row in rows if row.state == "READY" or not only_ready])


def shared_memory_status(regions: Iterable[Region]) -> pb.SystemSharedMemoryStatusResponse:
    """These regions, by name."""
    response = pb.SystemSharedMemoryStatusResponse()
    for region in regions:
        status = response.regions[region.name]
        status.name, status.key = region.name, region.key
        status.offset, status.byte_size = region.offset, region.byte_size
    return response


def _index_rows(entry: ModelEntry) -> Iterator[pb.RepositoryIndexResponse.ModelIndex]:
    wanted = entry.wanted.versions if entry.wanted is not None else {}
    for number in sorted({*wanted, *entry.loaded, *entry.retiring}):
        state, reason = _state(entry, number)
        yield pb.RepositoryIndexResponse.ModelIndex(name=entry.name, version=str(number), state=state, reason=reason)


def _state(entry: ModelEntry, number: int) -> tuple[str, str]:
    """A version's state and, if it is not ready, why."""
    if number in entry.loaded:
        return "READY", ""
    if number in entry.retiring:
        return "UNLOADING", "it finishes the requests it has"
    if entry.unloaded:
        return "UNAVAILABLE", "unloaded by request"
    if entry.parked:
        return "UNAVAILABLE", entry.no_room or "unloaded to save memory; a request has it loaded again"
    if number in entry.failures:
        failure = entry.failures[number]
        return "UNAVAILABLE", f"{failure.reason} (tries: {failure.tries}; it is tried again)"
    return "LOADING", "it is being downloaded, verified and warmed up"


def _provenance(version: LoadedVersion) -> Iterator[tuple[str, str]]:
    """Where a version came from, as far as the registry knows."""
    wanted = version.wanted
    yield "digest", wanted.digest
    origin = {"training_job": wanted.training_job, "dataset": wanted.dataset, "dataset_digest": wanted.dataset_digest}
    yield from ((name, value) for name, value in origin.items() if value)


def _dynamic_batching(plan: ExecutionPlan) -> pb.ModelDynamicBatching:
    return pb.ModelDynamicBatching(
        preferred_batch_size=[plan.batch_rows],
        priority_levels=PRIORITY_LEVELS,
        default_priority_level=DEFAULT_PRIORITY,
        default_queue_policy=pb.ModelQueuePolicy(max_queue_size=plan.queue_size),
    )


def _execution_parameters(plan: ExecutionPlan) -> Iterator[tuple[str, str]]:
    """How a version computes, and what was measured to decide that."""
    yield "batching", plan.reason
    yield "graph_threads", str(plan.graph_threads)
    yield "inline_rows", str(plan.inline_rows)
    if plan.figures:
        yield "measured_us", " ".join(f"{figure.rows}:{figure.run_ns // 1000}" for figure in plan.figures)


def _config_parameters(entry: ModelEntry, version: LoadedVersion) -> Iterator[tuple[str, str]]:
    wanted = version.wanted
    yield "version", version.number_text
    yield from _provenance(version)
    if wanted.spec_digest:
        yield "spec_digest", wanted.spec_digest
    if wanted.opset_version:
        yield "opset_version", str(wanted.opset_version)
    if wanted.ir_version:
        yield "ir_version", str(wanted.ir_version)
    yield "aliases", ",".join(sorted(alias for alias, number in entry.aliases.items() if number == wanted.number))


def _tensor_metadata(tensor: TensorInfo) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)


def _stages(counted: VersionStatistics) -> pb.InferStatistics:
    return pb.InferStatistics(
        success=_duration(counted.success),
        fail=_duration(counted.fail),
        queue=_duration(counted.queue),
        compute_input=_duration(counted.compute_input),
        compute_infer=_duration(counted.compute_infer),
        compute_output=_duration(counted.compute_output),
        cache_hit=pb.StatisticDuration(),
        cache_miss=pb.StatisticDuration(),
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)
