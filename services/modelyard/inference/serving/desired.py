"""What the registry says should be served, as the pod last heard it, and its copy on disk.

The copy lets a pod that restarts while the registry is away go on serving what it has in its cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from google.protobuf.message import DecodeError

from modelyard.core.errors import InvalidFields
from modelyard.core.logs import get_logger
from modelyard.core.names import MODEL, check_digest, check_external_location
from modelyard.v1 import model_pb2, tensor_pb2
from modelyard.v1 import model_service_pb2 as pb

log = get_logger()


@dataclass(frozen=True, slots=True)
class WantedTensor:
    """One input or output as the registry read it from the graph."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How the model's owner wants it served. What has its default, the pod decides by itself, by measuring."""

    max_batch_size: int = 0
    """The most rows of one request, and of requests that are computed together."""
    queue_size: int = 0
    """Requests that may wait."""
    runners: int = 0
    """Batches, or without batching requests, that are computed at once."""
    graph_threads: int = 0
    """Threads inside one computation."""
    batching: bool | None = None
    """Whether requests are computed together. None: if measuring says that it helps."""

    @classmethod
    def from_message(cls, message: model_pb2.ServingConfig) -> Self:
        """Below 0 is taken as 0, and a value of the enum that this pod does not know as its own choice."""
        choices = {model_pb2.ServingConfig.BATCHING_ON: True, model_pb2.ServingConfig.BATCHING_OFF: False}
        return cls(
            max_batch_size=max(0, message.max_batch_size),
            queue_size=max(0, message.queue_size),
            runners=max(0, message.runners),
            graph_threads=max(0, message.graph_threads),
            batching=choices.get(message.batching),
        )


@dataclass(frozen=True, slots=True)
class WantedFile:
    """The file that holds a graph's weights."""

    digest: str
    size_bytes: int
    location: str
    """Its name, as the graph has it."""

    @classmethod
    def from_message(cls, version: model_pb2.ModelVersion) -> Self | None:
        """None if the version is one file. Raises InvalidFields if digest or location are none: both name files."""
        if not version.HasField("external_data"):
            return None
        data = version.external_data
        check_external_location(data.location, "external_data.location")
        return cls(check_digest(data.digest, "external_data.digest"), data.size_bytes, data.location)


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """One version to serve. Two are equal only if everything is: the same number with another digest, or to be served
    in another way, is another one, which is loaded beside it and takes its place."""

    model: str
    """The model's id."""
    number: int
    digest: str
    size_bytes: int
    inputs: tuple[WantedTensor, ...]
    outputs: tuple[WantedTensor, ...]
    opset_version: int
    ir_version: int
    training_job: str
    dataset: str
    dataset_digest: str
    spec_digest: str
    serving: ServingConfig = ServingConfig()
    weights: WantedFile | None = None
    """None: in the ONNX file."""

    @classmethod
    def from_message(
        cls, model: str, version: model_pb2.ModelVersion, serving: ServingConfig = ServingConfig()
    ) -> Self:
        """Raises InvalidFields if the digest is none: it will name a file."""
        return cls(
            model=model,
            number=version.version,
            digest=check_digest(version.digest, "digest"),
            size_bytes=version.size_bytes,
            inputs=tuple(map(_tensor, version.inputs)),
            outputs=tuple(map(_tensor, version.outputs)),
            opset_version=version.opset_version,
            ir_version=version.ir_version,
            training_job=version.training_job,
            dataset=version.dataset,
            dataset_digest=version.dataset_digest,
            spec_digest=version.spec_digest,
            serving=serving,
            weights=WantedFile.from_message(version),
        )

    @property
    def form(self) -> tuple[str, WantedFile | None, ServingConfig]:
        """What a loaded version was made from: with another form it must be loaded anew."""
        return self.digest, self.weights, self.serving

    def __str__(self) -> str:
        return f"models/{self.model}/versions/{self.number}"


DEFAULT_STICKY_KEY = "x-modelyard-caller"
"""The metadata key that tells callers apart where the alias names none."""


