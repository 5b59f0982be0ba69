"""The gateway's tables. Times are integers: microseconds since 1970 in UTC by the database's clock.

A job is split in two: what never changes and may be long (`job_definitions`) and what changes with every report
(`jobs`), so that a heartbeat rewrites a short row.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _partial(name: str | None, *columns: str, where: str) -> Index:
    """An index of the rows for which a condition holds."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("creator", String(100), nullable=False),
    # NULL where the caller gave none, so that the unique constraint lets any number of those in.
    Column("request_id", String(64)),
    # SHA-256 of the request's content: tells a repeated request from another one under the same request_id.
    Column("request_digest", String(64), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("model", String(63), nullable=False),
    Column("alias", String(63), nullable=False),
    Column("dataset", String(63), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("parameter_count", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("failure_reason", String(16)),
    Column("failure_message", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("suspect_attempts", Integer, nullable=False),
    Column("finished_attempt", Integer, nullable=False),
    Column("worker", String(200), nullable=False),
    Column("node", String(200), nullable=False),
    Column("lease_until", BigInteger),
    # When the current attempt was claimed, and when the job's time to run is over; NULL if no attempt holds the job.
    Column("claim_time", BigInteger),
    Column("run_until", BigInteger),
    # How long the attempts that have ended held workers, and for how long they may in sum.
    Column("run_time", BigInteger, nullable=False),
    Column("max_run_time", BigInteger),
    Column("max_retries", Integer, nullable=False),
    Column("infrastructure_retries", Integer, nullable=False),
    Column("preemptions", Integer, nullable=False),
    Column("user_retries", Integer, nullable=False),
    Column("retry_time", BigInteger),
    Column("updates_received", BigInteger, nullable=False),
    Column("progress", LargeBinary),
    # How many progress events there are, and the sequence number of the newest.
    Column("progress_count", BigInteger, nullable=False),
    Column("progress_sequence", BigInteger, nullable=False),
    # The newest checkpoint, see `checkpoints.Checkpoint.encode`, and its step.
    Column("checkpoint", LargeBinary),
    Column("checkpoint_step", BigInteger, nullable=False),
    Column("evaluation", LargeBinary),
    Column("artifact", LargeBinary),
    Column("artifact_digest", String(64), nullable=False),
    Column("model_version", String(100), nullable=False),
    Column("cancel_request_id", String(64), nullable=False),
    Column("pause_request_id", String(64), nullable=False),
    Column("resume_request_id", String(64), nullable=False),
    Column("preempt_request_id", String(64), nullable=False),
    # The attempt that somebody wanted to preempt, and who.
    Column("preempted_attempt", Integer, nullable=False),
    Column("preempted_by", String(100), nullable=False),
    Column("queue", String(63), nullable=False),
    # The priority, negated: lower goes first, so that one ascending index has the whole order.
    Column("precedence", Integer, nullable=False),
    Column("max_queue_time", BigInteger),
    # When the present wait began, and when it has lasted too long; NULL unless QUEUED.
    Column("queued_time", BigInteger),
    Column("expire_time", BigInteger),
    # Of two jobs of equal precedence the one with the lower goes first.
    Column("place_time", BigInteger, nullable=False),
    Column("rung_time", BigInteger),
    Column("last_sequence", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("finish_time", BigInteger),
    UniqueConstraint("tenant", "request_id"),
    Index(None, "tenant", "create_time", "id"),
    Index(None, "create_time", "id"),
    # NULL for the jobs that reaper and reconciler do not care about, so both look at short indexes.
    Index(None, "lease_until"),
    Index(None, "rung_time"),
    Index(None, "run_until"),
    # Short ones: the jobs that wait, in the order in which a tenant's start; the same by tenant; those that a worker
    # holds; those that may wait too long. The last one grows: from it the queue's newest run times are read.
    _partial("ix_jobs_turn", "queue", "tenant", "precedence", "place_time", "id", where="queued_time IS NOT NULL"),
    _partial("ix_jobs_waiting", "tenant", "queue", where="queued_time IS NOT NULL"),
    _partial("ix_jobs_held", "queue", "tenant", where="lease_until IS NOT NULL"),
    _partial("ix_jobs_expiring", "expire_time", where="expire_time IS NOT NULL"),
    _partial("ix_jobs_paused", "update_time", where="state = 'PAUSED'"),
    _partial("ix_jobs_succeeded", "queue", "finish_time", where="state = 'SUCCEEDED'"),
)

job_definitions = Table(
    "job_definitions",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    # The normalised modelyard.v1.TrainingSpec, serialized.
    Column("spec", LargeBinary, nullable=False),
    # The modelyard.v1.Dataset as it was when the job was submitted, serialized.
    Column("dataset_snapshot", LargeBinary, nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(12), nullable=False),
    Column("state", String(16)),
    Column("previous_state", String(16)),
    Column("failure_reason", String(16)),
    # The message of a state change or of an attempt's end, the worker of its start, or the text of a log line.
    Column("text", Text),
    Column("model_version", String(100)),
    # A serialized modelyard.v1.TrainingProgress or Evaluation, or an encoded checkpoint.
    Column("document", LargeBinary),
    # Of progress: how often the number of this progress event, counted from 1 in its job, can be halved. Every second
    # event has level 1 or more, every fourth 2 or more, and so on: a few of many are found without reading all.
    Column("level", SmallInteger),
    # The end of an attempt.
    Column("end_cause", String(16)),
    Column("retried", Boolean),
    Column("retry_time", BigInteger),
    _partial(None, "job_id", "level", "sequence", where="level IS NOT NULL"),
    # One job's events lie together, in the order in which they are read.
    sqlite_with_rowid=False,
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(200), nullable=False),
    Column("node", String(200), nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("end_cause", String(16)),
    Column("message", Text, nullable=False),
    # The step of the checkpoint that the attempt went on from.
    Column("resumed_step", BigInteger, nullable=False),
    Index(None, "node", "end_time"),
    Index(None, "end_cause", "end_time"),
    sqlite_with_rowid=False,
)

job_checkpoints = Table(
    "job_checkpoints",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    # Whether a worker has reported it; if not, it has announced that it is about to upload the blob.
    Column("recorded", Boolean, nullable=False),
    # When the blob may be removed from the artifact store; NULL while it is wanted.
    Column("remove_time", BigInteger),
    # The store has been or is being asked to remove the blob: it may be gone.
    Column("removing", Boolean, nullable=False),
    Index(None, "job_id", "step"),
    Index(None, "digest"),
    Index(None, "remove_time"),
)

doorbells = Table(
    "doorbells",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False),
    Column("queue", String(63), nullable=False),
    Column("due_time", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Index(None, "due_time"),
    sqlite_autoincrement=True,  # a replica that was slow to delete what it rang must not hit a new row of the same id
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("roles", JSON, nullable=False),
    Column("creator", String(100), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Index(None, "tenant", "create_time", "id"),
    Index(None, "create_time", "id"),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(63), primary_key=True),
    # NULL: the cluster's default.
    Column("weight", Float(53)),
    Column("max_running_jobs", Integer),
    Column("max_waiting_jobs", Integer),
    Column("revision", BigInteger, nullable=False),
)

queue_turns = Table(
    "queue_turns",
    metadata,
    Column("queue", String(63), primary_key=True),
    Column("tenant", String(63), primary_key=True),
    # See `turns`. The queue's own tag is the greatest of its rows'.
    Column("tag", Float(53), nullable=False),
    Column("queue_tag", Float(53), nullable=False),
)

spent_doorbells = Table(
    "spent_doorbells",
    metadata,
    Column("queue", String(63), primary_key=True),
    # Doorbells that a worker came for and that started nothing although jobs wait; see `vacancies`.
    Column("count", Integer, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("node", String(200), nullable=False),
    # A list of names.
    Column("queues", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    # The job's id; empty if the worker has none.
    Column("job_id", String(40), nullable=False),
    Column("hardware", String(200), nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("report_time", BigInteger, nullable=False),
    Index(None, "report_time"),
)
