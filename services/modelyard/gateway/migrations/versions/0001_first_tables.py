"""Jobs, events, doorbells, tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("creator", sa.String(length=100), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("alias", sa.String(length=63), nullable=False),
        sa.Column("dataset", sa.String(length=63), nullable=False),
        sa.Column("dataset_digest", sa.String(length=64), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("parameter_count", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("failure_reason", sa.String(length=16), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("suspect_attempts", sa.Integer(), nullable=False),
        sa.Column("finished_attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("updates_received", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.LargeBinary(), nullable=True),
        sa.Column("evaluation", sa.LargeBinary(), nullable=True),
        sa.Column("artifact", sa.LargeBinary(), nullable=True),
        sa.Column("artifact_digest", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("cancel_request_id", sa.String(length=64), nullable=False),
        sa.Column("rung_time", sa.BigInteger(), nullable=True),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("finish_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("tenant", "request_id", name=op.f("uq_jobs_tenant_request_id")),
    )
    op.create_index(op.f("ix_jobs_create_time_id"), "jobs", ["create_time", "id"], unique=False)
    op.create_index(op.f("ix_jobs_lease_until"), "jobs", ["lease_until"], unique=False)
    op.create_index(op.f("ix_jobs_rung_time"), "jobs", ["rung_time"], unique=False)
    op.create_index(op.f("ix_jobs_tenant_create_time_id"), "jobs", ["tenant", "create_time", "id"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("creator", sa.String(length=100), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_create_time_id"), "tokens", ["create_time", "id"], unique=False)
    op.create_index(op.f("ix_tokens_tenant_create_time_id"), "tokens", ["tenant", "create_time", "id"], unique=False)
    op.create_table(
        "doorbells",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("due_time", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_doorbells_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_doorbells")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_doorbells_due_time"), "doorbells", ["due_time"], unique=False)
    op.create_table(
        "job_definitions",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("dataset_snapshot", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_definitions_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_definitions")),
    )
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=True),
        sa.Column("previous_state", sa.String(length=16), nullable=True),
        sa.Column("failure_reason", sa.String(length=16), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("model_version", sa.String(length=100), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id")),
        sa.PrimaryKeyConstraint("job_id", "sequence", name=op.f("pk_job_events")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Back to the one before."""
    op.drop_table("job_events")
    op.drop_table("job_definitions")
    op.drop_index(op.f("ix_doorbells_due_time"), table_name="doorbells")
    op.drop_table("doorbells")
    op.drop_index(op.f("ix_tokens_tenant_create_time_id"), table_name="tokens")
    op.drop_index(op.f("ix_tokens_create_time_id"), table_name="tokens")
    op.drop_table("tokens")
    op.drop_index(op.f("ix_jobs_tenant_create_time_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_rung_time"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_lease_until"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_create_time_id"), table_name="jobs")
    op.drop_table("jobs")
