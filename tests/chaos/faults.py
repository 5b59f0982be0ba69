"""What can go wrong: each fault is a function that lasts as long as the fault does, and mends what is its to mend.

What a fault hits, for how long and how, is drawn from the chance that it is given. Programs that end are started again
by their keeper, as a service manager does.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
import redis

from modelyard.core.doorbell import DEFAULT_QUEUE
from support.worker_program import ring

from . import rows
from .callers import Callers
from .keeping import KeptProgram
from .links import Link
from .stage import Stage, StagedWorker

_CANCELLED_SHARE = 0.1
_TRY_AGAIN = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "WRONG_STATE"}
"""Of a resumption: nobody was there to hear it, or the job is still stopping."""
_HELD = "SELECT id, attempt, state, worker FROM jobs WHERE lease_until IS NOT NULL"


@dataclass(frozen=True)
class Held:
    """A job as a worker held it when a fault struck."""

    job: str
    attempt: int
    state: str
    worker: str
    """`host/process`."""

    @property
    def pid(self) -> int:
        """The worker's process."""
        return int(self.worker.rpartition("/")[2])


@dataclass
class Strike:
    """A fault that happened."""

    fault: str
    target: str = ""
    time: float = 0.0
    """Of the blow itself, seconds since 1970."""
    seconds: float = 0.0
    """How long it lasted."""
    note: str = ""
    hit: list[Held] = field(default_factory=list)
    """The jobs that the fault took from their worker."""
    broken_promise: str = ""
    """What did not hold although this fault alone must not break it."""


@dataclass
class Scene:
    """Where faults happen."""

    stage: Stage
    callers: Callers
    closing: threading.Event = field(default_factory=threading.Event)

    def sleep(self, seconds: float) -> None:
        """Lasts, unless the run ends."""
        self.closing.wait(seconds)

    def held(self) -> list[Held]:
        """The jobs that workers hold; none if the database is away."""
        try:
            return [
                Held(row.id, row.attempt, row.state, row.worker)
                for row in rows.select(self.stage.gateway_database, _HELD)
            ]
        except rows.DatabaseAway:
            return []

    def held_by(self, worker: StagedWorker) -> list[Held]:
        """Those of one worker program."""
        pids = {process.pid for process in worker.kept.tree()}
        return [held for held in self.held() if held.pid in pids]


