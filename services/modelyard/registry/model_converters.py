"""Between the wire and the domain for models, versions, aliases and what should be served.

`content_converters` does the rest; nobody else knows both (the servicers hand over what these have made).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message

from modelyard.core.errors import InvalidFields, Violations
from modelyard.core.names import (
    DATASET,
    MODEL_ALIAS,
    TRAINING_JOB,
    check_digest,
    check_external_location,
    check_id,
    check_request_id,
    shorten,
)
from modelyard.v1 import model_pb2, model_service_pb2, tensor_pb2

from .alias_history import AliasChange
from .aliases import Alias
from .content.messages import TensorFacts
from .field_checks import (
    MAX_DESCRIPTION,
    MAX_DISPLAY_NAME,
    MAX_REASON,
    check_by,
    check_labels,
    check_line,
    check_text,
)
from .models import Model, ModelUpdate, NewModel
from .served import ServedModel
from .serving import LIMITS, Serving
from .traffic_converters import to_pods, to_traffic
from .versions import Origin, Version
from .watching import Update
from .wire import to_data_type, to_timestamp


def from_create_model(request: model_service_pb2.CreateModelRequest) -> NewModel:
    """What the caller says of the model; raises InvalidFields with everything that is wrong."""
    model, violations = request.model, Violations()
    check_by(violations, "model_id", request.model_id, check_id)
    check_by(violations, "request_id", request.request_id, check_request_id)
    _check_model(violations, model)
    violations.raise_if_any()
    serving = _from_serving(model.serving)
    return NewModel(request.model_id, model.display_name, model.description, dict(model.labels), serving)


_WRITABLE = ("display_name", "description", "labels", "serving")
_OUTPUT_ONLY = ("name", "latest_version", "aliases", "create_time", "update_time", "etag", "tenant")


def from_update_model(request: model_service_pb2.UpdateModelRequest) -> ModelUpdate:
    """What the caller wants changed; raises InvalidFields with everything that is wrong."""
    model, violations = request.model, Violations()
    check_by(violations, "request_id", request.request_id, check_request_id)
    _check_model(violations, model)
    paths = list(request.update_mask.paths) or [field.name for field, _value in model.ListFields()]
    if "*" in paths:
        paths = [*_WRITABLE, *(path for path in paths if path != "*")]
    fields: dict[str, Any] = {}
    serving: dict[str, int] = {}
    for path in paths:
        _take_path(violations, path, model, fields, serving)
    violations.raise_if_any()
    return ModelUpdate(fields, serving, model.etag)


def _take_path(
    violations: Violations, path: str, model: model_pb2.Model, fields: dict[str, Any], serving: dict[str, int]
) -> None:
    settings = asdict(_from_serving(model.serving))
    if path == "serving":
        serving.update(settings)
    elif path.startswith("serving.") and path.removeprefix("serving.") in settings:
        name = path.removeprefix("serving.")
        serving[name] = settings[name]
    elif path == "labels":
        fields[path] = dict(model.labels)
    elif path in _WRITABLE:
        fields[path] = getattr(model, path)
    elif path not in _OUTPUT_ONLY:
        known = ", ".join([*_WRITABLE, *(f"serving.{name}" for name in settings)])
        violations.add("update_mask", f"expected paths among {known}, or *; got {shorten(path)!r}")


def _check_model(violations: Violations, model: model_pb2.Model) -> None:
    """The fields of a model that callers write."""
    check_line(violations, "model.display_name", model.display_name, MAX_DISPLAY_NAME)
    check_text(violations, "model.description", model.description, MAX_DESCRIPTION)
    check_labels(violations, "model.labels", model.labels)
    for name, limit in LIMITS.items():
        value = getattr(model.serving, name)
        violations.check(0 <= value <= limit, f"model.serving.{name}", f"expected 0 to {limit}, got {value}")
    violations.check(
        model.serving.batching in model_pb2.ServingConfig.Batching.values(),
        "model.serving.batching",
        f"expected a value of the enum, got {model.serving.batching}",
    )


def _from_serving(message: model_pb2.ServingConfig) -> Serving:
    return Serving(**{field: getattr(message, field) for field in asdict(Serving())})


def to_serving(serving: Serving) -> model_pb2.ServingConfig:
    """The settings as callers and pods see them."""
    message = model_pb2.ServingConfig()
    for name, value in serving.to_row().items():
        setattr(message, name, value)
    return message


def to_model(model: Model) -> model_pb2.Model:
    """A model as callers see it."""
    return model_pb2.Model(
        name=f"models/{model.id}",
        display_name=model.display_name,
        description=model.description,
        labels=model.labels,
        latest_version=model.latest_version,
        aliases=model.aliases,
        create_time=to_timestamp(model.create_time),
        update_time=to_timestamp(model.update_time),
        etag=str(model.changes),
        tenant=model.tenant,
        serving=to_serving(model.serving) if model.serving.to_row() else None,
    )


def from_create_version(request: model_service_pb2.CreateModelVersionRequest) -> Origin:
    """Where the version comes from; raises InvalidFields with everything that is wrong."""
    version, violations = request.model_version, Violations()
    check_by(violations, "request_id", request.request_id, check_request_id)
    check_by(violations, "model_version.digest", version.digest, check_digest)
    if request.alias:
        check_by(violations, "alias", request.alias, check_id)
    if version.training_job:
        check_by(violations, "model_version.training_job", version.training_job, TRAINING_JOB.parse)
    if version.dataset:
        check_by(violations, "model_version.dataset", version.dataset, DATASET.parse)
    for field in ("dataset_digest", "spec_digest"):
        if getattr(version, field):
            check_by(violations, f"model_version.{field}", getattr(version, field), check_digest)
    _check_external_data(violations, version)
    check_labels(violations, "model_version.library_versions", version.library_versions)
    check_labels(violations, "model_version.labels", version.labels)
    violations.raise_if_any()
    return Origin(
        digest=version.digest,
        training_job=version.training_job,
        dataset=version.dataset,
        dataset_digest=version.dataset_digest,
        spec_digest=version.spec_digest,
        evaluation=_document(version, "evaluation"),
        parity=_document(version, "parity"),
        library_versions=dict(version.library_versions),
        labels=dict(version.labels),
        external_data=_external_data(version),
    )


def _check_external_data(violations: Violations, version: model_pb2.ModelVersion) -> None:
    if version.HasField("external_data"):
        path, data = "model_version.external_data", version.external_data
        check_by(violations, f"{path}.digest", data.digest, check_digest)
        check_by(violations, f"{path}.location", data.location, check_external_location)


def _external_data(version: model_pb2.ModelVersion) -> dict[str, Any]:
    data = version.external_data
    return {"digest": data.digest, "location": data.location} if version.HasField("external_data") else {}


def _document(message: Message, field: str) -> bytes | None:
    """A submessage as bytes that are the same for the same content; None if it is not set."""
    if not message.HasField(field):
        return None
    submessage: Message = getattr(message, field)
    return submessage.SerializeToString(deterministic=True)


def to_version(version: Version) -> model_pb2.ModelVersion:
    """A version as callers see it."""
    message = to_served_version(version)
    message.labels.update(version.origin.labels)
    if version.origin.evaluation is not None:
        message.evaluation.ParseFromString(version.origin.evaluation)
    if version.origin.parity is not None:
        message.parity.ParseFromString(version.origin.parity)
    return message


def to_served_version(version: Version) -> model_pb2.ModelVersion:
    """What a pod needs of a version; short, since a snapshot holds every served one."""
    origin, graph = version.origin, version.graph
    return model_pb2.ModelVersion(
        name=f"models/{version.model_id}/versions/{version.number}",
        version=version.number,
        digest=origin.digest,
        size_bytes=version.size_bytes,
        inputs=[_to_tensor(tensor) for tensor in graph.inputs],
        outputs=[_to_tensor(tensor) for tensor in graph.outputs],
        opset_version=graph.opset_version,
        ir_version=graph.ir_version,
        training_job=origin.training_job,
        dataset=origin.dataset,
        dataset_digest=origin.dataset_digest,
        spec_digest=origin.spec_digest,
        library_versions=origin.library_versions,
        create_time=to_timestamp(version.create_time),
        external_data=model_pb2.ExternalData(**origin.external_data) if origin.external_data else None,
    )


def _to_tensor(tensor: TensorFacts) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=tensor.name, data_type=to_data_type(tensor.data_type), shape=tensor.shape)


def from_alias_name(name: str, field: str) -> tuple[str, str]:
    """Model and alias; raises InvalidFields."""
    parts = MODEL_ALIAS.parse(name, field)
    return parts["model"], parts["alias"]


def check_move(request_id: str, reason: str, version: int | None = None) -> None:
    """Raises InvalidFields with everything that is wrong with a move's other fields."""
    violations = Violations()
    check_by(violations, "request_id", request_id, check_request_id)
    check_text(violations, "reason", reason, MAX_REASON)
    if version is not None:
        violations.check(version >= 1, "model_alias.version", f"expected 1 or more, got {version}")
    violations.raise_if_any()


