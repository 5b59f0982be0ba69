"""Whether the door takes its direct lane, and what it says of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.door.direct import LaneUnavailable, takes_direct_lane
from modelyard.door.settings import DoorSettings
from modelyard.http2 import library


def test_it_is_taken_where_nothing_is_asked_for_that_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert takes_direct_lane(DoorSettings())
    assert "predictions take the door's direct lane" in capsys.readouterr().err


def test_who_asks_for_envoy_gets_it_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert not takes_direct_lane(DoorSettings(lane="envoy"))
    assert capsys.readouterr().err == ""


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Path]:
    """Settings that name a certificate."""
    certificate, key = tmp_path / "door.pem", tmp_path / "door.key"
    certificate.touch()
    key.touch()
    return {"tls_certificate_file": certificate, "tls_key_file": key}


def test_tls_means_envoy(tls: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert not takes_direct_lane(DoorSettings.model_validate(tls))
    assert "it has no TLS" in capsys.readouterr().err
    with pytest.raises(LaneUnavailable, match="MODELYARD_DOOR_LANE=direct: it has no TLS"):
        takes_direct_lane(DoorSettings.model_validate({**tls, "lane": "direct"}))


def test_without_the_library_envoy_does_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
    assert not takes_direct_lane(DoorSettings())
    assert "without a C compiler" in capsys.readouterr().err
    with pytest.raises(LaneUnavailable, match="without a C compiler"):
        takes_direct_lane(DoorSettings(lane="direct"))
