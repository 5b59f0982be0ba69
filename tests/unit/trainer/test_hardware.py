"""How many threads a training uses."""

from __future__ import annotations

import pytest
import torch

from modelyard.training import check_spec
from modelyard.v1 import training_spec_pb2 as pb
from modelyard_workers.trainer.hardware import choose_threads, multiplications
from support.training_specs import classification, linear, network, pictures, regression, table


def test_parameters_of_a_convolution_count_at_every_position() -> None:
    assert multiplications(check_spec(regression(), table()).plan) == 3 * 4 + 4 + 4 + 1
    cnn = pb.Network(small_cnn=pb.SmallCnn(channels=[2, 3], outputs=10))
    plan = check_spec(classification(network=cnn), pictures()).plan
    convolutions = 9 * 2 * 64 + 2 * 9 * 3 * 16
    normalisations = 2 * 2 * 64 + 2 * 3 * 16
    assert multiplications(plan) == convolutions + normalisations + (3 * 2 * 2 + 1) * 10


@pytest.mark.parametrize(("width", "rows", "threads"), [(10, 32, 1), (1_000, 32, 1), (10_000, 1_000, 2)])
def test_only_large_steps_are_worth_a_second_thread(
    width: int, rows: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    choose_threads(check_spec(regression(network=network(linear(width), linear(1))), table()).plan, rows)
    assert torch.get_num_threads() == threads


def test_an_operators_choice_of_threads_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)  # what PyTorch does with it at its start
    choose_threads(check_spec(regression(), table()).plan, 32)
    assert torch.get_num_threads() == 2
