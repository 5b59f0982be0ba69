"""Splits by hash: a row's side depends on nothing but the row, the shares and the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from modelyard.v1.training_spec_pb2 import DataSplit
from modelyard_workers.trainer.failures import DataUnusable
from modelyard_workers.trainer.splits import split_rows, unit_hashes
from modelyard_workers.trainer.tables import Table

SPLIT = DataSplit(validation_fraction=0.15, test_fraction=0.15)


def table(features: NDArray[np.float32], targets: NDArray[np.float32] | None = None) -> Table:
    found = np.zeros((len(features), 1), np.float32) if targets is None else targets
    return Table(features, found)


def random_table(rows: int, seed: int = 0) -> Table:
    generator = np.random.default_rng(seed)
    return table(
        generator.normal(size=(rows, 5)).astype(np.float32), generator.normal(size=(rows, 1)).astype(np.float32)
    )


rows_of_floats = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 30), st.integers(1, 5)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def test_the_hash_does_not_drift() -> None:
    """A change would move rows from training to test: models would be judged by what they have seen."""
    found = unit_hashes(table(np.array([[1, 2, 3], [0, -1.5, 1e30]], np.float32), np.array([[4], [0]], np.float32)), 7)
    assert found.tolist() == [0.39979442718775227, 0.6739213847353168]  # computed apart, with Python's integers


@given(rows_of_floats, st.integers(0, 2**64 - 1))
def test_the_hash_is_a_share_of_one(features: NDArray[np.float32], seed: int) -> None:
    found = unit_hashes(table(features), seed)
    assert ((found >= 0) & (found < 1)).all()


@given(rows_of_floats, st.randoms())
def test_order_does_not_matter(features: NDArray[np.float32], random: np.random.Generator) -> None:
    order = list(range(len(features)))
    random.shuffle(order)
    assert (unit_hashes(table(features), 1)[order] == unit_hashes(table(features[order]), 1)).all()


@given(rows_of_floats, st.integers(1, 30))
def test_rows_stay_when_the_dataset_grows(features: NDArray[np.float32], kept: int) -> None:
    assert (unit_hashes(table(features), 1)[:kept] == unit_hashes(table(features[:kept]), 1)).all()


def test_equal_rows_stand_on_one_side() -> None:
    once = random_table(100)
    thrice = Table(np.tile(once.features, (3, 1)), np.tile(once.targets, (3, 1)))
    parts = split_rows(thrice, SPLIT)
    sides = [set(map(tuple, thrice.features[rows].tolist())) for rows in (parts.training, parts.validation, parts.test)]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 100


def test_minus_zero_is_zero() -> None:
    zeros = np.array([[0.0, 0.0], [-0.0, 0.0]], np.float32)
    assert len(set(unit_hashes(table(zeros, np.array([[-0.0], [0.0]], np.float32)), 1).tolist())) == 1


@pytest.mark.parametrize("changed", ["feature", "target", "seed"])
def test_everything_in_a_row_counts(changed: str) -> None:
    before = random_table(500)
    features, targets = before.features.copy(), before.targets.copy()
    features[:, 4] += changed == "feature"
    targets += changed == "target"
    after = unit_hashes(Table(features, targets), 1 if changed == "seed" else 0)
    assert (after != unit_hashes(before, 0)).all()


def test_each_row_is_in_one_part_and_the_shares_are_kept() -> None:
    parts = split_rows(random_table(20_000), DataSplit(validation_fraction=0.1, test_fraction=0.3))
    assert sorted(np.concatenate([parts.training, parts.validation, parts.test]).tolist()) == list(range(20_000))
    # Five standard deviations of a binomial share.
    assert abs(len(parts.validation) / 20_000 - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 20_000)
    assert abs(len(parts.test) / 20_000 - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 20_000)


def test_hashes_are_uniform_even_for_rows_that_differ_little() -> None:
    counting = np.arange(64_000, dtype=np.float32)[:, np.newaxis]
    counts = np.histogram(unit_hashes(table(counting), 0), bins=64, range=(0, 1))[0]
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 120  # 63 degrees of freedom: above it in one of 60,000 cases of a fair hash


def test_too_few_rows_on_a_side_are_refused() -> None:
    with pytest.raises(DataUnusable, match=r"3 rows leave . for .*, 2 are needed"):
        split_rows(random_table(3), SPLIT)
