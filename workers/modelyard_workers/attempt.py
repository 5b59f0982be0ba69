"""One attempt at a job, from the claim to the gateway's last answer."""

from __future__ import annotations

from pathlib import Path

import grpc
from google.protobuf import json_format

from modelyard.core.errors import DigestMismatch, InvalidFields, RemoteError
from modelyard.core.logs import get_logger
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.training_job_pb2 import TrainingJob

from . import outcomes
from .conclusion import conclude
from .dataset_cache import DatasetCache
from .gateway import Gateway
from .interruptions import Interrupted, Interruption, Interruptions
from .lease import Lease
from .memory_kills import count_memory_kills
from .publication import publish
from .settings import WorkerSettings
from .supervision import Exit, supervise
from .trainers import Trainers
from .workspace import WorkFolder

_FLUSH_ON_SHUTDOWN_S = 2.0

Outcome = pb.FinishTrainingJobRequest

log = get_logger()


class Attempt:
    """A claimed job on its way: data, training, publication, end.

    Whatever goes wrong becomes an outcome that the gateway is told. Three interruptions end an attempt without one:
    STALE (the job is somebody else's), OUT_OF_CONTACT (there is nobody to tell) and SHUTDOWN (the lease runs out and
    another worker takes the job).
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
        self._interruptions = interruptions
        self._lease = Lease(gateway, claim, interruptions, settings.out_of_contact_limit_s)

    def run(self) -> None:
        """Returns when the gateway has been told, or need not be. Call it from the main thread: it starts a process."""
        with self._lease:
            outcome = self._outcome()
            if outcome is None:
                self._lease.flush(_FLUSH_ON_SHUTDOWN_S)
            else:
                self._finish(outcome)

    def _outcome(self) -> Outcome | None:
        try:
            folder = f"{self._job.name.rpartition('/')[2]}-{self._job.attempt}"
            work = WorkFolder(self._settings.work_dir)
            work.sweep()
            with work.attempt(folder) as workdir:
                self._prepare(workdir, work.datasets)
                return self._train_and_publish(workdir)
        except Interrupted as interrupted:
            return self._outcome_of(interrupted.reason)
        except outcomes.BrokenResult as error:
            return outcomes.internal_failure(str(error))
        except (RemoteError, DigestMismatch, InvalidFields) as error:
            return outcomes.internal_failure(f"the artifact store: {error}")
        except OSError as error:
            log.exception("the worker's disk or processes failed")
            return outcomes.internal_failure(f"the worker's disk or processes failed: {error.strerror}")
        except Exception as error:  # a fault of ours must end the job visibly, not leave it to lease after lease
            log.exception("the attempt failed")
            return outcomes.internal_failure(f"the worker failed: {type(error).__name__}")

    def _train_and_publish(self, workdir: Path) -> Outcome:
        result = self._train(workdir)
        if result.WhichOneof("outcome") != "succeeded":
            return result
        self._enter(TrainingJob.STATE_PUBLISHING)
        artifact = publish(
            self._store, workdir, result.succeeded, self._on_progress, patience_s=self._settings.out_of_contact_limit_s
        )
        return Outcome(succeeded=artifact)

    def _prepare(self, workdir: Path, datasets: Path) -> None:
        self._enter(TrainingJob.STATE_PREPARING)
        cache = DatasetCache(datasets, self._settings.dataset_cache_bytes)
        cache.fetch(
            self._store, self._claim.dataset.digest, workdir / "dataset", self._on_progress,
            patience_s=self._settings.out_of_contact_limit_s,
        )  # fmt: skip
        (workdir / "job.json").write_text(json_format.MessageToJson(self._job))
        (workdir / "dataset.json").write_text(json_format.MessageToJson(self._claim.dataset))

    def _train(self, workdir: Path) -> Outcome:
        self._interruptions.check()
        kills_before = count_memory_kills()
        process = self._trainers.start(workdir)
        log.info("trainer started", pid=process.pid)
        try:
            end = supervise(process, self._lease.add, self._interruptions, self._settings.trainer_grace_s)
        finally:
            process.close()
        log.info("trainer ended", exit_code=end.code)
        if end.interruption is not None:
            raise Interrupted(end.interruption)
        kills_after = count_memory_kills()
        return _result(workdir, end, memory_ran_out=(kills_after or 0) > (kills_before or 0))

    def _enter(self, state: TrainingJob.State.ValueType) -> None:
        self._lease.add(pb.TrainingUpdate(state=state))

    def _on_progress(self, _done_bytes: int, _total_bytes: int, /) -> None:
        """Stops a transfer when there is a reason to."""
        self._interruptions.check()

    def _outcome_of(self, reason: Interruption) -> Outcome | None:
        log.info("attempt interrupted", reason=reason.name, message=self._interruptions.message)
        if reason is Interruption.CANCELLED:
            return outcomes.cancelled()
        if reason is Interruption.FAULT:
            return outcomes.internal_failure(self._interruptions.message)
        return None

    def _finish(self, outcome: Outcome) -> None:
        """Delivers what is left, then the outcome, however long the gateway is away (within the limit)."""
        while not self._lease.flush(1.0):
            if self._interruptions.hopeless() or not self._lease.delivers:
                log.warning("the gateway does not have all updates")
                break
        outcome.name, outcome.attempt = self._job.name, self._job.attempt
        conclude(self._gateway, outcome, self._interruptions, self._settings.out_of_contact_limit_s)


def _result(workdir: Path, end: Exit, *, memory_ran_out: bool) -> Outcome:
    result = outcomes.read_result(workdir)
    if result is None:
        return outcomes.failure_of(end, memory_ran_out=memory_ran_out)
    if end.code != 0:
        log.warning("the trainer left a result and then died", exit_code=end.code)
    return result
