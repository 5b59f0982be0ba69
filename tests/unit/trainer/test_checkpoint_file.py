"""The checkpoint's file: whole or not there, and never taken for what it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from modelyard_workers.trainer import checkpoint_file
from modelyard_workers.trainer.checkpoint_file import (
    Checkpoint,
    CheckpointUnusable,
    Origin,
    read_checkpoint,
    write_checkpoint,
)

ORIGIN = Origin(spec_digest="a" * 64, dataset_digest="b" * 64)
CHECKPOINT = Checkpoint(
    {
        "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "counter": torch.tensor(7),
        "random": torch.arange(5, dtype=torch.uint8),
        "nothing": torch.zeros(0),
    },
    {"step": 3, "loss": 0.1},
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("written") / "checkpoint.safetensors"
    assert write_checkpoint(path, ORIGIN, CHECKPOINT) == path.stat().st_size
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(written)
    read = read_checkpoint(path, ORIGIN)
    assert read.tensors.keys() == CHECKPOINT.tensors.keys()
    for name, tensor in CHECKPOINT.tensors.items():
        assert (read.tensors[name].dtype, read.tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read.tensors[name], tensor)
    assert (read.document["step"], read.document["loss"]) == (3, 0.1)


def test_the_file_is_plain_safetensors_with_a_json_document(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(written)
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["modelyard.checkpoint"])
    assert document["format"] == checkpoint_file.FORMAT
    assert document["spec_digest"] == "a" * 64


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (Origin("c" * 64, ORIGIN.dataset_digest), "it is of another spec"),
        (Origin(ORIGIN.spec_digest, "c" * 64), "it is of another dataset"),
    ],
)
def test_that_of_another_training_is_refused(tmp_path: Path, written: bytes, origin: Origin, said: str) -> None:
    path = tmp_path / "c"
    path.write_bytes(written)
    with pytest.raises(CheckpointUnusable, match=said):
        read_checkpoint(path, origin)


def test_jobs_that_train_the_same_have_files_of_their_own(tmp_path: Path) -> None:
    for job in ("one", "other"):
        write_checkpoint(tmp_path / job, Origin("spec", "data", job), CHECKPOINT)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()
    read_checkpoint(tmp_path / "other", Origin("spec", "data", "one"))  # though either could go on from both


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_file, "FORMAT", 99)
    write_checkpoint(tmp_path / "c", ORIGIN, CHECKPOINT)
    monkeypatch.undo()
    with pytest.raises(CheckpointUnusable, match="it has format 99"):
        read_checkpoint(tmp_path / "c", ORIGIN)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    save_file({"weights": torch.zeros(3)}, tmp_path / "weights")
    with pytest.raises(CheckpointUnusable, match="it is no checkpoint"):
        read_checkpoint(tmp_path / "weights", ORIGIN)
    (tmp_path / "text").write_text("not at all")
    for name in ("text", "absent"):
        with pytest.raises(CheckpointUnusable, match="it cannot be read"):
            read_checkpoint(tmp_path / name, ORIGIN)


@given(data=st.data())
def test_no_damage_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, written: bytes, data: st.DataObject
) -> None:
    """A byte changed, or an end cut off: refused, or (a space in the header) it means the same."""
    damaged = bytearray(written)
    at = data.draw(st.integers(0, len(written) - 1))
    if data.draw(st.booleans()):
        damaged[at] ^= data.draw(st.integers(1, 255))
    else:
        del damaged[at:]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    try:
        read = read_checkpoint(path, ORIGIN)
    except CheckpointUnusable:
        return
    assert (read.document["step"], read.document["loss"]) == (3, 0.1)
    for name, tensor in CHECKPOINT.tensors.items():
        assert torch.equal(read.tensors[name], tensor)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()  # a folder in the place of the file: the rename fails
    with pytest.raises(OSError, match="Is a directory"):
        write_checkpoint(tmp_path / "checkpoint", ORIGIN, CHECKPOINT)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
