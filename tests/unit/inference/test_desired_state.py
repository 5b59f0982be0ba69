"""What should be served, as it was last heard, and its copy on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.inference.serving.desired import DesiredState, ServingConfig
from modelyard.v1 import model_pb2
from modelyard.v1 import model_service_pb2 as pb

DIGEST = "ab" * 32


def served(model: str, *numbers: int, digest: str = DIGEST) -> pb.ServedModel:
    versions = [
        pb.ServedVersion(model_version=model_pb2.ModelVersion(version=number, digest=digest, size_bytes=7))
        for number in numbers
    ]
    return pb.ServedModel(name=f"models/{model}", versions=versions, aliases={"live": max(numbers, default=0)})


def snapshot(revision: int, *models: pb.ServedModel) -> pb.WatchModelsResponse:
    return pb.WatchModelsResponse(revision=revision, snapshot=True, models=models)


@pytest.fixture
def state(tmp_path: Path) -> DesiredState:
    return DesiredState(tmp_path / "desired.binpb")


def test_a_snapshot_replaces_everything_and_tells_what_changed(state: DesiredState) -> None:
    assert state.apply(snapshot(3, served("a", 1), served("b", 1))) == {"a", "b"}
    assert state.apply(snapshot(5, served("b", 1), served("c", 2))) == {"a", "c"}
    assert (set(state.models), state.revision) == ({"b", "c"}, 5)


def test_a_change_leaves_other_models_alone_and_an_empty_one_removes(state: DesiredState) -> None:
    state.apply(snapshot(1, served("a", 1), served("b", 1)))
    assert state.apply(pb.WatchModelsResponse(revision=2, models=[served("b", 1, 2)])) == {"b"}
    assert sorted(state.models["b"].versions) == [1, 2]
    assert state.apply(pb.WatchModelsResponse(revision=3, models=[served("b")])) == {"b"}
    assert set(state.models) == {"a"}


def test_the_copy_is_what_was_saved(state: DesiredState, tmp_path: Path) -> None:
    state.apply(snapshot(4, served("a", 1), served("b", 1, 2)))
    state.save()
    again = DesiredState(tmp_path / "desired.binpb")
    assert again.restore()
    assert again.models == state.models
    assert [path.name for path in tmp_path.iterdir()] == ["desired.binpb"]


def test_without_a_usable_copy_nothing_is_known(state: DesiredState, tmp_path: Path) -> None:
    assert not state.restore()
    (tmp_path / "desired.binpb").write_bytes(b"\xff\xff\xff")
    assert not state.restore()
    assert state.models == {}


@pytest.mark.parametrize("bad", [served("a", 1, digest="../../etc/passwd"), served("../a", 1), served("", 1)])
def test_what_is_no_name_or_digest_never_gets_near_the_disk(state: DesiredState, bad: pb.ServedModel) -> None:
    state.apply(snapshot(1, bad, served("good", 1)))
    assert set(state.models) == {"good"}


@given(st.binary(max_size=200))
def test_any_copy_is_restored_or_passed_over(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("copy") / "desired.binpb"
    file.write_bytes(content)
    DesiredState(file).restore()


def test_a_datatype_of_a_newer_registry_is_kept_by_its_number(state: DesiredState) -> None:
    model = served("a", 1)
    model.versions[0].model_version.inputs.add(name="x", data_type=99)
    state.apply(snapshot(1, model))
    assert state.models["a"].versions[1].inputs[0].datatype == "99"


def test_other_serving_settings_make_another_form_of_every_version(state: DesiredState, tmp_path: Path) -> None:
    state.apply(snapshot(1, served("a", 1, 2), served("b", 1)))
    before = state.models["a"].versions
    message = served("a", 1, 2)
    message.serving.runners, message.serving.batching = 3, model_pb2.ServingConfig.BATCHING_OFF
    assert state.apply(pb.WatchModelsResponse(revision=2, models=[message])) == {"a"}
    config = ServingConfig(runners=3, batching=False)
    assert state.models["a"].serving == config
    for number, version in state.models["a"].versions.items():
        assert (version.serving, version.digest) == (config, before[number].digest)
        assert version.form != before[number].form
    state.save()
    again = DesiredState(tmp_path / "desired.binpb")
    assert again.restore()
    assert again.models == state.models


def test_settings_of_a_newer_registry_are_the_pods_own_choice(state: DesiredState) -> None:
    message = served("a", 1)
    message.serving.runners, message.serving.batching = -5, 77  # type: ignore[assignment]
    state.apply(snapshot(1, message))
    assert state.models["a"].serving == ServingConfig()
