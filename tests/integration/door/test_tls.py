"""TLS on the door's port."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.door import CHANNEL_OPTIONS, Yard, call, open_yard


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key beside it as `.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "door")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "door.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture(scope="module")
def tls_yard(certificate: Path) -> Iterator[Yard]:
    with open_yard(TLS_CERTIFICATE_FILE=str(certificate), TLS_KEY_FILE=str(certificate.with_suffix(".key"))) as yard:
        yield yard


def test_calls_are_answered_over_tls(tls_yard: Yard, certificate: Path) -> None:
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(tls_yard.door.address, credentials, options=CHANNEL_OPTIONS) as channel:
        assert call(channel, "/modelyard.v1.ModelService/GetModel") == b"registry hello"


def test_http2_is_agreed_on_in_the_handshake_and_nothing_older_than_tls_1_2(tls_yard: Yard, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", tls_yard.door.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"
        assert secured.version() in {"TLSv1.2", "TLSv1.3"}


def test_cleartext_is_refused_where_tls_is_set(tls_yard: Yard) -> None:
    with tls_yard.door.channel() as channel, pytest.raises(grpc.RpcError):
        call(channel, "/modelyard.v1.ModelService/GetModel")
