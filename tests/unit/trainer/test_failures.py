"""What the gateway hears of an exception."""

from __future__ import annotations

import pytest
import torch

from modelyard.core.errors import InvalidFields
from modelyard.v1.training_job_pb2 import Evaluation, TrainingJob
from modelyard.v1.training_spec_pb2 import MetricGate
from modelyard_workers.trainer.evaluation import check_gates
from modelyard_workers.trainer.failures import DataUnusable, Diverged, GateRejected, failure_of


def allocation_error() -> Exception:
    """What PyTorch itself raises when it is asked for more bytes than a process has addresses."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    return caught.value


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (DataUnusable("too few"), TrainingJob.FAILURE_REASON_DATA, "too few"),
        (Diverged("nan"), TrainingJob.FAILURE_REASON_DIVERGED, "nan"),
        (InvalidFields.one("spec.task", "wrong"), TrainingJob.FAILURE_REASON_DATA, "spec.task: wrong"),
        (MemoryError("no"), TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, "MemoryError: no"),
        (torch.OutOfMemoryError("gpu"), TrainingJob.FAILURE_REASON_OUT_OF_MEMORY, "OutOfMemoryError: gpu"),
        (ZeroDivisionError("oops"), TrainingJob.FAILURE_REASON_INTERNAL, "ZeroDivisionError: oops"),
    ],
)
def test_each_error_has_its_reason(error: Exception, reason: TrainingJob.FailureReason.ValueType, message: str) -> None:
    failure = failure_of(error)
    assert (failure.reason, failure.message) == (reason, message)


def test_pytorchs_own_allocation_error_is_known() -> None:
    assert failure_of(allocation_error()).reason == TrainingJob.FAILURE_REASON_OUT_OF_MEMORY


def test_a_long_message_is_cut_to_what_the_api_allows() -> None:
    assert len(failure_of(DataUnusable("x" * 10_000)).message) == 4096


def test_gates_name_everything_that_failed() -> None:
    evaluation = Evaluation(metrics={"r2": 0.3, "rmse": 12.0, "mae": float("nan")})
    check_gates(evaluation, [MetricGate(metric="r2", minimum=0.3, maximum=0.3)])
    gates = [MetricGate(metric="r2", minimum=0.5), MetricGate(metric="rmse", maximum=10)]
    with pytest.raises(GateRejected, match=r"r2 is 0\.3, at least 0\.5 is asked for; rmse is 12, at most 10"):
        check_gates(evaluation, gates)
    with pytest.raises(GateRejected, match="mae is nan"):
        check_gates(evaluation, [MetricGate(metric="mae", maximum=10)])
