"""The cluster that is broken: real programs, each with what can be done to it.

clients ── door ──┬── gateway-1 ─┐
                  ├── gateway-2 ─┼── PostgreSQL (or one gateway on SQLite), Redis
                  └── registry ──┘
worker-N ── a link of its own to the gateways and one to the registry, a clock and a disk of its own
"""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelyard import Client
from modelyard.core.probe import probe as probe_grpc
from modelyard.core.tokens import TokenSigner
from modelyard.local import redis_program
from modelyard.local.keys import Identity, ensure_identity
from modelyard.local.programs import Program
from support.postgres_server import PostgresServer, make_postgres

from .clocks import Clock, build_library
from .disks import Disk
from .keeping import Keeper, KeptProgram
from .links import Link, Network
from .timings import Timings

_DISK_MIB = 96


@dataclass(frozen=True)
class StageOptions:
    """What the cluster consists of."""

    timings: Timings
    postgres: bool = True
    """PostgreSQL and two gateways; otherwise SQLite and one."""
    workers: int = 2
    pod: bool = False
    """An inference pod too."""
    mounts: bool = False
    """Whether workers may get disks of their own by mounting."""


@dataclass
class StagedWorker:
    """A worker program and its surroundings."""

    kept: KeptProgram
    work_dir: Path
    gateway_link: Link
    registry_link: Link
    disk: Disk
    clock: Clock

    @property
    def name(self) -> str:
        """The program's name, which is also its node's."""
        return self.kept.name


@dataclass
class Stage:
    """A cluster that runs."""

    folder: Path
    options: StageOptions
    keeper: Keeper
    identity: Identity
    redis_socket: Path
    broker_url: str
    gateway_database: str
    registry_database: str
    door_address: str
    gateway_addresses: list[str]
    registry_address: str
    clock_library: Path | None
    workers: list[StagedWorker] = field(default_factory=list)

    @property
    def timings(self) -> Timings:
        """How patient it is."""
        return self.options.timings

    @property
    def gateways(self) -> list[KeptProgram]:
        """One or two."""
        return [kept for name, kept in self.keeper.programs.items() if name.startswith("gateway")]

    def program(self, name: str) -> KeptProgram:
        """`redis`, `postgres`, `registry`, `door`, `pod`."""
        return self.keeper.programs[name]

    def client(self, tenant: str, role: str) -> Client:
        """Somebody of this tenant, through the door."""
        return Client(self.door_address, self._token(tenant, role))

    def _token(self, tenant: str, role: str) -> str:
        signer = TokenSigner.from_file(self.identity.signing_key_file)
        return signer.issue(f"chaos-{tenant}", tenant, frozenset({role}), 24 * 3600).secret

    def calm(self) -> None:
        """Everything that was taken away is there again."""
        for kept in self.keeper.programs.values():
            kept.release()
            kept.signal_tree(signal.SIGCONT)
        for worker in self.workers:
            worker.gateway_link.mend()
            worker.registry_link.mend()
            worker.disk.free()

    def wait_until_well(self, timeout_s: float = 120.0) -> None:
        """Returns when every program answers."""
        self.keeper.wait_until_well(self.keeper.programs, timeout_s)


@contextmanager
def running_stage(options: StageOptions, folder: Path) -> Iterator[Stage]:
    """A cluster for the length of a `with`; logs and data stay in `folder`. AssertionError if processes were left."""
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        sockets.chmod(0o755)  # PostgreSQL's socket is in it, and its server is another user's
        keeper, network = Keeper(f"{uuid.uuid4().hex}"), stack.enter_context(Network().running())
        stage = _built(options, folder, sockets, keeper, network)
        try:
            keeper.start()
            stage.wait_until_well()
            yield stage
        finally:
            left = keeper.close()
        assert not left, f"processes were left: {left}"


def _built(options: StageOptions, folder: Path, sockets: Path, keeper: Keeper, network: Network) -> Stage:
    gateway_url, registry_url = _databases(options, folder, sockets, keeper)
    ports = [free_address() for _ in range(5)]
    stage = Stage(
        folder=folder,
        options=options,
        keeper=keeper,
        identity=ensure_identity(folder / "identity"),
        redis_socket=sockets / "redis.sock",
        broker_url=f"redis+socket://{sockets / 'redis.sock'}",
        gateway_database=gateway_url,
        registry_database=registry_url,
        door_address=ports[0],
        gateway_addresses=ports[1:3] if options.postgres else ports[1:2],
        registry_address=ports[3],
        clock_library=build_library(folder),
    )
    _add_redis(stage)
    _add_registry(stage)
    for number, address in enumerate(stage.gateway_addresses, 1):
        _add_gateway(stage, f"gateway-{number}", address)
    _add_door(stage, ports[4])
    if options.pod:
        _add_pod(stage, ports[4], sockets)
    for number in range(1, options.workers + 1):
        _add_worker(stage, f"worker-{number}", network)
    return stage


