"""The parameters of a request that mean something to a pod."""

from __future__ import annotations

import pytest

from modelyard.core.errors import InvalidFields, Violations
from modelyard.inference.protocol.parameters import read_priority, read_timeout
from modelyard.oip import open_inference_pb2 as pb

Parameter = pb.InferParameter


def priority_of(**parameters: Parameter) -> int:
    """The priority; raises InvalidFields if any parameter is wrong."""
    violations = Violations()
    priority = read_priority(parameters, violations)
    violations.raise_if_any()
    return priority


@pytest.mark.parametrize(
    ("parameter", "priority"),
    [
        (Parameter(uint64_param=7), 7),
        (Parameter(int64_param=7), 7),
        (Parameter(uint64_param=0), 0),
        (Parameter(uint64_param=2**64 - 1), 2**64 - 1),
    ],
)
def test_a_priority_is_a_whole_number(parameter: Parameter, priority: int) -> None:
    assert priority_of(priority=parameter) == priority


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter(int64_param=-1),
        Parameter(string_param="1"),
        Parameter(double_param=1),
        Parameter(bool_param=True),
        Parameter(),
    ],
)
def test_anything_else_is_no_priority(parameter: Parameter) -> None:
    with pytest.raises(InvalidFields) as raised:
        priority_of(priority=parameter)
    assert raised.value.violations[0].field == "parameters[priority]"


def test_the_parameters_of_sequences_are_checked_and_mean_nothing() -> None:
    right = {
        "sequence_id": Parameter(int64_param=3),
        "sequence_start": Parameter(bool_param=True),
        "sequence_end": Parameter(bool_param=False),
    }
    assert priority_of(**right) == 0
    assert priority_of(sequence_id=Parameter(string_param="three")) == 0
    for name in right:
        with pytest.raises(InvalidFields) as raised:
            priority_of(**{**right, name: Parameter(double_param=1)})
        assert [violation.field for violation in raised.value.violations] == [f"parameters[{name}]"]


def test_reserved_names_are_refused_but_for_the_one_that_clients_send() -> None:
    assert priority_of(triton_enable_empty_final_response=Parameter(bool_param=True)) == 0
    for name, parameter in (
        ("triton_enable_empty_final_response", Parameter(int64_param=1)),
        ("triton_final_response", Parameter(bool_param=True)),
        ("triton_", Parameter(bool_param=True)),
    ):
        with pytest.raises(InvalidFields) as raised:
            priority_of(**{name: parameter})
        assert raised.value.violations[0].field == f"parameters[{name}]"


def test_other_parameters_are_the_caller_s_own_affair() -> None:
    own = {
        "headers": Parameter(string_param="h"),
        "binary_data_output": Parameter(bool_param=True),
        "x": Parameter(double_param=0.5),
    }
    assert priority_of(**own, priority=Parameter(uint64_param=2)) == 2


def test_a_parameter_has_a_value() -> None:
    with pytest.raises(InvalidFields) as raised:
        priority_of(mine=Parameter())
    assert raised.value.violations[0].field == "parameters[mine]"


@pytest.mark.parametrize(
    ("parameter", "seconds"),
    [
        (Parameter(int64_param=1_500_000), 1.5),
        (Parameter(uint64_param=250), 0.00025),
        (Parameter(int64_param=0), None),
    ],
)
def test_a_timeout_is_in_microseconds(parameter: Parameter, seconds: float | None) -> None:
    assert read_timeout(pb.ModelInferRequest(parameters={"timeout": parameter})) == seconds
    assert read_timeout(pb.ModelInferRequest()) is None


@pytest.mark.parametrize("parameter", [Parameter(int64_param=-1), Parameter(string_param="1"), Parameter()])
def test_anything_else_is_no_timeout(parameter: Parameter) -> None:
    with pytest.raises(InvalidFields) as raised:
        priority_of(timeout=parameter, priority=Parameter(string_param="first"))
    assert {violation.field for violation in raised.value.violations} == {"parameters[timeout]", "parameters[priority]"}
    assert read_timeout(pb.ModelInferRequest(parameters={"timeout": parameter})) is None
