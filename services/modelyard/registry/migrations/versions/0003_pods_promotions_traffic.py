"""Pods and what they serve, promotions, the traffic of aliases, what shadow versions did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_aliases", sa.Column("traffic", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("model_alias_changes", sa.Column("previous_traffic", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("model_alias_changes", sa.Column("traffic", sa.JSON(), server_default="{}", nullable=False))
    _create_pods()
    op.create_table(
        "promotions",
        sa.Column("model_id", sa.String(length=63), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("alias", sa.String(length=63), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("may_put_back", sa.Boolean(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("broken", sa.Boolean(), nullable=False),
        sa.Column("was_put_back", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "sequence"],
            ["model_alias_changes.model_id", "model_alias_changes.sequence"],
            name=op.f("fk_promotions_model_id_sequence"),
        ),
        sa.PrimaryKeyConstraint("model_id", "sequence", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_deadline"), "promotions", ["deadline"], unique=False)
    op.create_table(
        "shadow_counts",
        sa.Column("pod_id", sa.String(length=63), nullable=False),
        sa.Column("model_id", sa.String(length=63), nullable=False),
        sa.Column("alias", sa.String(length=63), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("shadow_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("compared", sa.BigInteger(), nullable=False),
        sa.Column("differing", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("class_mismatches", sa.BigInteger(), nullable=False),
        sa.Column("max_absolute_difference", sa.Double(), nullable=False),
        sa.Column("max_relative_difference", sa.Double(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.String(length=1000), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "model_id", "alias", "version", "shadow_version", "pod_id", name=op.f("pk_shadow_counts")
        ),
    )
    op.create_index(op.f("ix_shadow_counts_update_time"), "shadow_counts", ["update_time"], unique=False)


def _create_pods() -> None:
    op.create_table(
        "pods",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pods")),
    )
    op.create_index(op.f("ix_pods_lease_until"), "pods", ["lease_until"], unique=False)
    op.create_table(
        "pod_versions",
        sa.Column("pod_id", sa.String(length=63), nullable=False),
        sa.Column("model_id", sa.String(length=63), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("load_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=False),
        sa.Column("broken", sa.Boolean(), nullable=False),
        sa.Column("aliases", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["pod_id"], ["pods.id"], name=op.f("fk_pod_versions_pod_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pod_id", "model_id", "version", name=op.f("pk_pod_versions")),
    )
    op.create_index(op.f("ix_pod_versions_model_id_version"), "pod_versions", ["model_id", "version"], unique=False)
