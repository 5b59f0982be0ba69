"""The serving table: which loaded version answers for which name, and why one does not.

A switch replaces the routes in one step of the event loop: a request is answered by the old version or the new one,
never by neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.errors import InvalidFields, ModelyardError, NotFound, Unavailable
from modelyard.core.names import ID, VERSION, shorten

from .desired import WantedModel, WantedTraffic, WantedVersion
from .traffic import Split
from .versions import LoadedVersion

LIVE = "live"
"""The alias of a request without a version."""

RETRY_LOADING_S = 1.0
"""What a caller is advised to wait for a version that is being loaded: most load within a second."""

_NUMBER = re.compile(VERSION)
_ALIAS = re.compile(ID)


@dataclass(slots=True)
class Failure:
    """Why a version could not be loaded."""

    reason: str
    tries: int
    broken: bool = False
    """Whether the version is at fault: no pod could load it."""
    resting: bool = True
    """Until the next try."""


@dataclass(frozen=True, slots=True)
class ShadowRoute:
    """The version in the shadow of an alias."""

    alias: str
    version: LoadedVersion
    percent: float
    """The share of the requests that it is given."""


@dataclass(slots=True)
class ModelEntry:
    """One model: what should be served of it and what is."""

    name: str
    wanted: WantedModel | None = None
    """None: nothing any more."""
    unloaded: bool = False
    """Taken out of service on this pod by request."""
    parked: bool = False
    """Not in memory, to leave room for others; a request has it loaded again."""
    no_room: str = ""
    """Why it could not be loaded again when a request last wanted it."""
    demanded: bool = False
    """A request waits for it."""
    loaded_at: float = 0.0
    """When a version of it was loaded last, in seconds since 1970."""
    loaded: dict[int, LoadedVersion] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    """As they are answered now; during a swap some still point to the version before."""
    load_s: dict[int, float] = field(default_factory=dict)
    """What loading took, by number of the loaded versions."""
    failures: dict[int, Failure] = field(default_factory=dict)
    retiring: set[int] = field(default_factory=set)
    """Versions that only finish what they have."""

    def wanted_versions(self) -> Mapping[int, WantedVersion]:
        """What should be loaded, by number."""
        return {} if self.wanted is None or self.unloaded or self.parked else self.wanted.versions

    @property
    def last_used(self) -> float:
        """When it was loaded, or computed something, last: in seconds since 1970."""
        runs = [version.statistics.last_inference_ms / 1000 for version in self.loaded.values()]
        return max([self.loaded_at, *runs])

    @property
    def memory_bytes(self) -> int:
        """What its loaded versions take."""
        return sum(version.room.size_bytes for version in self.loaded.values())

    def missing(self) -> list[WantedVersion]:
        """What should be loaded and is not, or is in another form: with another digest or another serving config."""
        return [
            version
            for number, version in self.wanted_versions().items()
            if number not in self.loaded or self.loaded[number].wanted.form != version.form
        ]

    def traffic(self) -> Mapping[str, WantedTraffic]:
        """Of the aliases that are answered and have any."""
        wanted = {} if self.wanted is None or self.unloaded or self.parked else self.wanted.traffic
        return {alias: traffic for alias, traffic in wanted.items() if alias in self.aliases}

    def split(self, alias: str, traffic: WantedTraffic) -> Split | None:
        """Who answers for an answered alias with this traffic, if that is more than one version."""
        if not traffic.split or self.wanted is None:
            return None
        own = self.loaded[self.aliases[alias]]
        return Split.of(f"{self.name}/{alias}", self.wanted.aliases[alias], own, traffic, self.loaded)

    def shadow(self, alias: str, traffic: WantedTraffic) -> ShadowRoute | None:
        """The alias's shadow, if it is loaded."""
        number, percent = traffic.shadow or (0, 0.0)
        return ShadowRoute(alias, self.loaded[number], percent) if number in self.loaded else None

    def switch(self) -> list[LoadedVersion]:
        """Points every alias to its version if that is loaded, and leaves it where it is until then.

        Takes out of `loaded`, and answers, what is no longer needed.
        """
        wanted = self.wanted_versions()
        aliases = self.wanted.aliases if self.wanted is not None and wanted else {}
        answering = {alias: self._answering(alias, number) for alias, number in aliases.items()}
        self.aliases = {alias: number for alias, number in answering.items() if number}
        needed = {*wanted, *self.aliases.values()}
        leaving = [self.loaded.pop(number) for number in sorted(self.loaded) if number not in needed]
        for version in leaving:
            self.load_s.pop(version.wanted.number, None)
        return leaving

    def _answering(self, alias: str, number: int) -> int:
        """What answers for an alias that should point to `number`: that if loaded, else what did until now, else 0."""
        return number if number in self.loaded else self.aliases.get(alias, 0)


