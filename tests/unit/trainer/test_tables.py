"""Reading dataset files: every format gives the same arrays, and what is not all numbers is refused with its place."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from modelyard.training import check_spec
from modelyard.v1 import tensor_pb2
from modelyard.v1.dataset_pb2 import Dataset
from modelyard.v1.training_spec_pb2 import TrainingSpec
from modelyard_workers.trainer.failures import DataUnusable
from modelyard_workers.trainer.tables import Table, read_table
from support.trainer_folders import describe
from support.training_specs import classification, flatten, linear, network, pictures, regression, table

ROWS = 20
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, 4)).round(3)
IMAGES = np.random.default_rng(1).integers(0, 17, size=(ROWS, 8, 8)).astype(np.uint8)
LABELS = np.arange(ROWS) % 10


def as_csv(values: NDArray[np.float64]) -> bytes:
    lines = ["a,b,c,y", *(",".join(map(str, row)) for row in values.tolist())]
    return ("\n".join(lines) + "\n").encode()


def as_parquet(columns: dict[str, pa.Array]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=7)
    return buffer.getvalue()


def as_npz(**columns: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **columns)
    return buffer.getvalue()


def read(
    folder: Path,
    content: bytes,
    table_format: Dataset.Format.ValueType,
    spec: TrainingSpec,
    dataset: Dataset | None = None,
) -> Table:
    """As the trainer reads it; `dataset` replaces the true description, as if the file had changed behind it."""
    path = folder / "dataset"
    path.write_bytes(content)
    described = dataset or describe(path, table_format, spec.dataset)
    described.format = table_format
    return read_table(path, described, check_spec(spec, described))


@pytest.mark.parametrize(
    ("content", "table_format"),
    [
        (as_csv(NUMBERS), Dataset.FORMAT_CSV),
        (as_parquet({name: pa.array(NUMBERS[:, i]) for i, name in enumerate("abcy")}), Dataset.FORMAT_PARQUET),
        (as_npz(**{name: NUMBERS[:, i] for i, name in enumerate("abcy")}), Dataset.FORMAT_NPZ),
    ],
    ids=["csv", "parquet", "npz"],
)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, content: bytes, table_format: Dataset.Format.ValueType
) -> None:
    found = read(tmp_path, content, table_format, regression(feature_columns=["c", "a"]))
    assert found.features.dtype == found.targets.dtype == np.float32
    np.testing.assert_array_equal(found.features, NUMBERS[:, [2, 0]].astype(np.float32))
    np.testing.assert_array_equal(found.targets, NUMBERS[:, [3]].astype(np.float32))
    assert len(found) == ROWS


def nested(images: NDArray[np.uint8]) -> pa.Array:
    rows = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 8)
    return pa.FixedSizeListArray.from_arrays(rows, 8)


@pytest.mark.parametrize(
    ("content", "table_format"),
    [
        (as_npz(image=IMAGES, label=LABELS), Dataset.FORMAT_NPZ),
        (as_parquet({"image": nested(IMAGES), "label": pa.array(LABELS).dictionary_encode()}), Dataset.FORMAT_PARQUET),
    ],
    ids=["npz", "parquet"],
)
def test_images_become_channels_height_width(
    tmp_path: Path, content: bytes, table_format: Dataset.Format.ValueType
) -> None:
    found = read(tmp_path, content, table_format, classification())
    np.testing.assert_array_equal(found.features, IMAGES[:, np.newaxis].astype(np.float32))
    assert found.targets.dtype == np.int64
    np.testing.assert_array_equal(found.targets, LABELS)


def test_truth_values_are_0_and_1(tmp_path: Path) -> None:
    content = "a,y\n" + "".join(f"{['true', 'FALSE'][row % 2]},{row}\n" for row in range(ROWS))
    found = read(tmp_path, content.encode(), Dataset.FORMAT_CSV, regression())
    assert found.features[:2].tolist() == [[1.0], [0.0]]


def test_text_columns_that_nobody_asked_for_do_not_disturb(tmp_path: Path) -> None:
    content = "name,a,y\n" + "".join(f'"A, ""B""\nC",{row},{row}\n' for row in range(ROWS))
    found = read(tmp_path, content.encode(), Dataset.FORMAT_CSV, regression(feature_columns=["a"]))
    assert found.features[:, 0].tolist() == list(range(ROWS))


def test_several_targets_are_columns(tmp_path: Path) -> None:
    content = as_npz(a=NUMBERS[:, 0], y=NUMBERS[:, 1:3])
    spec = regression(network=network(linear(2)))
    assert read(tmp_path, content, Dataset.FORMAT_NPZ, spec).targets.shape == (ROWS, 2)


def numbers_with(value: float, row: int, column: int) -> NDArray[np.float64]:
    values = NUMBERS.copy()
    values[row, column] = value
    return values


@pytest.mark.parametrize(
    ("content", "table_format", "said"),
    [
        (as_csv(numbers_with(np.nan, 3, 3)), Dataset.FORMAT_CSV, "column 'y' has 1 missing values"),
        (as_csv(numbers_with(np.inf, 3, 1)), Dataset.FORMAT_CSV, "column 'b' has 1 values .* first in row 4: inf"),
        (as_csv(numbers_with(1e39, 3, 1)), Dataset.FORMAT_CSV, "no finite 32-bit floats, first in row 4: 1e\\+39"),
        (as_csv(NUMBERS).replace(b"\n", b"\nx,1,2,3\n", 1), Dataset.FORMAT_CSV, "cannot be read: .*'x'"),
        (b"a,b,c\n1,2,3\n", Dataset.FORMAT_CSV, "cannot be read: .*'y'"),
        (b"\xff\xfe", Dataset.FORMAT_CSV, "the CSV file cannot be read"),
        (b"no parquet", Dataset.FORMAT_PARQUET, "the Parquet file cannot be read"),
        (as_parquet({"a": pa.array([1.0])}), Dataset.FORMAT_PARQUET, "the Parquet file cannot be read"),
        (as_parquet({n: pa.array([1.0, None]) for n in "abcy"}), Dataset.FORMAT_PARQUET, "'a' has 1 missing values"),
        (as_parquet({n: pa.array(["x"]) for n in "abcy"}), Dataset.FORMAT_PARQUET, "'a' holds object; numbers"),
        (as_npz(**dict.fromkeys("abcy", np.zeros((5, 2)))), Dataset.FORMAT_NPZ, "does not hold rows of shape \\[\\]"),
        (as_npz(**dict.fromkeys("abcy", np.array(["x"]))), Dataset.FORMAT_NPZ, "'a' holds <U1; numbers are needed"),
        (as_npz(a=np.zeros(3)), Dataset.FORMAT_NPZ, "the NPZ file cannot be read"),
        (b"PK\x03\x04 broken", Dataset.FORMAT_NPZ, "the NPZ file cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_was_promised_is_refused(
    tmp_path: Path, content: bytes, table_format: Dataset.Format.ValueType, said: str
) -> None:
    with pytest.raises(DataUnusable, match=said):
        read(tmp_path, content, table_format, regression(), table())


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **dict.fromkeys("abcy", np.array([{}], dtype=object)))
    with pytest.raises(DataUnusable, match="the NPZ file cannot be read: Object arrays cannot be loaded"):
        read(tmp_path, buffer.getvalue(), Dataset.FORMAT_NPZ, regression(), table())


@pytest.mark.parametrize("label", [-1, 10, 1.5, np.nan])
def test_classes_that_have_no_output_are_refused_with_their_row(tmp_path: Path, label: float) -> None:
    labels = LABELS.astype(np.float64)
    labels[6] = label
    promised = pictures()
    promised.columns[1].data_type = tensor_pb2.DATA_TYPE_FP64
    spec = classification(network=network(flatten(), linear(10)))
    with pytest.raises(DataUnusable, match="column 'label' must hold classes from 0 to 9; row 7 has"):
        read(tmp_path, as_npz(image=IMAGES, label=labels), Dataset.FORMAT_NPZ, spec, promised)
