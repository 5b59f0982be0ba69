"""Settings and addresses: what is accepted, and what is said of the rest."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelyard.door.settings import DoorSettings
from modelyard.envoy.addresses import TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8500", TcpAddress("127.0.0.1", 8500)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("gateway.yard.svc:8501", TcpAddress("gateway.yard.svc", 8501)),
        ("unix:/run/gateway.sock", UnixAddress("/run/gateway.sock")),
    ],
)
def test_an_address_is_read(text: str, address: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":80", "host:0", "host:65536", "host:x", "unix:relative", "unix:"]
)
def test_what_is_no_address_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_address(text)


def test_a_socket_path_that_the_kernel_would_cut_is_refused() -> None:
    assert parse_address("unix:/" + "x" * 106) == UnixAddress("/" + "x" * 106)
    with pytest.raises(ValueError, match="at most 107 bytes"):
        parse_address("unix:/" + "x" * 107)


@given(st.integers(1, 65535), st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,5})?", fullmatch=True))
def test_every_host_and_port_is_read_back(port: int, host: str) -> None:
    assert parse_address(f"{host}:{port}") == TcpAddress(host, port)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        address = parse_address(text)
        assert isinstance(address, UnixAddress) == text.startswith("unix:")


def test_lists_come_comma_separated_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_DOOR_INFERENCE_ADDRESSES", "unix:/a.sock, unix:/b.sock,")
    monkeypatch.setenv("MODELYARD_DOOR_CORS_ORIGINS", "")
    settings = DoorSettings()
    assert settings.inference_addresses == ("unix:/a.sock", "unix:/b.sock")
    assert settings.cors_origins == ()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("listen", "unix:/door.sock", "expected host:port"),
        ("gateway_addresses", "", "at least one"),
        ("inference_addresses", "unix:/a.sock,pods:80", "not both"),
        ("tls_key_file", "/etc/hostname", "belong together"),
        ("log_level", "loud", "log_level"),
        ("health_interval_s", "0", "greater than 0"),
    ],
)
def test_a_wrong_setting_is_named(field: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MODELYARD_DOOR_{field.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        DoorSettings()
    assert said in str(caught.value)


def test_missing_certificates_are_noticed_before_envoy_starts(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no such file"):
        DoorSettings(tls_certificate_file=tmp_path / "none.pem", tls_key_file=tmp_path / "none.key")
