"""One attempt at a job, from the claim to the gateway's last answer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import grpc
from google.protobuf import json_format

from modelyard.core.errors import DigestMismatch, InvalidFields, RemoteError
from modelyard.core.logs import get_logger
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.training_job_pb2 import Checkpoint, TrainingJob

from . import outcomes
from .checkpoint_shelf import CheckpointShelf, Shelved
from .checkpoints import Checkpoints
from .conclusion import conclude
from .dataset_cache import DatasetCache
from .gateway import Gateway
from .interruptions import Interrupted, Interruption, Interruptions
from .lease import Lease
from .memory_kills import count_memory_kills
from .publication import publish
from .resumption import Resumption
from .settings import WorkerSettings
from .supervision import Exit, supervise
from .trainers import Trainers
from .workspace import WorkFolder

_LAST_FLUSH_S = 2.0
_OVER = frozenset({TrainingJob.STATE_SUCCEEDED, TrainingJob.STATE_FAILED, TrainingJob.STATE_CANCELLED})

Outcome = pb.FinishTrainingJobRequest

log = get_logger()


class Attempt:
    """A claimed job on its way: data, training, publication, end.

    Whatever goes wrong becomes an outcome that the gateway is told. Two interruptions end an attempt without one: STALE
    (the job is somebody else's) and OUT_OF_CONTACT (there is nobody to tell).
    """

    def __init__(
        self,
        settings: WorkerSettings,
        gateway: Gateway,
        registry: grpc.Channel,
        claim: pb.ClaimTrainingJobResponse,
        interruptions: Interruptions,
        trainers: Trainers,
    ) -> None:
        self._settings = settings
        self._trainers = trainers
        self._gateway = gateway
        self._store = ArtifactServiceStub(registry)
        self._claim = claim
        self._job = claim.training_job
        self._job_id = self._job.name.rpartition("/")[2]
        self._shelf: CheckpointShelf | None = None
        self._interruptions = interruptions
        self._lease = Lease(gateway, claim, interruptions, settings.out_of_contact_limit_s)

    def run(self) -> None:
        """Returns when the gateway has been told, or need not be. Call it from the main thread: it starts a process."""
        with self._lease:
            outcome = self._outcome()
            if outcome is None:
                self._lease.flush(_LAST_FLUSH_S)
            else:
                self._finish(outcome)

    def _outcome(self) -> Outcome | None:
        try:
            folder = f"{self._job_id}-{self._job.attempt}"
            work = WorkFolder(self._settings.work_dir)
            work.sweep()
            self._shelf = CheckpointShelf(work.checkpoints)
            self._shelf.sweep(self._settings.checkpoint_retention_s)
            with work.attempt(folder) as workdir:
                ours = self._prepare(workdir, work.datasets, self._shelf)
                return self._train_and_publish(workdir, self._shelf, ours)
        except Interrupted as interrupted:
            # Something stronger may have been heard since.
            reason = self._interruptions.current() or interrupted.reason
            message = self._interruptions.message
            log.info("attempt interrupted", reason=reason.name, message=message)
            return outcomes.interrupted(reason, message or "the worker is being stopped")
        except outcomes.BrokenResult as error:
            return outcomes.internal_failure(str(error))
        except (RemoteError, DigestMismatch, InvalidFields) as error:
            return outcomes.worker_fault(f"the artifact store: {error}")
        except OSError as error:
            log.exception("the worker's disk or processes failed")
            return outcomes.worker_fault(f"the worker's disk or processes failed: {error.strerror}")
        except Exception as error:  # a fault of ours must end the attempt visibly, not leave it to lease after lease
            log.exception("the attempt failed")
            return outcomes.worker_fault(f"the worker failed: {type(error).__name__}")

    def _train_and_publish(self, workdir: Path, shelf: CheckpointShelf, ours: Shelved | None) -> Outcome:
        with Checkpoints(
            self._store, workdir, shelf, self._job_id, self._announce, self._tell, self._may_tell
        ) as checkpoints:  # fmt: skip
            if ours is not None:
                checkpoints.offer(ours.path, ours.message())
            result = self._train(workdir, checkpoints)
            if result.WhichOneof("outcome") != "succeeded":
                checkpoints.finish(self._settings.checkpoint_upload_s)  # the job may be tried again
                return result
        self._enter(TrainingJob.STATE_PUBLISHING)
        artifact = publish(
            self._store, workdir, result.succeeded, self._on_progress, patience_s=self._settings.out_of_contact_limit_s
        )
        return Outcome(succeeded=artifact)

    def _prepare(self, workdir: Path, datasets: Path, shelf: CheckpointShelf) -> Shelved | None:
        """Fills the trainer's folder; answers the checkpoint in it if the artifact store may not have that."""
        self._enter(TrainingJob.STATE_PREPARING)
        cache = DatasetCache(datasets, self._settings.dataset_cache_bytes)
        cache.fetch(
            self._store, self._claim.dataset.digest, workdir / "dataset", self._on_progress,
            patience_s=self._settings.out_of_contact_limit_s,
        )  # fmt: skip
        (workdir / "job.json").write_text(json_format.MessageToJson(self._job))
        (workdir / "dataset.json").write_text(json_format.MessageToJson(self._claim.dataset))
        (workdir / "trainer.json").write_text(
            json.dumps({"checkpoint_interval_s": self._settings.checkpoint_interval_s})
        )
        resumption = Resumption(self._store, shelf, self._say, self._on_progress, self._settings.out_of_contact_limit_s)
        return resumption.fetch(self._job, workdir)

    def _train(self, workdir: Path, checkpoints: Checkpoints) -> Outcome:
        self._interruptions.check()
        kills_before = count_memory_kills()
        process = self._trainers.start(workdir)
        log.info("trainer started", pid=process.pid)
        take = partial(self._take, checkpoints)
        try:
            end = supervise(process, take, self._interruptions, self._settings.trainer_grace_s)
        finally:
            process.close()
        log.info("trainer ended", exit_code=end.code)
        if end.interruption is not None:
            checkpoints.finish(self._settings.checkpoint_upload_s)
            raise Interrupted(end.interruption)
        kills_after = count_memory_kills()
        return _result(workdir, end, memory_ran_out=(kills_after or 0) > (kills_before or 0))

    def _take(self, checkpoints: Checkpoints, update: pb.TrainingUpdate) -> None:
        if update.HasField("checkpoint"):
            checkpoints.saved(update.checkpoint)  # the gateway hears of it when the store has it
        else:
            self._lease.add(update)

    def _enter(self, state: TrainingJob.State.ValueType) -> None:
        self._lease.add(pb.TrainingUpdate(state=state))

    def _may_tell(self) -> bool:
        return self._interruptions.current() not in {Interruption.STALE, Interruption.OUT_OF_CONTACT}

    def _announce(self, checkpoint: Checkpoint) -> None:
        self._gateway.announce(
            pb.AnnounceCheckpointRequest(name=self._job.name, attempt=self._job.attempt, checkpoint=checkpoint)
        )

    def _tell(self, checkpoint: Checkpoint) -> None:
        self._lease.add(pb.TrainingUpdate(checkpoint=checkpoint))

    def _say(self, line: str) -> None:
        self._lease.add(pb.TrainingUpdate(log_line=f"… {line}"))

    def _on_progress(self, _done_bytes: int, _total_bytes: int, /) -> None:
        """Stops a transfer when there is a reason to."""
        self._interruptions.check()

    def _finish(self, outcome: Outcome) -> None:
        """Delivers what is left, then the outcome, however long the gateway is away (within the limit)."""
        while not self._lease.flush(1.0):
            if self._interruptions.hopeless() or not self._lease.delivers:
                log.warning("the gateway does not have all updates")
                break
        outcome.name, outcome.attempt = self._job.name, self._job.attempt
        job = conclude(self._gateway, outcome, self._interruptions, self._settings.out_of_contact_limit_s)
        if job is not None and job.state in _OVER and self._shelf is not None:
            self._shelf.remove(self._job_id)


def _result(workdir: Path, end: Exit, *, memory_ran_out: bool) -> Outcome:
    result = outcomes.read_result(workdir)
    if result is None:
        return outcomes.failure_of(end, memory_ran_out=memory_ran_out)
    if end.code != 0:
        log.warning("the trainer left a result and then died", exit_code=end.code)
    return outcomes.blame_memory(result) if memory_ran_out else result
