"""How patient the cluster is: as it comes, or scaled down so that much can go wrong in a short time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timings:
    """Settings that make time pass faster, and what the faults need to know of them."""

    name: str
    lease_s: float
    report_interval_s: float
    gateway: Mapping[str, str] = field(default_factory=dict)
    """Environment without the prefix; beside the lease and the report interval."""
    worker: Mapping[str, str] = field(default_factory=dict)

    def gateway_environment(self) -> dict[str, str]:
        """What the gateway is told; nothing where it is the default."""
        if self is DEFAULT:
            return {}
        return {"LEASE_S": str(self.lease_s), "REPORT_INTERVAL_S": str(self.report_interval_s), **self.gateway}


DEFAULT = Timings("default", lease_s=45.0, report_interval_s=10.0)
"""What somebody gets who sets nothing."""

SHORT = Timings(
    "short",
    lease_s=6.0,
    report_interval_s=1.5,
    gateway={
        "REAP_INTERVAL_S": "1",
        "RING_AGAIN_S": "5",
        "INFRASTRUCTURE_RETRIES": "1000",
        "RETRY_DELAY_S": "0.5",
        "NODE_EXCLUSION_S": "15",
        "CHECKPOINT_RETENTION_S": "5",
        "CHECKPOINT_REMOVAL_INTERVAL_S": "1",
    },
    worker={"TRAINER_GRACE_S": "5", "CHECKPOINT_INTERVAL_S": "1", "CHECKPOINT_UPLOAD_S": "5"},
)
"""About an eighth of everything. The number of retries is unbounded in effect: faults come by the dozen a minute, and
the right end of a good job is to succeed however often it was hit."""
