"""A cluster's identity on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from modelyard.core.tokens import Caller, TokenSigner, TokenVerifier
from modelyard.local import keys
from modelyard.local.keys import Identity, ensure_identity

HOLDERS = {"admin": "admin", "inference": "service", "worker": "worker"}


def caller_of(identity: Identity, holder: str) -> Caller:
    return TokenVerifier.from_file(identity.keys_file).verify(identity.token_file(holder).read_text())


@pytest.mark.parametrize(("holder", "role"), HOLDERS.items())
def test_every_program_gets_a_token_with_its_role(tmp_path: Path, holder: str, role: str) -> None:
    caller = caller_of(ensure_identity(tmp_path), holder)
    assert (caller.subject, caller.tenant, caller.roles) == (holder, "default", frozenset({role}))


def test_secrets_are_for_their_owner_alone_and_the_key_set_holds_no_secret(tmp_path: Path) -> None:
    identity = ensure_identity(tmp_path / "identity")
    for path in (identity.signing_key_file, *map(identity.token_file, HOLDERS)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert '"d"' not in identity.keys_file.read_text()


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    ensure_identity(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ensure_identity(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_token_near_its_end_is_made_anew_and_the_others_are_kept(tmp_path: Path) -> None:
    identity = ensure_identity(tmp_path)
    signer = TokenSigner.from_file(identity.signing_key_file)
    short = signer.issue("worker", "default", frozenset({"worker"}), keys.RENEW_BEFORE_S - 60).secret
    identity.token_file("worker").write_text(short)
    admin = identity.token_file("admin").read_text()
    ensure_identity(tmp_path)
    assert identity.token_file("worker").read_text() != short
    assert caller_of(identity, "worker").roles == {"worker"}
    assert identity.token_file("admin").read_text() == admin


@pytest.mark.parametrize("content", [b"", b"no token", b"\xff\xfe"])
def test_a_damaged_token_is_replaced(tmp_path: Path, content: bytes) -> None:
    identity = ensure_identity(tmp_path)
    identity.token_file("inference").write_bytes(content)
    ensure_identity(tmp_path)
    assert caller_of(identity, "inference").subject == "inference"


def test_another_signing_key_makes_all_tokens_anew(tmp_path: Path) -> None:
    identity = ensure_identity(tmp_path)
    old = identity.token_file("admin").read_text()
    identity.signing_key_file.unlink()
    ensure_identity(tmp_path)
    assert identity.token_file("admin").read_text() != old
    assert caller_of(identity, "admin").roles == {"admin"}


def test_a_damaged_signing_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    identity = ensure_identity(tmp_path)
    identity.signing_key_file.write_text("damaged")
    with pytest.raises(ValueError, match="PEM"):
        ensure_identity(tmp_path)
    assert identity.signing_key_file.read_text() == "damaged"
