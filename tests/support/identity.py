"""A cluster's identity for tests: one signing key, its key set on disk, tokens for any role."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelyard.core.channels import Metadata, bearer
from modelyard.core.tokens import TokenSigner, generate_private_key, key_set_json, private_key_pem


@dataclass(frozen=True)
class Identity:
    """Keys in a folder, and what makes tokens with them."""

    signer: TokenSigner
    keys_file: Path
    signing_key_file: Path

    @classmethod
    def create(cls, folder: Path) -> Identity:
        """Writes a new key pair to `folder`."""
        key = generate_private_key()
        keys_file, signing_key_file = folder / "keys.json", folder / "signing-key.pem"
        keys_file.write_text(key_set_json(key.public_key()))
        signing_key_file.write_bytes(private_key_pem(key))
        return cls(TokenSigner(key), keys_file, signing_key_file)

    def token(self, *roles: str, subject: str = "tester", tenant: str = "default", lifetime_s: float = 3600) -> str:
        """A bearer token."""
        return self.signer.issue(subject, tenant, frozenset(roles or ("admin",)), lifetime_s).secret

    def metadata(self, *roles: str, tenant: str = "default") -> Metadata:
        """The metadata that carries such a token."""
        return bearer(self.token(*roles, tenant=tenant))
