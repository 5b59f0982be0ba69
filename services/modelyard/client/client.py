"""The facade: one connection, one attribute per kind of resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from numpy.typing import ArrayLike

from .access import AccessClient
from .connection import Connection, Endpoint
from .datasets import DatasetsClient
from .health import service_states
from .models import ModelsClient
from .predictions import Prediction, PredictionsClient
from .training import TrainingClient


class Client:
    """A cluster, through its door. Safe to use from several threads; not across a fork.

    Errors that a service answers are `RemoteError`: branch on its `code` and `reason`.
    """

    def __init__(
        self, address: str | None = None, token: str | None = None, *, root_certificates: bytes | None = None
    ) -> None:
        """`address`: `host:port`, or `https://host:port` for TLS; default MODELYARD_ADDRESS, else the cluster that
        `modelyard up` runs on this machine. `token`: default MODELYARD_TOKEN, else that cluster's own.
        Raises ConnectionError if there is no cluster to find."""
        self._connection = Connection(Endpoint.find(address, token), root_certificates=root_certificates)
        self.address = self._connection.endpoint.address
        self.training = TrainingClient(self._connection)
        self.models = ModelsClient(self._connection)
        self.datasets = DatasetsClient(self._connection)
        self.access = AccessClient(self._connection)
        self.predictions = PredictionsClient(self._connection)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, ArrayLike],
        *,
        version: int | str = "",
        timeout_s: float = 30.0,
        metadata: Mapping[str, str] | None = None,
    ) -> Prediction:
        """Asks a model: arrays by input name in, arrays by output name out. The first dimension is the batch.

        `version`: a number or an alias; default the alias `live`. `metadata`: sent with the call, names in lower case:
        an alias that splits its traffic keeps callers with the same value of its sticky key on the same version.
        """
        return self.predictions.predict(model, inputs, version=version, timeout_s=timeout_s, metadata=metadata)

    def health(self) -> dict[str, str]:
        """How each service is: `SERVING`, `NOT_SERVING`, or the code of the error that asking brought.

        Raises ConnectionError if no cluster answers.
        """
        return service_states(self._connection)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
