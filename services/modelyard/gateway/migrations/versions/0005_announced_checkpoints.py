"""Checkpoints that are announced before they are uploaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.add_column("job_checkpoints", sa.Column("recorded", sa.Boolean(), nullable=False, server_default=sa.true()))


def downgrade() -> None:
    """Back to the one before. What was only announced is there to be removed."""
    op.execute("UPDATE job_checkpoints SET remove_time = create_time WHERE NOT recorded AND remove_time IS NULL")
    op.drop_column("job_checkpoints", "recorded")
