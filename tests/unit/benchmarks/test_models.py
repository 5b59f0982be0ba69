"""The models that need no framework, their samples, and how peers are told about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from benchmarks import signature
from benchmarks.limits.raw import RawSetting, best_setting, candidates
from benchmarks.models import plain, sample_inputs
from benchmarks.peers import Tuning
from benchmarks.peers.triton import settings
from benchmarks.signature import Signature, Tensor


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    plain.network(path, (10, 20, 40, 1))
    return path


def test_the_same_seed_gives_the_same_file(network: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    plain.network(again, (10, 20, 40, 1))
    assert again.read_bytes() == network.read_bytes()


def test_a_network_answers_a_batch(network: Path) -> None:
    found = signature.read(network)
    assert found == Signature((Tensor("x", "FP32", (-1, 10)),), (Tensor("y", "FP32", (-1, 1)),))
    assert found.batches
    (answer,) = onnxruntime.InferenceSession(str(network)).run(None, sample_inputs(found, 3))
    assert answer.shape == (3, 1)
    assert len(np.unique(answer)) == 3


def test_samples_are_tokens_and_a_full_mask_for_a_language_model() -> None:
    bert = Signature((Tensor("input_ids", "INT64", (-1, 64)), Tensor("attention_mask", "INT64", (-1, 64))), ())
    samples = sample_inputs(bert)
    assert samples["input_ids"].shape == (1, 64)
    assert samples["input_ids"].max() > 1
    assert samples["attention_mask"].min() == samples["attention_mask"].max() == 1


def test_triton_is_told_the_shape_without_the_batch_if_it_may_gather(network: Path) -> None:
    found = signature.read(network)
    gathering = settings("m", found, Tuning(instances=2, max_batch_size=64))
    assert "max_batch_size: 64" in gathering
    assert "dynamic_batching { }" in gathering
    assert 'input { name: "x" data_type: TYPE_FP32 dims: [ 10 ] }' in gathering
    alone = settings("m", found, Tuning(max_batch_size=0))
    assert "max_batch_size: 0" in alone
    assert "dynamic_batching" not in alone
    assert 'input { name: "x" data_type: TYPE_FP32 dims: [ -1, 10 ] }' in alone


def test_the_raw_loop_takes_no_larger_batch_than_is_in_flight() -> None:
    tried = candidates(most_rows=8, cores=2)
    assert {setting.batch for setting in tried} == {1, 2, 4, 8}
    assert {(setting.request_threads, setting.graph_threads) for setting in tried} == {(1, 1), (2, 1), (1, 2)}


def test_the_bounded_raw_loop_has_no_more_rows_at_once_than_are_in_flight() -> None:
    tried = candidates(most_rows=8, cores=2, bounded=True)
    assert {setting.batch for setting in tried if setting.request_threads == 2} == {1, 2, 4}
    assert {setting.batch for setting in tried if setting.request_threads == 1} == {1, 2, 4, 8}


def test_the_fastest_setting_is_taken() -> None:
    one, other = RawSetting(1, 1, 1), RawSetting(8, 2, 1)
    best, rates = best_setting([one, other], lambda setting: setting.batch * 10.0)
    assert best == other
    assert rates == {"batch 1, 1 × 1 threads": 10.0, "batch 8, 2 × 1 threads": 80.0}
