"""Metrics and baselines are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn import linear_model, metrics
from sklearn.datasets import load_diabetes, load_digits

from modelyard_workers.trainer.baselines import least_squares, logistic_regression
from modelyard_workers.trainer.metrics import classification_metrics, regression_metrics

moderate = st.floats(-1e6, 1e6, width=32)


@given(
    st.integers(2, 20).flatmap(lambda rows: st.tuples(*[arrays.arrays(np.float32, (rows, 2), elements=moderate)] * 2))
)
def test_regression_metrics_are_those_of_scikit_learn(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    truth, prediction = (array.astype(np.float64) for array in pair)
    found = regression_metrics(truth, prediction)
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, prediction), rel=1e-9, abs=1e-9)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, prediction), rel=1e-9)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, prediction), rel=1e-9)


@given(
    st.integers(2, 20).flatmap(
        lambda rows: st.tuples(
            arrays.arrays(np.int64, rows, elements=st.integers(0, 3)),
            arrays.arrays(np.float32, (rows, 4), elements=st.floats(-15, 15, width=32)),
        )
    )
)
def test_classification_metrics_are_those_of_scikit_learn(pair: tuple[NDArray[np.int64], NDArray[np.float32]]) -> None:
    truth, logits = pair
    found = classification_metrics(truth, logits)
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0))
    assert found["log_loss"] == pytest.approx(
        metrics.log_loss(truth, probabilities, labels=range(4)), rel=1e-6, abs=1e-9
    )


def test_log_loss_survives_logits_that_overflow_an_exponential() -> None:
    found = classification_metrics(np.array([0, 1]), np.array([[1e4, 0.0], [1e4, 0.0]], np.float32))
    assert found["log_loss"] == pytest.approx(5e3)


def test_a_constant_target_has_no_variance_to_explain() -> None:
    constant = np.ones((3, 1))
    assert regression_metrics(constant, constant)["r2"] == 1.0
    assert regression_metrics(constant, constant + 0.5)["r2"] == 0.0


def test_least_squares_is_that_of_scikit_learn() -> None:
    data = load_diabetes(scaled=False)
    features, targets = data.data.astype(np.float32), data.target[:, np.newaxis].astype(np.float32)
    expected = linear_model.LinearRegression().fit(features[:300].astype(np.float64), targets[:300])
    found = least_squares(features[:300], targets[:300], features[300:])
    np.testing.assert_allclose(found, expected.predict(features[300:].astype(np.float64)), rtol=1e-6)


def test_least_squares_bears_collinear_and_constant_features() -> None:
    x = np.linspace(0, 1, 50, dtype=np.float32)[:, np.newaxis]
    features = np.concatenate([x, 2 * x, np.full_like(x, 7)], axis=1)
    np.testing.assert_allclose(least_squares(features, 3 * x + 1, features), 3 * x + 1, atol=1e-6)


def test_logistic_regression_is_as_good_as_that_of_scikit_learn() -> None:
    data = load_digits()
    images, classes = data.images.astype(np.float32), data.target.astype(np.int64)
    found = logistic_regression(images[:1200], classes[:1200], images[1200:], 10)
    expected = linear_model.LogisticRegression(max_iter=1000).fit(images[:1200].reshape(1200, -1) / 16, classes[:1200])
    truth = classes[1200:]
    reference = metrics.accuracy_score(truth, expected.predict(images[1200:].reshape(-1, 64) / 16))
    assert classification_metrics(truth, found)["accuracy"] >= reference - 0.02


def test_logistic_regression_stays_finite_where_classes_separate() -> None:
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, np.newaxis]
    logits = logistic_regression(x, (x[:, 0] > 0).astype(np.int64), x, 2)
    assert np.isfinite(logits).all()
    assert classification_metrics((x[:, 0] > 0).astype(np.int64), logits)["accuracy"] == 1.0
