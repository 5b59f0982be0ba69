"""What a check holds: a channel to the server, the model under test, and the notes of what happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from modelyard.core.channels import Metadata, sync_channel
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path

from .answers import OK, Answer, StreamAnswer
from .reference import PREFIX
from .subject import Subject
from .synthesis import Plan
from .transcript import describe
from .verdicts import NotApplicable, Notes

_TOKEN_KEY = "authorization"  # noqa: S105 - the name of a header


@dataclass(frozen=True, slots=True)
class Target:
    """The server and the model to check, and how to reach them."""

    address: str
    """`host:port`."""
    model: str = PREFIX + "add"
    version: str = ""
    headers: Metadata = ()
    token: str = field(default="", repr=False)
    tls: bool = False
    root_certificates: bytes | None = None
    timeout: float = 30.0
    """Seconds for one call."""
    reference_prefix: str = PREFIX
    plan: Plan = field(default_factory=Plan)

    def metadata(self) -> Metadata:
        """What every call carries."""
        token = ((_TOKEN_KEY, f"Bearer {self.token}"),) if self.token else ()
        return (*self.headers, *token)


class Probe:
    """Talks to one server. Calls take messages or bytes and never raise for what the server answered."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.notes = Notes()
        self._channel = self.new_channel()
        self._subjects: dict[str, Subject | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def new_channel(self) -> grpc.Channel:
        """A channel of its own, for a check that needs another connection; the caller closes it."""
        target = self.target
        return sync_channel(target.address, target.metadata, tls=target.tls, root_certificates=target.root_certificates)

    def call(self, method: str, request: Message | bytes = b"", **options: Any) -> Answer:
        """One call of the protocol; `options` as grpc's: timeout, metadata, compression."""
        self.notes.sent = describe(method, request)
        return self.call_path(method_path(method), request, **options)

    def call_path(self, path: str, request: Message | bytes, **options: Any) -> Answer:
        """One unary call of any service."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        options.setdefault("timeout", self.target.timeout)
        try:
            payload = _bytes_call(self._channel.unary_unary(path))(data, **options)
        except grpc.RpcError as error:
            return Answer(self.notes, error.code(), error.details() or "")
        return Answer(self.notes, OK, payload=payload)

    def start(self, request: pb.ModelInferRequest, channel: grpc.Channel | None = None, **options: Any) -> Any:
        """A prediction in flight, on a channel of its own if one is given: grpc's future."""
        options.setdefault("timeout", self.target.timeout)
        call = _bytes_call((channel or self._channel).unary_unary(method_path("ModelInfer")))
        return call.future(request.SerializeToString(), **options)

    def infer(self, request: pb.ModelInferRequest, **options: Any) -> Answer:
        """One prediction."""
        return self.call("ModelInfer", request, **options)

    def stream(self, requests: Iterable[Message | bytes], metadata: Metadata = ()) -> StreamAnswer:
        """One ModelStreamInfer: sends all requests, reads until the end."""
        sent = list(requests)
        shown = "; ".join(describe("ModelStreamInfer", one) for one in sent[:2]) + (" …" if sent[2:] else "")
        self.notes.sent = shown or "ModelStreamInfer without a request"
        data = [one if isinstance(one, bytes) else one.SerializeToString() for one in sent]
        return self.stream_path(method_path("ModelStreamInfer"), data, metadata)

    def stream_path(self, path: str, data: Sequence[bytes], metadata: Metadata = ()) -> StreamAnswer:
        """One stream of any service."""
        call = _bytes_call(self._channel.stream_stream(path))(
            iter(data), timeout=self.target.timeout, metadata=tuple(metadata)
        )
        payloads: list[bytes] = []
        try:
            payloads.extend(call)
        except grpc.RpcError as error:
            return StreamAnswer(self.notes, error.code(), error.details() or "", payloads)
        return StreamAnswer(self.notes, OK, "", payloads)

    def watch(self, path: str, request: Message | bytes) -> Any:
        """A server stream in progress, as grpc's iterator; the caller cancels it."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return _bytes_call(self._channel.unary_stream(path))(data, timeout=self.target.timeout)

    @cached_property
    def extensions(self) -> frozenset[str]:
        """What ServerMetadata declares; empty if it does not answer."""
        answer = self.call_path(method_path("ServerMetadata"), b"")
        return frozenset(pb.ServerMetadataResponse.FromString(answer.payload).extensions)

    @property
    def subject(self) -> Subject:
        """The model under test; NotApplicable if it has no usable metadata."""
        subject = self._find(self.target.model, self.target.version)
        if subject is None:
            raise NotApplicable(f"the server has no usable metadata of {self.target.model}")
        return subject

    def reference(self, name: str) -> Subject:
        """A reference model by its name without the prefix; NotApplicable if the server has none."""
        subject = self._find(self.target.reference_prefix + name, "")
        if subject is None:
            raise NotApplicable(f"the server has no model {self.target.reference_prefix}{name}")
        return subject

    def alive(self) -> bool:
        """Whether the server still says that it lives."""
        answer = self.call_path(method_path("ServerLive"), b"")
        return answer.code is OK and pb.ServerLiveResponse.FromString(answer.payload).live

    def _find(self, model: str, version: str) -> Subject | None:
        if model not in self._subjects:
            request = pb.ModelMetadataRequest(name=model, version=version)
            answer = self.call_path(method_path("ModelMetadata"), request)
            self._subjects[model] = Subject.read(model, version, answer.payload, self.target.plan)
        return self._subjects[model]


def _bytes_call(call: Any) -> Any:
    """A call that takes and gives bytes, which the stubs of grpc cannot express without serializers."""
    return call
