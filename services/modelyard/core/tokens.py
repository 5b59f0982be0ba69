"""Signed access tokens: JSON Web Tokens with EdDSA over Ed25519 (RFC 7519, RFC 8037).

The gateway holds the private key; every service verifies with the public keys of a JSON Web Key Set, so a service needs
nobody's help to say who is calling. A key set may hold several keys: add the new one everywhere before signing with it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm

from .errors import TokenExpired, TokenInvalid
from .permissions import Permission, permissions_of

ISSUER = "modelyard"
AUDIENCE = "modelyard"
_ALGORITHM = "EdDSA"
_CLOCK_SKEW_S = 5
_CACHED_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as the verified token says."""

    subject: str
    tenant: str
    roles: frozenset[str]
    permissions: frozenset[Permission]
    token_id: str
    expire_time: float
    """Unix time in seconds."""

    def may(self, permission: Permission) -> bool:
        """Whether the caller has this right."""
        return permission in self.permissions


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token; `secret` is the bearer token itself."""

    token_id: str
    secret: str
    create_time: float
    expire_time: float


class TokenSigner:
    """Issues tokens with one private key."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key()
        self.key_id = key_id(self.public_key)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads an unencrypted PKCS #8 PEM file; raises TypeError or ValueError if it holds no Ed25519 key."""
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{path} holds no Ed25519 private key")
        return cls(key)

    def issue(self, subject: str, tenant: str, roles: frozenset[str], lifetime_s: float) -> IssuedToken:
        """A token for `subject` that ends after `lifetime_s` seconds."""
        now = time.time()
        token_id = uuid.uuid4().hex
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "tenant": tenant, "roles": sorted(roles),
            "jti": token_id, "iat": int(now), "exp": now + lifetime_s,
        }  # fmt: skip
        secret = jwt.encode(claims, self._private_key, algorithm=_ALGORITHM, headers={"kid": self.key_id})
        return IssuedToken(token_id, secret, now, now + lifetime_s)


class TokenVerifier:
    """Verifies tokens with a set of public keys. Remembers verified ones, since Ed25519 costs ~0.1 ms a call."""

    def __init__(self, public_keys: dict[str, Ed25519PublicKey]) -> None:
        self._public_keys = public_keys
        self._verified: OrderedDict[str, Caller] = OrderedDict()

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads a JSON Web Key Set; raises ValueError if it holds no usable key."""
        keys = {key["kid"]: OKPAlgorithm.from_jwk(key) for key in json.loads(path.read_text())["keys"]}
        public = {kid: key for kid, key in keys.items() if isinstance(key, Ed25519PublicKey)}
        if not public:
            raise ValueError(f"{path} holds no Ed25519 public key")
        return cls(public)

    def verify(self, secret: str) -> Caller:
        """Who this token stands for; raises TokenInvalid or TokenExpired."""
        caller = self._verified.get(secret)
        if caller is None:
            caller = self._decode(secret)
            self._verified[secret] = caller
            if len(self._verified) > _CACHED_TOKENS:
                self._verified.popitem(last=False)
        elif caller.expire_time + _CLOCK_SKEW_S <= time.time():
            del self._verified[secret]
            raise TokenExpired("the token has expired; create a new one")
        return caller

    def _decode(self, secret: str) -> Caller:
        try:
            public_key = self._public_keys[jwt.get_unverified_header(secret)["kid"]]
            claims = jwt.decode(
                secret, public_key, algorithms=[_ALGORITHM], audience=AUDIENCE, issuer=ISSUER, leeway=_CLOCK_SKEW_S,
                options={"require": ["exp", "iat", "sub", "jti"]},
            )  # fmt: skip
            roles = frozenset(map(str, claims["roles"]))
            return Caller(
                subject=str(claims["sub"]), tenant=str(claims["tenant"]), roles=roles,
                permissions=permissions_of(roles), token_id=str(claims["jti"]), expire_time=float(claims["exp"]),
            )  # fmt: skip
        except jwt.ExpiredSignatureError as error:
            raise TokenExpired("the token has expired; create a new one") from error
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise TokenInvalid("the token is not one of this cluster's") from error


def generate_private_key() -> Ed25519PrivateKey:
    """A new signing key."""
    return Ed25519PrivateKey.generate()


def private_key_pem(key: Ed25519PrivateKey) -> bytes:
    """The key as PKCS #8 PEM, unencrypted: keep the file private."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_set_json(*keys: Ed25519PublicKey) -> str:
    """A JSON Web Key Set of these public keys."""
    return json.dumps(
        {"keys": [OKPAlgorithm.to_jwk(key, as_dict=True) | {"kid": key_id(key), "alg": _ALGORITHM} for key in keys]}
    )


def key_id(key: Ed25519PublicKey) -> str:
    """A short name of a public key: the first 16 hexadecimal digits of its raw bytes."""
    return key.public_bytes_raw().hex()[:16]