@dataclass(frozen=True, slots=True)
class WantedTraffic:
    """Where an alias sends callers beside its own version."""

    split: tuple[tuple[int, float], ...] = ()
    """Numbers of other versions with their share of the requests in percent."""
    sticky_key: str = DEFAULT_STICKY_KEY
    shadow: tuple[int, float] | None = None
    """The version whose answers are compared, with the share of the requests that it is given in percent."""

    @classmethod
    def from_message(cls, message: model_pb2.Traffic) -> Self:
        """The registry has checked it."""
        return cls(
            tuple((weighted.version, weighted.percent) for weighted in message.split),
            message.sticky_key or DEFAULT_STICKY_KEY,
            (message.shadow.version, message.shadow.percent) if message.HasField("shadow") else None,
        )


@dataclass(frozen=True, slots=True)
class WantedModel:
    """What to serve of one model."""

    name: str
    """The model's id."""
    versions: Mapping[int, WantedVersion]
    aliases: Mapping[str, int]
    serving: ServingConfig = ServingConfig()
    """The same for all its versions, which carry it too."""
    traffic: Mapping[str, WantedTraffic] = field(default_factory=dict)
    """By alias, of those that have any."""

    @classmethod
    def from_message(cls, message: pb.ServedModel) -> Self:
        """Raises InvalidFields for a name or digest that is none."""
        model = MODEL.parse(message.name, "name")["model"]
        serving = ServingConfig.from_message(message.serving)
        versions = [WantedVersion.from_message(model, served.model_version, serving) for served in message.versions]
        traffic = {alias: WantedTraffic.from_message(found) for alias, found in message.traffic.items()}
        return cls(model, {version.number: version for version in versions}, dict(message.aliases), serving, traffic)


class DesiredState:
    """All that should be served. `changed` models are told apart, so that the others are left alone."""

    def __init__(self, file: Path) -> None:
        """`file`: where the copy is kept."""
        self._file = file
        self._messages: dict[str, pb.ServedModel] = {}
        self.models: dict[str, WantedModel] = {}
        """By id."""
        self.revision = 0
        """The registry's, of the last message applied."""

    def restore(self) -> bool:
        """Takes over the copy on disk; answers whether there was a usable one."""
        try:
            message = pb.WatchModelsResponse.FromString(self._file.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, DecodeError) as error:
            log.warning("the copy of the desired state is unreadable", file=str(self._file), error=str(error))
            return False
        self._replace(message.models)
        return True

    def apply(self, message: pb.WatchModelsResponse) -> set[str]:
        """Takes over what the registry says; answers the ids of the models that changed."""
        before = dict(self.models)
        if message.snapshot:
            self._replace(message.models)
        else:
            self._update(message.models)
        self.revision = message.revision
        return {name for name in {*before, *self.models} if before.get(name) != self.models.get(name)}

    def save(self) -> None:
        """Writes the copy: complete or not at all. Blocking. Raises OSError, for a full disk for example."""
        message = pb.WatchModelsResponse(revision=self.revision, snapshot=True, models=self._messages.values())
        partial = self._file.with_suffix(".part")
        with partial.open("wb") as file:
            file.write(message.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file)

    def _replace(self, models: Iterable[pb.ServedModel]) -> None:
        self._messages, self.models = {}, {}
        self._update(models)

    def _update(self, models: Iterable[pb.ServedModel]) -> None:
        for message in models:
            try:
                model = WantedModel.from_message(message)
            except InvalidFields as error:
                log.warning("the registry names what cannot be served", model=message.name, error=error.message)
                continue
            if model.versions:
                self._messages[model.name], self.models[model.name] = message, model
            else:
                self._messages.pop(model.name, None)
                self.models.pop(model.name, None)


def _tensor(spec: tensor_pb2.TensorSpec) -> WantedTensor:
    # A number that this pod's contract does not know yet fits no graph, and is refused when the version is loaded.
    known = spec.data_type in tensor_pb2.DataType.values()
    datatype = tensor_pb2.DataType.Name(spec.data_type).removeprefix("DATA_TYPE_") if known else str(spec.data_type)
    return WantedTensor(spec.name, datatype, tuple(spec.shape))
