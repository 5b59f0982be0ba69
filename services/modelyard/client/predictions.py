"""Predictions over the Open Inference Protocol, with NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelyard.core.errors import InvalidFields, RemoteError
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES, to_bfloat16
from modelyard.oip.service import InferenceStub
from modelyard.oip.tensors import add_input, output_arrays

from .connection import DEFAULT_TIMEOUT_S, Connection, translated

ENDING_WITH_ERRORS = (("triton_grpc_error", "true"),)
"""Metadata: the first error ends a stream with its status."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer."""

    outputs: dict[str, NDArray[Any]]
    """Arrays by output name; the first dimension is the batch."""
    model: str
    version: str
    """The number of the version that answered, also when an alias was asked."""

    @property
    def output(self) -> NDArray[Any]:
        """The one output of a model that has one; raises ValueError for a model with several."""
        (array,) = self.outputs.values()
        return array


def _pairs(metadata: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple((metadata or {}).items())


class PredictionsClient:
    """`client.predictions`; `client.predict` is the usual way in."""

    def __init__(self, connection: Connection) -> None:
        self._stub = InferenceStub(connection.channel)
        self._metadata: dict[tuple[str, str], pb.ModelMetadataResponse] = {}

    def predict(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        version: int | str = "",
        timeout_s: float = 30.0,
        metadata: Mapping[str, str] | None = None,
    ) -> Prediction:
        """See `Client.predict`. Values are converted to the types that the model declares.

        Raises InvalidFields if they cannot be, RemoteError for what a service refuses.
        """
        request = self._request(model, inputs, version)
        try:
            with translated():
                response = self._stub.ModelInfer(request, timeout=timeout_s, metadata=_pairs(metadata))
        except RemoteError:
            self._metadata.pop((model, str(version)), None)  # the signature may have changed with the version
            raise
        return _prediction(response)

    def stream(
        self,
        model: str,
        requests: Iterable[Mapping[str, ArrayLike]],
        *,
        version: int | str = "",
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[Prediction]:
        """Predictions over one connection to one pod, in the order of `requests`; several are computed at once.

        `requests` is read ahead, in another thread, as fast as the pod takes them. The first error ends the stream,
        with RemoteError, or with what reading `requests` raised. `timeout_s`: for all of it; default none.
        `metadata`: as for `Client.predict`; it is the stream's, so a sticky key keeps all of it on one version.
        """
        broken: list[BaseException] = []
        call = self._stub.ModelStreamInfer(
            _noting(broken, (self._request(model, inputs, version) for inputs in requests)),
            timeout=timeout_s, metadata=(*ENDING_WITH_ERRORS, *_pairs(metadata)),
        )  # fmt: skip
        try:
            with translated():
                for reply in call:
                    yield _prediction(reply.infer_response)
        except RemoteError:
            if broken:
                raise broken[0] from None
            self._metadata.pop((model, str(version)), None)
            raise
        finally:
            call.cancel()

    def _request(self, model: str, inputs: Mapping[str, ArrayLike], version: int | str) -> pb.ModelInferRequest:
        """The request, with values as the types that the model declares."""
        types = {tensor.name: tensor.datatype for tensor in self.metadata(model, version=version).inputs}
        request = pb.ModelInferRequest(model_name=model, model_version=str(version))
        for name, values in inputs.items():
            datatype = types.get(name, "")
            add_input(request, name, _converted(name, values, datatype), "BF16" if datatype == "BF16" else "")
        return request

    def metadata(self, model: str, *, version: int | str = "") -> pb.ModelMetadataResponse:
        """Names, types and shapes of a model's inputs and outputs, asked for once per model and version."""
        key = (model, str(version))
        if key not in self._metadata:
            request = pb.ModelMetadataRequest(name=model, version=str(version))
            with translated():
                self._metadata[key] = self._stub.ModelMetadata(request, timeout=DEFAULT_TIMEOUT_S)
        return self._metadata[key]

    def served(self) -> list[pb.RepositoryIndexResponse.ModelIndex]:
        """Every version that the answering pod serves or loads, with its state."""
        with translated():
            index = self._stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=DEFAULT_TIMEOUT_S)
        return list(index.models)


def _prediction(response: pb.ModelInferResponse) -> Prediction:
    return Prediction(output_arrays(response), response.model_name, response.model_version)


def _noting(broken: list[BaseException], requests: Iterator[pb.ModelInferRequest]) -> Iterator[pb.ModelInferRequest]:
    """The requests until one cannot be made. gRPC, which reads them in a thread of its own, would only log why."""
    try:
        yield from requests
    except Exception as error:
        broken.append(error)
        raise


def _converted(name: str, values: ArrayLike, datatype: str) -> NDArray[Any]:
    """The values as the model's type; as they are if that is unknown, since the service's error says what it wants.

    Raises InvalidFields for values that cannot be of that type, and for rows of different lengths.
    """
    known = DATATYPES.get(datatype)
    try:
        if datatype == "BF16":
            return to_bfloat16(np.asarray(values, dtype=np.float32))
        return np.asarray(values, dtype=None if known is None or datatype == "BYTES" else known.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        wanted = f"{datatype} values" if known else "values"
        raise InvalidFields.one(f"inputs.{name}", f"expected {wanted} in rows of one length; {error}") from error
