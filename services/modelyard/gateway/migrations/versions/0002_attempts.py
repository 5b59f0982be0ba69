"""Attempts, retries, pauses, checkpoints, and progress that can be read thinned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTS = ("max_retries", "infrastructure_retries", "preemptions", "user_retries", "preempted_attempt")
_SUMS = ("run_time", "progress_count", "progress_sequence", "checkpoint_step")
_TIMES = ("claim_time", "run_until", "max_run_time", "retry_time")
_TEXTS = {
    "node": 200, "pause_request_id": 64, "resume_request_id": 64, "preempt_request_id": 64, "preempted_by": 100,
}  # fmt: skip
_ON_EVENTS = ("level", "end_cause", "retried", "retry_time")
_ON_JOBS = (*_COUNTS, *_SUMS, *_TIMES, *_TEXTS, "checkpoint")
_LEVELS = 31


def upgrade() -> None:
    """To this revision."""
    for name in _COUNTS:
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    for name in _SUMS:
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    for name in _TIMES:
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=True))
    for name, length in _TEXTS.items():
        op.add_column("jobs", sa.Column(name, sa.String(length=length), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("checkpoint", sa.LargeBinary(), nullable=True))
    op.create_index(op.f("ix_jobs_run_until"), "jobs", ["run_until"], unique=False)
    _create_attempts()
    _create_checkpoints()
    _change_events()


def _create_attempts() -> None:
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("node", sa.String(length=200), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("end_cause", sa.String(length=16), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("resumed_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_attempts_job_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_job_attempts")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_job_attempts_node_end_time"), "job_attempts", ["node", "end_time"], unique=False)
    # Attempts that are under way end by the new rules; of those that ended before, nothing is known but events.
    op.execute("UPDATE jobs SET claim_time = update_time WHERE lease_until IS NOT NULL")
    op.execute(
        "INSERT INTO job_attempts (job_id, attempt, worker, node, start_time, message, resumed_step) "
        "SELECT id, attempt, worker, '', update_time, '', 0 FROM jobs WHERE lease_until IS NOT NULL"
    )


def _create_checkpoints() -> None:
    op.create_table(
        "job_checkpoints",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("remove_time", sa.BigInteger(), nullable=True),
        sa.Column("removing", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_checkpoints_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_checkpoints")),
    )
    op.create_index(op.f("ix_job_checkpoints_job_id_step"), "job_checkpoints", ["job_id", "step"], unique=False)
    op.create_index(op.f("ix_job_checkpoints_digest"), "job_checkpoints", ["digest"], unique=False)
    op.create_index(op.f("ix_job_checkpoints_remove_time"), "job_checkpoints", ["remove_time"], unique=False)


def _change_events() -> None:
    op.add_column("job_events", sa.Column("level", sa.SmallInteger(), nullable=True))
    op.add_column("job_events", sa.Column("end_cause", sa.String(length=16), nullable=True))
    op.add_column("job_events", sa.Column("retried", sa.Boolean(), nullable=True))
    op.add_column("job_events", sa.Column("retry_time", sa.BigInteger(), nullable=True))
    op.execute(
        f"UPDATE job_events SET level = {_level_of('counted.n')} FROM ("  # noqa: S608 - numbers of our own
        "SELECT job_id, sequence, row_number() OVER (PARTITION BY job_id ORDER BY sequence) AS n "
        "FROM job_events WHERE kind = 'PROGRESS') AS counted "
        "WHERE job_events.job_id = counted.job_id AND job_events.sequence = counted.sequence"
    )
    op.execute(
        "UPDATE jobs SET progress_count = counted.n, progress_sequence = counted.newest FROM ("
        "SELECT job_id, count(*) AS n, max(sequence) AS newest FROM job_events WHERE kind = 'PROGRESS' GROUP BY job_id"
        ") AS counted WHERE jobs.id = counted.job_id"
    )
    where = sa.text("level IS NOT NULL")
    op.create_index(
        op.f("ix_job_events_job_id_level_sequence"),
        "job_events",
        ["job_id", "level", "sequence"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )


def _level_of(number: str) -> str:
    """How often the number can be halved, as SQL."""
    cases = " ".join(f"WHEN {number} & {1 << level} <> 0 THEN {level}" for level in range(_LEVELS))
    return f"CASE {cases} ELSE {_LEVELS} END"


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index(op.f("ix_job_events_job_id_level_sequence"), table_name="job_events")
    for name in _ON_EVENTS:
        op.drop_column("job_events", name)
    op.drop_index(op.f("ix_job_checkpoints_remove_time"), table_name="job_checkpoints")
    op.drop_index(op.f("ix_job_checkpoints_digest"), table_name="job_checkpoints")
    op.drop_index(op.f("ix_job_checkpoints_job_id_step"), table_name="job_checkpoints")
    op.drop_table("job_checkpoints")
    op.drop_index(op.f("ix_job_attempts_node_end_time"), table_name="job_attempts")
    op.drop_table("job_attempts")
    op.drop_index(op.f("ix_jobs_run_until"), table_name="jobs")
    for name in _ON_JOBS:
        op.drop_column("jobs", name)