class ServingTable:
    """All models of the pod. Changed by the reconciler, read by everybody, in the event loop."""

    def __init__(self) -> None:
        self.models: dict[str, ModelEntry] = {}
        self.known = False
        """Whether the pod knows what it should serve, from the registry or from its copy."""
        self.confirmed = False
        """Whether the registry itself has said so since the pod started."""
        self.shadows: Mapping[tuple[str, str], ShadowRoute] = {}
        """By model and name of the version, as a request says them. Empty as a rule."""
        self._routes: dict[tuple[str, str], LoadedVersion] = {}
        self._splits: dict[tuple[str, str], Split] = {}

    def resolve(self, model: str, version: str, field_name: str = "model_version") -> LoadedVersion:
        """The version that answers for this name. `version`: empty for `live`, a number, or an alias.

        Raises NotFound, Unavailable while it is being loaded, or InvalidFields for `field_name`.
        """
        loaded = self._routes.get((model, version))
        if loaded is None:
            raise self._explain(model, version, field_name)
        return loaded

    def only(self, model: str, version: str) -> LoadedVersion | None:
        """What answers every request for this name; None where that is not one version, loaded and without a shadow."""
        name = model, version
        return None if name in self._splits or name in self.shadows else self._routes.get(name)

    def choose(self, model: str, version: str, metadata: Mapping[str, str | bytes]) -> LoadedVersion:
        """The version that answers a call with this metadata: another than `resolve`'s where the alias has a split.

        Raises as `resolve` does.
        """
        if self._splits:
            split = self._splits.get((model, version))
            if split is not None:
                return split.choose(metadata)
        return self.resolve(model, version)

    def ready(self, model: str, version: str = "") -> bool:
        """Whether a request would be answered: at once, or when a model that was unloaded to save memory is back."""
        return (model, version) in self._routes or self.is_parked(model, version)

    def is_parked(self, model: str, version: str = "") -> bool:
        """Whether a request has to wait until this model is loaded again."""
        entry = self.models.get(model)
        if entry is None or not entry.parked or entry.wanted is None:
            return False
        return (version or LIVE) in entry.wanted.aliases or version in map(str, entry.wanted.versions)

    def publish(self) -> None:
        """Makes what the entries say take effect for the next request."""
        routes: dict[tuple[str, str], LoadedVersion] = {}
        splits: dict[tuple[str, str], Split] = {}
        shadows: dict[tuple[str, str], ShadowRoute] = {}
        for model in self.models.values():
            for number, version in model.loaded.items():
                routes[model.name, str(number)] = version
            for alias, number in model.aliases.items():
                for name in _names_of(alias):
                    routes[model.name, name] = model.loaded[number]
            for alias, traffic in model.traffic().items():
                split, shadow = model.split(alias, traffic), model.shadow(alias, traffic)
                for name in _names_of(alias):
                    if split is not None:
                        splits[model.name, name] = split
                    if shadow is not None:
                        shadows[model.name, name] = shadow
        self._routes, self._splits, self.shadows = routes, splits, shadows

    def _explain(self, model: str, version: str, field_name: str) -> ModelyardError:
        """Why there is no answer for this name."""
        entry = self.models.get(model)
        name = f"models/{shorten(model)}"
        if not self.known:
            return Unavailable("this pod does not know yet what it should serve", retry_after=RETRY_LOADING_S)
        if entry is None and not self.confirmed:
            text = f"{name} is not in what this pod served before it restarted, and the registry is away"
            return Unavailable(text, retry_after=RETRY_LOADING_S)
        if entry is None or entry.wanted is None:
            how = "is not served: there is no such model, or no alias leads to a version of it"
            return NotFound.resource(name, how)
        if entry.unloaded:
            return NotFound.resource(name, "is unloaded on this pod")
        if self.is_parked(model, version):
            reason = entry.no_room or "it was unloaded to save memory, and is loaded on demand"
            return Unavailable(f"{name} is not in memory: {reason}", retry_after=RETRY_LOADING_S)
        return _explain_version(entry, entry.wanted, version, field_name)


def _names_of(alias: str) -> tuple[str, ...]:
    """How a request may name the version that this alias points to."""
    return (alias, "") if alias == LIVE else (alias,)


def _explain_version(entry: ModelEntry, wanted: WantedModel, version: str, field_name: str) -> ModelyardError:
    """The same for a model that is served."""
    check_version_form(version, field_name)
    if _NUMBER.fullmatch(version):
        number, name = int(version), f"models/{entry.name}/versions/{version}"
    else:
        alias = version or LIVE
        number, name = wanted.aliases.get(alias, 0), f"models/{entry.name}/aliases/{alias}"
    if number in wanted.versions:
        return _not_loaded(wanted.versions[number], entry.failures.get(number))
    if version and not _NUMBER.fullmatch(version):
        known = ", ".join(sorted(wanted.aliases)) or "none"
        return InvalidFields.one(
            field_name, f"expected a version number or an alias of the model ({known}); got {version!r}"
        )
    why = "no alias of the model leads to it" if version else "the model has no such alias"
    return NotFound.resource(name, f"is not served: {why}")


def _not_loaded(version: WantedVersion, failure: Failure | None) -> Unavailable:
    if failure is None:
        return Unavailable(f"{version} is being loaded", retry_after=RETRY_LOADING_S)
    return Unavailable(f"{version} cannot be loaded: {failure.reason}; it is tried again", retry_after=RETRY_LOADING_S)


def check_version_form(version: str, field_name: str) -> None:
    """Raises InvalidFields for what can be neither a version number nor an alias."""
    if version and not _NUMBER.fullmatch(version) and not _ALIAS.fullmatch(version):
        raise InvalidFields.one(field_name, f"expected nothing, a version number or an alias; got {shorten(version)!r}")
