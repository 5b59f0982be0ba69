"""Tokens: what is signed is what is read, and nothing else passes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import TokenExpired, TokenInvalid
from modelyard.core.permissions import Permission
from modelyard.core.tokens import TokenSigner, TokenVerifier, generate_private_key, key_set_json
from support.identity import Identity

KEY = generate_private_key()
SIGNER = TokenSigner(KEY)
SECRET = SIGNER.issue("ann", "blue", frozenset({"viewer"}), 3600).secret
VERIFIER = TokenVerifier({SIGNER.key_id: KEY.public_key()})


def test_a_token_carries_subject_tenant_and_roles(identity: Identity) -> None:
    verifier = TokenVerifier.from_file(identity.keys_file)
    caller = verifier.verify(identity.token("developer", subject="ann", tenant="blue"))
    assert (caller.subject, caller.tenant, caller.roles) == ("ann", "blue", {"developer"})
    assert caller.may(Permission.JOBS_CREATE)
    assert not caller.may(Permission.JOBS_WORK)


def test_a_remembered_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    issued = SIGNER.issue("ann", "blue", frozenset({"viewer"}), 60)
    assert VERIFIER.verify(issued.secret).subject == "ann"
    monkeypatch.setattr("modelyard.core.tokens.time.time", lambda: issued.expire_time + 6)
    with pytest.raises(TokenExpired):
        VERIFIER.verify(issued.secret)


@given(st.text())
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(TokenInvalid):
        VERIFIER.verify(text)


@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    secret = SECRET
    # The last character of each part may carry unused bits, which base64 ignores.
    ends = {index - 1 for index, character in enumerate(secret + ".") if character == "."}
    places = [index for index, character in enumerate(secret) if character != "." and index not in ends]
    place = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from([letter for letter in "ABCDwxyz0189-_" if letter != secret[place]]))
    with pytest.raises(TokenInvalid):
        VERIFIER.verify(secret[:place] + other + secret[place + 1 :])


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_another_algorithm_is_refused(algorithm: str) -> None:
    """The classic attacks: no signature, or the public key used as a shared secret."""
    claims = {"sub": "eve", "tenant": "blue", "roles": ["admin"], "iss": "modelyard", "aud": "modelyard",
              "exp": 4e9, "iat": 0, "jti": "1"}  # fmt: skip
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": SIGNER.key_id}).encode()).decode()
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": SIGNER.key_id})
    forged = ".".join([header.rstrip("="), unsigned.split(".")[1], "c2ln"])
    for secret in (unsigned, forged):
        with pytest.raises(TokenInvalid):
            VERIFIER.verify(secret)


def test_both_keys_of_a_set_are_accepted_while_one_replaces_the_other(tmp_path: Path) -> None:
    old, new = generate_private_key(), generate_private_key()
    path = tmp_path / "keys.json"
    path.write_text(key_set_json(old.public_key(), new.public_key()))
    verifier = TokenVerifier.from_file(path)
    for key in (old, new):
        assert verifier.verify(TokenSigner(key).issue("a", "t", frozenset(), 60).secret).subject == "a"


def test_files_without_a_usable_key_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "keys.json"
    empty.write_text('{"keys": []}')
    with pytest.raises(ValueError, match="no Ed25519 public key"):
        TokenVerifier.from_file(empty)