Hit = Callable[[Scene, random.Random, Strike], None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    weight: int
    """How often it comes, relative to the others."""
    strike: Hit
    possible: Callable[[Stage], bool] = lambda _stage: True


def _busy_worker(scene: Scene, chance: random.Random, strike: Strike) -> StagedWorker:
    """One that holds a job, if any does; notes what it holds."""
    order = chance.sample(scene.stage.workers, len(scene.stage.workers))
    worker = next((one for one in order if scene.held_by(one)), order[0])
    strike.target, strike.hit, strike.time = worker.name, scene.held_by(worker), time.time()
    return worker


def _any_worker(scene: Scene, chance: random.Random, strike: Strike) -> StagedWorker:
    worker = chance.choice(scene.stage.workers)
    strike.target = worker.name
    return worker


def kill_worker(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGKILL to a worker's main process; pool and trainer are to notice by themselves."""
    worker = _busy_worker(scene, chance, strike)
    worker.kept.end(signal.SIGKILL, down_s=chance.uniform(0.5, 3))


def kill_pool_process(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGKILL to the process that supervises the trainer."""
    _busy_worker(scene, chance, strike)
    for held in strike.hit[:1]:
        _kill(held.pid)


def kill_trainer(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGKILL to the trainer alone: what a memory limit does."""
    worker = _busy_worker(scene, chance, strike)
    trainers = [process for process in worker.kept.tree() if "modelyard_workers.trainer" in _command(process)]
    for trainer in trainers:
        _kill(trainer.pid)


def drain_worker(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGTERM to a worker, as when its node is drained; another starts in its place."""
    worker = _busy_worker(scene, chance, strike)
    worker.kept.end(signal.SIGTERM, down_s=chance.uniform(0.5, 3))


def freeze_worker(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGSTOP to a worker and its trainer until well past the lease, then SIGCONT: it wakes up as a stale attempt."""
    worker = _busy_worker(scene, chance, strike)
    frozen = worker.kept.signal_tree(signal.SIGSTOP)
    scene.sleep(scene.stage.timings.lease_s * chance.uniform(1.4, 2.2))
    for process in frozen:
        _signal(process, signal.SIGCONT)


def fill_disk(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """A worker's disk is full for a while."""
    worker = _busy_worker(scene, chance, strike)
    strike.note = "a file system of its own" if worker.disk.is_mounted else "a limit on file sizes"
    strike.hit = []
    worker.disk.fill()
    scene.sleep(chance.uniform(2, 8))
    worker.disk.free()


def set_clock(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """A worker's clock jumps by five minutes, and stays there until the next time."""
    worker = _any_worker(scene, chance, strike)
    offset = chance.choice((-300, 300, 0))
    strike.note = f"{offset:+d} s"
    worker.clock.set(offset)


def _link(scene: Scene, chance: random.Random, strike: Strike) -> Link:
    worker = _busy_worker(scene, chance, strike)
    strike.hit = []
    return chance.choices((worker.gateway_link, worker.registry_link), (3, 1))[0]


def cut_link(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """The connection between a worker and the gateways (or the registry) breaks, at times for longer than the lease."""
    link = _link(scene, chance, strike)
    seconds = scene.stage.timings.lease_s * chance.choice((0.1, 0.5, 1.6))
    strike.target = link.name
    link.cut()
    scene.sleep(seconds)
    link.mend()


def stall_link(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """The same connection goes silent and breaks nothing."""
    link = _link(scene, chance, strike)
    seconds = scene.stage.timings.lease_s * chance.choice((0.5, 1.6))
    strike.target = link.name
    link.stall()
    scene.sleep(seconds)
    link.mend()


def flush_redis(scene: Scene, _chance: random.Random, strike: Strike) -> None:
    """FLUSHALL: every doorbell is gone."""
    strike.target = "redis"
    try:
        with redis.Redis(unix_socket_path=str(scene.stage.redis_socket)) as client:
            strike.note = f"{client.llen(DEFAULT_QUEUE)} doorbells"
            client.flushall()
    except redis.RedisError as error:
        strike.note = type(error).__name__


def kill_redis(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGKILL to Redis, away for a moment."""
    _end(scene, chance, strike, scene.stage.program("redis"), signal.SIGKILL)


def double_doorbells(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """Every doorbell comes twice more, those of jobs that run or have ended too, and some that mean nothing."""
    names = [job.name for job in scene.callers.jobs]
    chosen = chance.sample(names, min(6, len(names))) + [job.name for job in scene.callers.unfinished()]
    strike.target = "redis"
    try:
        for name in [*chosen, *chosen, "trainingJobs/nobody", "../../etc/passwd"]:
            ring(scene.stage.broker_url, name, retry=False)
            strike.note = f"{len(chosen) * 2 + 2} sent"
    except Exception as error:  # noqa: BLE001 - the broker may be away, and kombu has many names for that
        strike.note = type(error).__name__


def kill_gateway(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGKILL to a gateway."""
    _end(scene, chance, strike, chance.choice(scene.stage.gateways), signal.SIGKILL)


def restart_gateway(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGTERM to a gateway, as in a rolling update."""
    _end(scene, chance, strike, chance.choice(scene.stage.gateways), signal.SIGTERM)


def freeze_gateway(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGSTOP to a gateway for a while, with whatever locks and calls it holds."""
    gateway = chance.choice(scene.stage.gateways)
    strike.target = gateway.name
    frozen = gateway.signal_tree(signal.SIGSTOP)
    scene.sleep(chance.uniform(1, scene.stage.timings.lease_s))
    for process in frozen:
        _signal(process, signal.SIGCONT)


def kill_registry(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGKILL to the registry."""
    _end(scene, chance, strike, scene.stage.program("registry"), signal.SIGKILL)


def restart_registry(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """SIGTERM to the registry."""
    _end(scene, chance, strike, scene.stage.program("registry"), signal.SIGTERM)


def restart_database(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """PostgreSQL restarts: stopped at once (SIGQUIT), in order (SIGINT), or killed."""
    number = chance.choice((signal.SIGQUIT, signal.SIGINT, signal.SIGKILL))
    _end(scene, chance, strike, scene.stage.program("postgres"), number)


def cancel_job(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """A caller cancels one of the unfinished jobs."""
    jobs = scene.callers.unfinished()
    if not jobs or sum(job.cancel_asked for job in scene.callers.jobs) > len(scene.callers.jobs) * _CANCELLED_SHARE:
        strike.note = "nobody wanted to"
        return
    job = chance.choice(jobs)
    strike.target, strike.note = job.name, scene.callers.cancel(job)


def pause_job(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """A caller pauses one of the unfinished jobs, and resumes it after a while."""
    jobs = scene.callers.unfinished()
    if not jobs:
        strike.note = "no job"
        return
    job = chance.choice(jobs)
    strike.target, strike.note = job.name, scene.callers.pause(job)
    scene.sleep(chance.uniform(1, 8))
    while not scene.closing.is_set() and scene.callers.resume(job) in _TRY_AGAIN:
        scene.sleep(0.5)


def preempt_job(scene: Scene, chance: random.Random, strike: Strike) -> None:
    """A caller takes the worker of one of the jobs away."""
    held = {one.job for one in scene.held()}
    jobs = [job for job in scene.callers.unfinished() if job.id in held]
    if not jobs:
        strike.note = "no job is held"
        return
    job = chance.choice(jobs)
    strike.target, strike.note = job.name, scene.callers.preempt(job)


def outage(scene: Scene, _chance: random.Random, strike: Strike) -> None:
    """All gateways are away for twice the lease; whoever trains goes on and keeps the job. It comes alone."""
    stage = scene.stage
    before = {held.job: held for held in scene.held() if held.state in ("PREPARING", "RUNNING")}
    alive = {process.pid for worker in stage.workers for process in worker.kept.tree()}
    strike.target, strike.time = "all gateways", time.time()
    for gateway in stage.gateways:
        gateway.hold()
    scene.sleep(2 * stage.timings.lease_s)
    for gateway in stage.gateways:
        gateway.release()
    stage.keeper.wait_until_well([gateway.name for gateway in stage.gateways])
    scene.sleep(stage.timings.lease_s * 1.5)
    after = rows.pairs(stage.gateway_database, "SELECT id, attempt FROM jobs")
    kept = [job for job, held in before.items() if held.pid in alive]
    lost = [job for job in kept if after[job] != before[job].attempt]
    strike.note = f"{len(kept) - len(lost)} of {len(kept)} attempts kept"
    if lost:
        strike.broken_promise = f"a gateway that was away took the job from a worker that lives: {lost}"


def _end(scene: Scene, chance: random.Random, strike: Strike, program: KeptProgram, number: signal.Signals) -> None:
    strike.target, strike.note = program.name, number.name
    down_s = chance.uniform(0, 3)
    program.end(number, down_s=down_s)
    scene.sleep(down_s)


def _kill(pid: int) -> None:
    try:
        psutil.Process(pid).kill()
    except psutil.NoSuchProcess:
        return


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _has_postgres(stage: Stage) -> bool:
    return stage.options.postgres


FAULTS = (
    Fault("worker killed", 3, kill_worker),
    Fault("pool process killed", 2, kill_pool_process),
    Fault("trainer killed", 3, kill_trainer),
    Fault("worker drained", 2, drain_worker),
    Fault("worker frozen past its lease", 2, freeze_worker),
    Fault("worker's disk full", 2, fill_disk),
    Fault("worker's clock set", 2, set_clock, lambda stage: stage.clock_library is not None),
    Fault("link cut", 2, cut_link),
    Fault("link silent", 2, stall_link),
    Fault("Redis flushed", 2, flush_redis),
    Fault("Redis killed", 1, kill_redis),
    Fault("doorbells doubled", 2, double_doorbells),
    Fault("gateway killed", 2, kill_gateway),
    Fault("gateway restarted", 1, restart_gateway),
    Fault("gateway frozen", 1, freeze_gateway),
    Fault("registry killed", 1, kill_registry),
    Fault("registry restarted", 1, restart_registry),
    Fault("PostgreSQL restarted", 1, restart_database, _has_postgres),
    Fault("job cancelled", 3, cancel_job),
    Fault("job paused and resumed", 2, pause_job),
    Fault("job preempted", 2, preempt_job),
)
"""All of them; a long run sees each many times."""

OUTAGE = Fault("gateways away for two leases", 0, outage)
"""Comes once, alone."""