def check_alias_filter(alias: str) -> str:
    """The alias to filter by, or none; raises InvalidFields."""
    return check_id(alias, "alias") if alias else ""


def to_alias(alias: Alias) -> model_pb2.ModelAlias:
    """An alias as callers see it."""
    return model_pb2.ModelAlias(
        name=f"models/{alias.model_id}/aliases/{alias.alias}",
        version=alias.version,
        update_time=to_timestamp(alias.update_time),
        etag=str(alias.sequence),
        traffic=to_traffic(alias.traffic),
    )


def to_alias_change(change: AliasChange) -> model_pb2.ModelAliasChange:
    """An entry of the history as callers see it."""
    return model_pb2.ModelAliasChange(
        sequence=change.sequence,
        alias=change.alias,
        previous_version=change.previous_version,
        version=change.version,
        time=to_timestamp(change.time),
        actor=change.actor,
        reason=change.reason,
        previous_traffic=to_traffic(change.previous_traffic),
        traffic=to_traffic(change.traffic),
    )


def check_revision(after_revision: int) -> int:
    """The revision to go on from; raises InvalidFields."""
    if after_revision < 0:
        raise InvalidFields.one("after_revision", f"expected 0 or more, got {after_revision}")
    return after_revision


def to_watch_response(update: Update) -> model_service_pb2.WatchModelsResponse:
    """A message to a watching pod."""
    return model_service_pb2.WatchModelsResponse(
        revision=update.revision,
        snapshot=update.snapshot,
        models=[_to_served_model(model) for model in update.models],
    )


def _to_served_model(model: ServedModel) -> model_service_pb2.ServedModel:
    versions = [version for _, version in sorted(model.versions.items())]
    return model_service_pb2.ServedModel(
        name=f"models/{model.model_id}",
        versions=[model_service_pb2.ServedVersion(model_version=to_served_version(version)) for version in versions],
        aliases=model.aliases,
        serving=to_serving(model.serving) if model.serving.to_row() else None,
        traffic={alias: to_pods(traffic) for alias, traffic in model.traffic.items()},
    )
