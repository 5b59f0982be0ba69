"""Indexes of attempts by how they ended, and of jobs that are paused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    columns = ["end_cause", "end_time"]
    op.create_index(op.f("ix_job_attempts_end_cause_end_time"), "job_attempts", columns, unique=False)
    where = sa.text("state = 'PAUSED'")
    op.create_index("ix_jobs_paused", "jobs", ["update_time"], unique=False, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index("ix_jobs_paused", table_name="jobs")
    op.drop_index(op.f("ix_job_attempts_end_cause_end_time"), table_name="job_attempts")
