"""Scaling into and out of the network's unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.scaling import Restore, Standardize, input_scaling, statistics

VALUES = np.random.default_rng(0).normal(5, 3, size=(9_000, 2, 3)).astype(np.float32)


def test_statistics_are_those_of_float64() -> None:
    found = statistics(VALUES)
    np.testing.assert_allclose(found.mean, VALUES.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.scale, VALUES.astype(np.float64).std(axis=0), rtol=1e-13)


def test_common_statistics_are_two_numbers() -> None:
    found = statistics(VALUES, common=True)
    assert found.mean.shape == found.scale.shape == ()
    np.testing.assert_allclose(found.scale, VALUES.astype(np.float64).std(), rtol=1e-13)


@pytest.mark.parametrize("constant", [0.1, 1e30, 0.0])
def test_what_never_varies_is_only_centred(constant: float) -> None:
    found = statistics(np.full((1_000, 1), constant, np.float32))
    assert found.scale.tolist() == [1.0]


def test_a_large_offset_does_not_drown_the_spread() -> None:
    """The textbook formula, mean of squares minus square of the mean, answers 0 or worse here."""
    values = np.array([[16_777_214], [16_777_216]] * 500, np.float32)
    assert statistics(values).scale.tolist() == [1.0]


@pytest.mark.parametrize(
    ("scaling", "shape"),
    [(pb.SCALING_STANDARDIZE, (2, 3)), (pb.SCALING_STANDARDIZE_GLOBAL, ()), (pb.SCALING_NONE, None)],
)
def test_each_scaling_does_what_it_is_named_for(scaling: pb.Scaling.ValueType, shape: tuple[int, ...] | None) -> None:
    scaled = input_scaling(scaling, VALUES)(torch.from_numpy(VALUES)).numpy()
    if shape is None:
        assert scaled is not None
        np.testing.assert_array_equal(scaled, VALUES)
        return
    axes = (0,) if shape else (0, 1, 2)
    np.testing.assert_allclose(scaled.mean(axis=axes, dtype=np.float64), np.zeros(shape), atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=axes, dtype=np.float64), np.ones(shape), atol=1e-6)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(1, 3)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_the_way_back_undoes_the_way_there(values: NDArray[np.float32]) -> None:
    found = statistics(values)
    there = Standardize(found)(torch.from_numpy(values))
    back = Restore(found)(there).numpy()
    assert np.isfinite(there.numpy()).all()
    spread = np.abs(values).max(axis=0)
    assert (np.abs(back - values) <= 1e-5 * spread).all()
