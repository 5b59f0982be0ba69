"""Runs the migrations on the connection that `modelyard.core.database.migrate` gives, inside its lock."""

from __future__ import annotations

from alembic import context

from modelyard.gateway.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
