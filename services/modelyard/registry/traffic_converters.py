"""Between the wire and the domain for traffic and for what shadow versions did."""

from __future__ import annotations

import re
from dataclasses import asdict

from modelyard.core.errors import Violations
from modelyard.core.names import shorten
from modelyard.v1 import model_pb2

from .shadow_counts import ShadowTotals
from .traffic import MAX_SPLIT, WHOLE, Share, Traffic
from .wire import to_timestamp

_METADATA_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_RESERVED = ("authorization", "te")


def from_traffic(message: model_pb2.Traffic, version: int, path: str) -> Traffic:
    """The traffic of an alias whose own version is `version`; raises InvalidFields with everything that is wrong."""
    violations = Violations()
    split = tuple(
        Share(weighted.version, _parts(violations, f"{path}.split[{index}].percent", weighted.percent))
        for index, weighted in enumerate(message.split)
    )
    _check_split(violations, split, path)
    if message.sticky_key:
        _check_key(violations, f"{path}.sticky_key", message.sticky_key)
    shadow = None
    if message.HasField("shadow"):
        target = message.shadow
        shadow = Share(target.version, _parts(violations, f"{path}.shadow.percent", target.percent or 100))
    traffic = Traffic(split, message.sticky_key, shadow)
    _check_versions(violations, traffic, version, path)
    violations.raise_if_any()
    return traffic


def _parts(violations: Violations, path: str, percent: float) -> int:
    parts = round(percent * WHOLE / 100) if 0 < percent <= 100 else 0
    violations.check(
        bool(parts) and abs(parts * 100 / WHOLE - percent) < 1e-6,
        path,
        f"expected a percentage above 0 and up to 100 in steps of 0.01, got {percent:g}",
    )
    return parts


def _check_split(violations: Violations, split: tuple[Share, ...], path: str) -> None:
    violations.check(
        len(split) <= MAX_SPLIT, f"{path}.split", f"expected at most {MAX_SPLIT} versions, got {len(split)}"
    )
    total = sum(share.parts for share in split)
    violations.check(
        total <= WHOLE, f"{path}.split", f"expected at most 100 percent in all, got {total * 100 / WHOLE:g}"
    )


def _check_key(violations: Violations, path: str, key: str) -> None:
    good = _METADATA_KEY.fullmatch(key) and not key.endswith("-bin") and not key.startswith("grpc-")
    violations.check(
        bool(good) and key not in _RESERVED,
        path,
        "expected a metadata key of at most 63 of a-z 0-9 _ . -, beginning with a letter, that gRPC does not keep for "
        f"itself and that carries text; got {shorten(key)!r}",
    )


def _check_versions(violations: Violations, traffic: Traffic, version: int, path: str) -> None:
    seen = {version}
    places = [f"{path}.split[{index}].version" for index in range(len(traffic.split))] + [f"{path}.shadow.version"]
    for place, number in zip(places, traffic.versions(), strict=False):
        violations.check(number >= 1, place, f"expected 1 or more, got {number}")
        violations.check(
            number not in seen, place, f"expected each version in one place only; {number} is the alias's own or twice"
        )
        seen.add(number)


def to_traffic(traffic: Traffic) -> model_pb2.Traffic | None:
    """As callers see it; None if every request goes to the alias's own version."""
    return None if traffic == Traffic() else to_pods(traffic)


def to_pods(traffic: Traffic) -> model_pb2.Traffic:
    """As pods see it."""
    message = model_pb2.Traffic(sticky_key=traffic.sticky_key)
    for share in traffic.split:
        message.split.add(version=share.version, percent=share.parts * 100 / WHOLE)
    if traffic.shadow is not None:
        message.shadow.version = traffic.shadow.version
        message.shadow.percent = traffic.shadow.parts * 100 / WHOLE
    return message


def to_shadow_report(totals: ShadowTotals) -> model_pb2.ShadowReport:
    """As callers see it."""
    counts = asdict(totals.counts)
    return model_pb2.ShadowReport(
        name=f"models/{totals.model_id}/aliases/{totals.alias}",
        version=totals.version,
        shadow_version=totals.shadow_version,
        update_time=to_timestamp(totals.update_time) if totals.update_time else None,
        **counts,
    )
