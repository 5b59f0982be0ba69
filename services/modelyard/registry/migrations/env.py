"""Alembic's entry: migrates on the connection that `modelyard.core.database.migrate` holds the lock with."""

from __future__ import annotations

from alembic import context

from modelyard.registry.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
