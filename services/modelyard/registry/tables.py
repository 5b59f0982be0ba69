"""The registry's tables. Times are integers: microseconds since 1970 in UTC by the database's clock."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    # The object that holds the content.
    Column("key", String(200), nullable=False, server_default=""),
    Column("create_time", BigInteger, nullable=False),
)

# Objects in the store that are to go after a time unless they become a blob's before: those of blobs that were deleted,
# and those that are being written. So whatever ends in between, no object is forgotten.
loose_objects = Table(
    "loose_objects",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("delete_time", BigInteger, nullable=False),
    Index(None, "delete_time"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("committed_bytes", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    # One upload for a tenant's content, so that whoever announces it again goes on where it is.
    Index(None, "tenant", "digest", "size_bytes", unique=True),
    Index(None, "expire_time"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", String(32), ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("first_byte", BigInteger, primary_key=True, autoincrement=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("key", String(200), nullable=False, unique=True),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("format", String(16), nullable=False),
    Column("digest", String(64), ForeignKey("blobs.digest"), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("columns", JSON, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Index(None, "tenant", "create_time", "id"),
    Index(None, "create_time", "id"),
    Index(None, "digest"),
)

models = Table(
    "models",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("latest_version", BigInteger, nullable=False),
    # Number of the newest entry of the alias history.
    Column("last_sequence", BigInteger, nullable=False),
    # Counts the changes of this row; the etag.
    Column("changes", BigInteger, nullable=False),
    # The global revision at which what is served of this model changed last; NULL if nothing ever was.
    Column("served_revision", BigInteger),
    # How pods are to serve it: the settings that are not the default.
    Column("serving", JSON, nullable=False, server_default="{}"),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "served_revision"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("model_id", String(63), ForeignKey("models.id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), ForeignKey("blobs.digest"), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("opset_version", Integer, nullable=False),
    Column("ir_version", Integer, nullable=False),
    Column("training_job", String(100), nullable=False),
    Column("dataset", String(100), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("spec_digest", String(64), nullable=False),
    # A serialized modelyard.v1.Evaluation and ParityReport; NULL where none was given.
    Column("evaluation", LargeBinary),
    Column("parity", LargeBinary),
    Column("library_versions", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    # Digest, size and location of the file that holds the weights; empty if the ONNX file does.
    Column("external_data", JSON, nullable=False, server_default="{}"),
    # Its digest once more, for the database to guard.
    Column("external_digest", String(64), ForeignKey("blobs.digest")),
    Column("create_time", BigInteger, nullable=False),
    Index(None, "digest"),
    Index(None, "external_digest"),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model_id", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", BigInteger, nullable=False),
    # The change that put it here; the etag.
    Column("sequence", BigInteger, nullable=False),
    # The change that a rollback would undo; 0 if there is none.
    Column("undo_sequence", BigInteger, nullable=False),
    # Where it sends callers beside its version; empty if nowhere.
    Column("traffic", JSON, nullable=False, server_default="{}"),
    Column("update_time", BigInteger, nullable=False),
    ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
)

model_alias_changes = Table(
    "model_alias_changes",
    metadata,
    Column("model_id", String(63), ForeignKey("models.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("alias", String(63), nullable=False),
    Column("previous_version", BigInteger, nullable=False),
    Column("previous_traffic", JSON, nullable=False, server_default="{}"),
    Column("version", BigInteger, nullable=False),
    Column("traffic", JSON, nullable=False, server_default="{}"),
    # The change that a rollback would undo after this one has been undone; 0 if there is none.
    Column("undo_sequence", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", String(1000), nullable=False),
    Index(None, "model_id", "alias", "sequence"),
)

requests = Table(
    "requests",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    # SHA-256 of method and content: tells a repeated request from another one under the same id.
    Column("fingerprint", String(64), nullable=False),
    # What the request made: a resource's id, in the words of the use case.
    Column("result", String(200), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Index(None, "create_time"),
)

revision = Table(
    "revision",
    metadata,
    # One row.
    Column("id", Integer, primary_key=True, autoincrement=False),
    # Raised in the same transaction as every change of what is served.
    Column("value", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

pods = Table(
    "pods",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("display_name", String(200), nullable=False),
    Column("draining", Boolean, nullable=False),
    # Of what should be served: what it has taken over.
    Column("revision", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    # It counts as gone after this.
    Column("lease_until", BigInteger, nullable=False),
    Index(None, "lease_until"),
)

# What each pod says of itself: no reference to models, which its copy may know from another time.
pod_versions = Table(
    "pod_versions",
    metadata,
    Column("pod_id", String(63), ForeignKey("pods.id", ondelete="CASCADE"), primary_key=True),
    Column("model_id", String(63), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    # A number of modelyard.v1.PodVersion.State.
    Column("state", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("load_us", BigInteger, nullable=False),
    Column("reason", String(1000), nullable=False),
    # Whether the version is at fault.
    Column("broken", Boolean, nullable=False),
    # Those whose own version it is in this pod.
    Column("aliases", JSON, nullable=False),
    Index(None, "model_id", "version"),
)

promotions = Table(
    "promotions",
    metadata,
    Column("model_id", String(63), primary_key=True),
    # The change of the alias that the promotion made, or found made.
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("alias", String(63), nullable=False),
    Column("version", BigInteger, nullable=False),
    # A pod that has taken over less cannot serve it yet.
    Column("revision", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    # Whether the alias goes back if the version is broken.
    Column("may_put_back", Boolean, nullable=False),
    # Until when somebody may be watching, and a broken version is put back; later, see promotion_outcomes.
    Column("deadline", BigInteger, nullable=False),
    Column("broken", Boolean, nullable=False),
    Column("was_put_back", Boolean, nullable=False),
    # What the pods say of a broken version.
    Column("reason", Text, nullable=False),
    ForeignKeyConstraint(["model_id", "sequence"], ["model_alias_changes.model_id", "model_alias_changes.sequence"]),
    Index(None, "deadline"),
)

# What each pod's comparisons came to since it started.
shadow_counts = Table(
    "shadow_counts",
    metadata,
    Column("model_id", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("shadow_version", BigInteger, primary_key=True, autoincrement=False),
    Column("pod_id", String(63), primary_key=True),
    Column("compared", BigInteger, nullable=False),
    Column("differing", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("class_mismatches", BigInteger, nullable=False),
    Column("max_absolute_difference", Double, nullable=False),
    Column("max_relative_difference", Double, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("last_error", String(1000), nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Index(None, "update_time"),
)
