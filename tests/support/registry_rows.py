"""Models and versions put into the registry's tables directly, for tests of what happens to them afterwards."""

from __future__ import annotations

from sqlalchemy import insert

from modelyard.core.database import Database, now_us
from modelyard.core.permissions import permissions_of
from modelyard.core.tokens import Caller
from modelyard.registry.settings import RegistrySettings
from modelyard.registry.tables import blobs, model_versions, models

DIGEST = "d" * 64


def caller(*roles: str, subject: str = "tester", tenant: str = "default") -> Caller:
    """Somebody with these roles (default: developer)."""
    names = frozenset(roles or ("developer",))
    return Caller(subject, tenant, names, permissions_of(names), "token", 0.0)


async def add_model(database: Database, model_id: str, versions: int, *, tenant: str = "default") -> None:
    """A model with so many versions, all of the same blob."""
    model = {
        "id": model_id, "tenant": tenant, "display_name": "", "description": "", "labels": {},
        "latest_version": versions, "last_sequence": 0, "changes": 1, "create_time": now_us(), "update_time": now_us(),
    }  # fmt: skip
    version = {
        "model_id": model_id, "digest": DIGEST, "size_bytes": 1, "inputs": [], "outputs": [], "opset_version": 20,
        "ir_version": 10, "training_job": "", "dataset": "", "dataset_digest": "", "spec_digest": "",
        "library_versions": {}, "labels": {}, "create_time": now_us(),
    }  # fmt: skip
    async with database.write() as connection:
        blob = {"digest": DIGEST, "size_bytes": 1, "create_time": now_us()}
        if (await connection.execute(blobs.select())).one_or_none() is None:
            await connection.execute(insert(blobs).values(blob))
        await connection.execute(insert(models).values(model))
        for number in range(1, versions + 1):
            await connection.execute(insert(model_versions).values(version | {"version": number}))


async def add_versions(settings: RegistrySettings, count: int) -> None:
    """So many versions of the model `m`, in the database of a registry that runs."""
    database = Database(settings.database_url)
    await add_model(database, "m", count)
    await database.close()
