"""A cluster's identity on disk: the signing key, the key set, and a token for each program and for the administrator.

    python -m modelyard.local.keys FOLDER [--owner USER]

makes it once; what is there and good for a while is kept. Each program needs one subfolder and `public`:

    public/keys.json          for every service
    gateway/signing-key.pem   for the gateway alone
    inference/token, worker/token
    admin/token               for the person who runs the cluster
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import ModelyardError
from modelyard.core.tokens import TokenSigner, TokenVerifier, generate_private_key, key_set_json, private_key_pem

DAY_S = 24 * 3600
LIFETIME_S = 365 * DAY_S
RENEW_BEFORE_S = 30 * DAY_S
"""A token that ends sooner than this is made anew at the next start."""

TENANT = "default"
_ROLES = {"admin": "admin", "inference": "service", "worker": "worker"}
"""The gateway needs no token: it signs its own, for minutes (docs/adr/0009-how-a-result-becomes-a-version.md)."""


@dataclass(frozen=True)
class Identity:
    """Where the parts of an identity are."""

    folder: Path

    @property
    def keys_file(self) -> Path:
        """The public keys, as a JSON Web Key Set."""
        return self.folder / "public/keys.json"

    @property
    def signing_key_file(self) -> Path:
        """The private key."""
        return self.folder / "gateway/signing-key.pem"

    def token_file(self, holder: str) -> Path:
        """The token of `admin`, `inference` or `worker`."""
        return self.folder / holder / "token"


def ensure_identity(folder: Path) -> Identity:
    """Makes what is missing or near its end; raises ValueError if the signing key is there but broken."""
    identity = Identity(folder)
    if not identity.signing_key_file.exists():
        write_private(identity.signing_key_file, private_key_pem(generate_private_key()))
    signer = TokenSigner.from_file(identity.signing_key_file)
    _write(identity.keys_file, key_set_json(signer.public_key).encode(), mode=0o644)
    verifier = TokenVerifier.from_file(identity.keys_file)
    for holder, role in _ROLES.items():
        if not _is_good(identity.token_file(holder), verifier):
            issued = signer.issue(holder, TENANT, frozenset({role}), LIFETIME_S)
            write_private(identity.token_file(holder), issued.secret.encode())
    return identity


def _is_good(path: Path, verifier: TokenVerifier) -> bool:
    """Whether the token in a file is one of these keys' and holds for a while."""
    try:
        return verifier.verify(path.read_text().strip()).expire_time > time.time() + RENEW_BEFORE_S
    except (OSError, UnicodeDecodeError, ModelyardError):
        return False


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    _write(path, content, mode=0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if mode & 0o044 else 0o700)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.local.keys", description="Makes a cluster's identity.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--owner", help="the user whom the files are given to; default: the caller")
    arguments = parser.parse_args()
    identity = ensure_identity(arguments.folder)
    if arguments.owner:
        for path in (identity.folder, *identity.folder.rglob("*")):
            shutil.chown(path, arguments.owner)


if __name__ == "__main__":
    main()