def _databases(options: StageOptions, folder: Path, sockets: Path, keeper: Keeper) -> tuple[str, str]:
    if not options.postgres:
        return tuple(f"sqlite+aiosqlite:///{folder}/{name}.db" for name in ("gateway", "registry"))  # type: ignore[return-value]
    home = sockets / "pg"
    home.mkdir()
    made = make_postgres(home)
    # It runs as another user, who may not be able to read Python: a leash by util-linux.
    leash = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    server = PostgresServer(home)
    program = Program(
        "postgres", [*leash, *made.command], lambda: "" if server.answers() else "it takes no connections"
    )
    kept = KeptProgram(program, folder / "postgres.log", signal.SIGINT, made.options, is_leashed=False)
    keeper.add(kept)
    kept.tend(keeper.environment)
    keeper.wait_until_well(["postgres"])
    return server.new_database(), server.new_database()


def free_address() -> str:
    """A loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _add_redis(stage: Stage) -> None:
    data = stage.folder / "redis"
    data.mkdir(parents=True)
    command = redis_program.command(redis_program.find_server(), data, stage.redis_socket)
    _add(stage, Program("redis", command, lambda: redis_program.probe(stage.redis_socket)))


def _add_service(
    stage: Stage, name: str, module: str, address: str, settings: dict[str, str], *, service: str = ""
) -> None:
    prefix = f"MODELYARD_{module.upper()}"
    environment = {"LISTEN": address, "TOKEN_KEYS_FILE": str(stage.identity.keys_file), **settings}
    _add(
        stage,
        Program(
            name,
            [sys.executable, "-m", f"modelyard.{module}"],
            lambda: probe_grpc(address, service, timeout_s=1.0),
            {f"{prefix}_{key}": value for key, value in environment.items()},
        ),
    )


def _add_registry(stage: Stage) -> None:
    _add_service(stage, "registry", "registry", stage.registry_address, {
        "DATABASE_URL": stage.registry_database,
        "BLOB_URL": (stage.folder / "blobs").as_uri(),
    })  # fmt: skip
    (stage.folder / "blobs").mkdir()


def _add_gateway(stage: Stage, name: str, address: str) -> None:
    _add_service(stage, name, "gateway", address, {
        "DATABASE_URL": stage.gateway_database,
        "BROKER_URL": stage.broker_url,
        "REGISTRY_ADDRESS": stage.registry_address,
        "SIGNING_KEY_FILE": str(stage.identity.signing_key_file),
        **stage.timings.gateway_environment(),
    }, service="modelyard.v1.TrainingService")  # fmt: skip


def _add_door(stage: Stage, pod_address: str) -> None:
    environment = {
        "LISTEN": stage.door_address,
        "GATEWAY_ADDRESSES": ",".join(stage.gateway_addresses),
        "REGISTRY_ADDRESSES": stage.registry_address,
        "INFERENCE_ADDRESSES": pod_address,  # nobody is there without a pod
        "CONFIG_FILE": str(stage.folder / "envoy.json"),
        "CONCURRENCY": "1",
        "DRAIN_S": "1",
    }
    prefixed = {f"MODELYARD_DOOR_{key}": value for key, value in environment.items()}
    command = [sys.executable, "-m", "modelyard.door"]
    probe = lambda: probe_grpc(stage.door_address, "modelyard.v1.TrainingService", timeout_s=2.0)  # noqa: E731
    _add(stage, Program("door", command, probe, prefixed))


def _add_pod(stage: Stage, address: str, sockets: Path) -> None:
    cache = stage.folder / "pod"
    cache.mkdir()
    _add_service(stage, "pod", "inference", address, {
        "REGISTRY_ADDRESS": stage.registry_address,
        "CACHE_DIR": str(cache),
        "RUN_DIR": str(sockets),
        "TOKEN_FILE": str(stage.identity.token_file("inference")),
    })  # fmt: skip


def _add_worker(stage: Stage, name: str, network: Network) -> None:
    work_dir, ready_file = stage.folder / name, stage.folder / f"{name}.ready"
    links = (
        network.link(f"{name} to the gateways", stage.gateway_addresses),
        network.link(f"{name} to the registry", [stage.registry_address]),
    )
    clock = Clock(stage.folder / f"{name}.clock", stage.clock_library)
    environment = {
        "BROKER_URL": stage.broker_url,
        "GATEWAY_ADDRESS": links[0].address,
        "REGISTRY_ADDRESS": links[1].address,
        "TOKEN_FILE": str(stage.identity.token_file("worker")),
        "WORK_DIR": str(work_dir),
        "READY_FILE": str(ready_file),
        "NODE": name,
        **stage.timings.worker,
    }
    prefixed = {f"MODELYARD_WORKER_{key}": value for key, value in environment.items()}
    program = Program(
        name,
        [sys.executable, "-m", "modelyard_workers"],
        lambda: "" if _is_ready(ready_file, kept) else "it does not hear doorbells",
        {**prefixed, **clock.environment(), "HOME": str(stage.folder)},
    )
    kept = KeptProgram(program, stage.folder / f"{name}.log")
    disk = Disk(work_dir, kept.tree, mount_mib=_DISK_MIB if stage.options.mounts else 0)
    stage.keeper.add(kept)
    stage.workers.append(StagedWorker(kept, work_dir, *links, disk, clock))


def _is_ready(file: Path, kept: KeptProgram) -> bool:
    """The file names the process that wrote it: a killed one leaves it."""
    try:
        return kept.process is not None and int(file.read_text()) == kept.process.pid
    except (OSError, ValueError):
        return False


def _add(stage: Stage, program: Program) -> None:
    stage.keeper.add(KeptProgram(program, stage.folder / f"{program.name}.log"))
