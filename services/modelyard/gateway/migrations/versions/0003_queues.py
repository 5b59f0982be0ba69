"""Queues, shares of tenants, workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    _extend_jobs()
    op.add_column("doorbells", sa.Column("queue", sa.String(length=63), nullable=False, server_default="cpu"))
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=True),
        sa.Column("max_running_jobs", sa.Integer(), nullable=True),
        sa.Column("max_waiting_jobs", sa.Integer(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.create_table(
        "queue_turns",
        sa.Column("queue", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("tag", sa.Float(precision=53), nullable=False),
        sa.Column("queue_tag", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("queue", "tenant", name=op.f("pk_queue_turns")),
    )
    op.create_table(
        "spent_doorbells",
        sa.Column("queue", sa.String(length=63), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_spent_doorbells")),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("node", sa.String(length=200), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("hardware", sa.String(length=200), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("report_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_report_time"), "workers", ["report_time"], unique=False)


def _extend_jobs() -> None:
    """Jobs from before there were queues belong to `cpu`, the only one that there was."""
    for column in (
        sa.Column("queue", sa.String(length=63), nullable=False, server_default="cpu"),
        sa.Column("precedence", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("max_queue_time", sa.BigInteger(), nullable=True),
        sa.Column("queued_time", sa.BigInteger(), nullable=True),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("place_time", sa.BigInteger(), nullable=False, server_default="0"),
    ):
        op.add_column("jobs", column)
    op.execute("UPDATE jobs SET place_time = create_time")
    op.execute("UPDATE jobs SET queued_time = update_time WHERE state = 'QUEUED'")
    for name, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, "jobs", columns, unique=False, sqlite_where=where, postgresql_where=where)


_INDEXES = (
    ("ix_jobs_turn", ["queue", "tenant", "precedence", "place_time", "id"], "queued_time IS NOT NULL"),
    ("ix_jobs_waiting", ["tenant", "queue"], "queued_time IS NOT NULL"),
    ("ix_jobs_held", ["queue", "tenant"], "lease_until IS NOT NULL"),
    ("ix_jobs_expiring", ["expire_time"], "expire_time IS NOT NULL"),
    ("ix_jobs_succeeded", ["queue", "finish_time"], "state = 'SUCCEEDED'"),
)


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index(op.f("ix_workers_report_time"), table_name="workers")
    for table in ("workers", "spent_doorbells", "queue_turns", "tenants"):
        op.drop_table(table)
    op.drop_column("doorbells", "queue")
    for name, _columns, _condition in reversed(_INDEXES):
        op.drop_index(name, table_name="jobs")
    for column in ("place_time", "expire_time", "queued_time", "max_queue_time", "precedence", "queue"):
        op.drop_column("jobs", column)
