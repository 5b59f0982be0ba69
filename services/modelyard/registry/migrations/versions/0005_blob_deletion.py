"""Blobs can be deleted: each lies under a key of its own, and all that refer to one are found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("key", sa.String(200), server_default="", nullable=False))
    op.execute("UPDATE blobs SET key = 'blobs/sha256/' || substr(digest, 1, 2) || '/' || digest")
    op.create_table(
        "loose_objects",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_loose_objects")),
    )
    op.create_index(op.f("ix_loose_objects_delete_time"), "loose_objects", ["delete_time"])
    # In words, since Alembic cannot add a column with a reference to a table of SQLite.
    op.execute(
        "ALTER TABLE model_versions ADD COLUMN external_digest VARCHAR(64)"
        " CONSTRAINT fk_model_versions_external_digest_blobs REFERENCES blobs (digest)"
    )
    if op.get_bind().dialect.name == "sqlite":
        external = "json_extract(external_data, '$.digest')"
    else:
        external = "external_data ->> 'digest'"
    # Up to now nothing kept such a reference from leading nowhere.
    op.execute(
        f"UPDATE model_versions SET external_digest = {external}"  # noqa: S608 - one of the two texts above
        f" WHERE {external} IN (SELECT digest FROM blobs)"
    )
    for table, column in (("model_versions", "digest"), ("model_versions", "external_digest"), ("datasets", "digest")):
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
