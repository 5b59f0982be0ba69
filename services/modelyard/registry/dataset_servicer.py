"""modelyard.v1.DatasetService: converts, delegates, converts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.interceptors import current_caller
from modelyard.core.names import DATASET
from modelyard.core.paging import page_size
from modelyard.v1 import dataset_pb2, dataset_service_pb2_grpc
from modelyard.v1 import dataset_service_pb2 as pb

from .content_converters import from_create_dataset, to_dataset
from .datasets import Datasets

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Datasets, each caller in its own tenant."""

    datasets: Datasets

    async def CreateDataset(self, request: pb.CreateDatasetRequest, _context: _Context) -> dataset_pb2.Dataset:
        """See the proto."""
        new = from_create_dataset(request)
        return to_dataset(await self.datasets.create(current_caller(), new, request.request_id))

    async def GetDataset(self, request: pb.GetDatasetRequest, _context: _Context) -> dataset_pb2.Dataset:
        """See the proto."""
        dataset_id = DATASET.parse(request.name, "name")["dataset"]
        return to_dataset(await self.datasets.get(current_caller(), dataset_id))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, _context: _Context) -> pb.ListDatasetsResponse:
        """See the proto."""
        page, token = await self.datasets.list(current_caller(), page_size(request.page_size), request.page_token)
        return pb.ListDatasetsResponse(datasets=[to_dataset(dataset) for dataset in page], next_page_token=token)
