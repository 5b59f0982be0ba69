"""Datasets over gRPC."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import dataset_pb2, tensor_pb2
from modelyard.v1 import dataset_service_pb2 as pb
from support.identity import Identity
from support.registry import RegistryClient, refusal, running_registry

Code = grpc.StatusCode
CSV = b"age,bmi,sex,target\n59,32.1,male,151\n48,21.6,female,75\n72,,male,141\n24,25.3,female,206\n"


@pytest.fixture
async def registry(sqlite_settings: RegistrySettings, identity: Identity) -> AsyncIterator[RegistryClient]:
    async with running_registry(sqlite_settings, identity, "developer") as client:
        yield client


async def names(registry: RegistryClient, **options: object) -> tuple[list[str], str]:
    answer = await registry.datasets.ListDatasets(pb.ListDatasetsRequest(**options))  # type: ignore[arg-type]
    return [dataset.name for dataset in answer.datasets], answer.next_page_token


async def test_a_csv_file_becomes_a_dataset_with_its_columns(registry: RegistryClient) -> None:
    dataset = await registry.create_dataset(CSV, "diabetes", display_name="Diabetes", labels={"source": "test"})
    assert (dataset.name, dataset.display_name, dict(dataset.labels)) == (
        "datasets/diabetes", "Diabetes", {"source": "test"},
    )  # fmt: skip
    assert (dataset.size_bytes, dataset.row_count, dataset.tenant) == (len(CSV), 4, "default")
    assert dataset.etag
    assert dataset.HasField("create_time")
    age, bmi, sex, _target = dataset.columns
    assert (age.name, age.data_type, age.minimum, age.maximum) == ("age", tensor_pb2.DATA_TYPE_INT64, 24, 72)
    assert (bmi.data_type, bmi.null_count) == (tensor_pb2.DATA_TYPE_FP64, 1)
    assert (sex.data_type, sex.first_text_row) == (tensor_pb2.DATA_TYPE_BYTES, 0)
    assert await registry.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/diabetes")) == dataset


async def test_text_among_numbers_is_told_by_row(registry: RegistryClient) -> None:
    dataset = await registry.create_dataset(CSV.replace(b"25.3", b"abc"))
    bmi = dataset.columns[1]
    assert (bmi.name, bmi.first_text_row, bmi.first_text) == ("bmi", 4, "abc")


async def test_parquet_and_npz_files_become_datasets_with_shapes(registry: RegistryClient) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": pa.array([1.5, None, 2.5], pa.float32())}), buffer)
    parquet = await registry.create_dataset(buffer.getvalue(), "parquet", file_format="PARQUET")
    assert (parquet.row_count, parquet.columns[0].null_count) == (3, 1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=np.zeros((7, 8, 8), "f4"), label=np.arange(7))
    npz = await registry.create_dataset(buffer.getvalue(), "npz", file_format="NPZ")
    assert (npz.row_count, list(npz.columns[0].shape), list(npz.columns[1].shape)) == (7, [8, 8], [])


async def test_the_same_again_is_the_same_dataset_and_other_content_is_refused(registry: RegistryClient) -> None:
    first = await registry.create_dataset(CSV)
    assert await registry.create_dataset(CSV) == first
    for changed in (
        registry.create_dataset(CSV + b"1,2,x,3\n"),
        registry.create_dataset(CSV, display_name="other"),
        registry.create_dataset(CSV, file_format="PARQUET"),
    ):
        error = await refusal(changed)
        assert (error.code, error.metadata["resource"]) == (Code.ALREADY_EXISTS, "datasets/table")


async def test_of_two_who_create_the_same_id_at_once_one_content_wins(registry: RegistryClient) -> None:
    contents = [CSV, CSV + b"1,2,x,3\n"]
    ends = await asyncio.gather(*(registry.create_dataset(content) for content in contents * 2), return_exceptions=True)
    made = [end for end in ends if isinstance(end, dataset_pb2.Dataset)]
    assert len({dataset.digest for dataset in made}) == 1
    assert len(made) == 2


async def test_a_repeated_request_is_answered_alike_and_its_id_is_not_for_others(registry: RegistryClient) -> None:
    digest = await registry.upload(CSV)
    dataset = dataset_pb2.Dataset(format=dataset_pb2.Dataset.FORMAT_CSV, digest=digest)
    request = pb.CreateDatasetRequest(dataset_id="a", dataset=dataset, request_id="r1")
    first = await registry.datasets.CreateDataset(request)
    assert await registry.datasets.CreateDataset(request) == first
    request.dataset_id = "b"
    assert (await refusal(registry.datasets.CreateDataset(request))).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("content", "file_format", "expected"),
    [
        (b"", "CSV", "empty"),
        (b"a,b\n", "CSV", "no rows"),
        (b"a,b\n1,2\n3\n", "CSV", "row 2 has 1 columns"),
        (b"PAR1 but not really", "PARQUET", "not a whole Parquet file"),
        (b"PK but not really", "NPZ", "not a whole NPZ file"),
    ],
)
async def test_content_that_is_no_table_leaves_no_dataset(
    registry: RegistryClient, content: bytes, file_format: str, expected: str
) -> None:
    error = await refusal(registry.create_dataset(content, file_format=file_format))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_CONTENT")
    assert expected in error.message
    assert await names(registry) == ([], "")


async def test_datasets_are_listed_newest_first_page_by_page(registry: RegistryClient) -> None:
    for number in range(5):
        await registry.create_dataset(CSV, f"d{number}")
    first, token = await names(registry, page_size=2)
    second, token = await names(registry, page_size=2, page_token=token)
    third, token = await names(registry, page_size=2, page_token=token)
    assert first + second + third == [f"datasets/d{number}" for number in (4, 3, 2, 1, 0)]
    assert token == ""


async def test_tenants_do_not_see_each_others_datasets(
    registry: RegistryClient, sqlite_settings: RegistrySettings, identity: Identity
) -> None:
    await registry.create_dataset(CSV, "mine")
    async with running_registry(sqlite_settings, identity, "developer", tenant="blue") as blue:
        call = blue.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/mine"))
        assert (await refusal(call)).code is Code.NOT_FOUND
        assert await names(blue) == ([], "")
        assert (await refusal(blue.create_dataset(CSV, "mine"))).code is Code.ALREADY_EXISTS
    async with running_registry(sqlite_settings, identity, "service", tenant="") as service:
        assert (await service.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/mine"))).tenant == "default"
