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

from .desired import WantedModel, WantedVersion
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
    resting: bool = True
    """Until the next try."""


@dataclass(slots=True)
class ModelEntry:
    """One model: what should be served of it and what is."""

    name: str
    wanted: WantedModel | None = None
    """None: nothing any more."""
    unloaded: bool = False
    """Taken out of service on this pod by request."""
    loaded: dict[int, LoadedVersion] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    """As they are answered now; during a swap some still point to the version before."""
    failures: dict[int, Failure] = field(default_factory=dict)
    retiring: set[int] = field(default_factory=set)
    """Versions that only finish what they have."""

    def wanted_versions(self) -> Mapping[int, WantedVersion]:
        """What should be loaded, by number."""
        return {} if self.wanted is None or self.unloaded else self.wanted.versions

    def missing(self) -> list[WantedVersion]:
        """What should be loaded and is not, or is in another form: with another digest or another serving config."""
        return [
            version
            for number, version in self.wanted_versions().items()
            if number not in self.loaded or self.loaded[number].wanted.form != version.form
        ]

    def switch(self) -> list[LoadedVersion]:
        """Points every alias to its version if that is loaded, and leaves it where it is until then.

        Takes out of `loaded`, and answers, what is no longer needed.
        """
        wanted = self.wanted_versions()
        aliases = self.wanted.aliases if self.wanted is not None and wanted else {}
        answering = {alias: self._answering(alias, number) for alias, number in aliases.items()}
        self.aliases = {alias: number for alias, number in answering.items() if number}
        needed = {*wanted, *self.aliases.values()}
        return [self.loaded.pop(number) for number in sorted(self.loaded) if number not in needed]

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
        self._routes: dict[tuple[str, str], LoadedVersion] = {}

    def resolve(self, model: str, version: str, field_name: str = "model_version") -> LoadedVersion:
        """The version that answers for this name. `version`: empty for `live`, a number, or an alias.

        Raises NotFound, Unavailable while it is being loaded, or InvalidFields for `field_name`.
        """
        loaded = self._routes.get((model, version))
        if loaded is None:
            raise self._explain(model, version, field_name)
        return loaded

    def ready(self, model: str, version: str = "") -> bool:
        """Whether `resolve` would answer."""
        return (model, version) in self._routes

    def publish(self) -> None:
        """Makes what the entries say take effect for the next request."""
        routes: dict[tuple[str, str], LoadedVersion] = {}
        for model in self.models.values():
            for number, version in model.loaded.items():
                routes[model.name, str(number)] = version
            for alias, number in model.aliases.items():
                routes[model.name, alias] = model.loaded[number]
            if LIVE in model.aliases:
                routes[model.name, ""] = model.loaded[model.aliases[LIVE]]
        self._routes = routes

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
            return NotFound.resource(name)
        if entry.unloaded:
            return NotFound(f"{name} is unloaded on this pod", metadata={"resource": name})
        return _explain_version(entry, entry.wanted, version, field_name)


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
    return NotFound.resource(name)


def _not_loaded(version: WantedVersion, failure: Failure | None) -> Unavailable:
    if failure is None:
        return Unavailable(f"{version} is being loaded", retry_after=RETRY_LOADING_S)
    return Unavailable(f"{version} cannot be loaded: {failure.reason}; it is tried again", retry_after=RETRY_LOADING_S)


def check_version_form(version: str, field_name: str) -> None:
    """Raises InvalidFields for what can be neither a version number nor an alias."""
    if version and not _NUMBER.fullmatch(version) and not _ALIAS.fullmatch(version):
        raise InvalidFields.one(field_name, f"expected nothing, a version number or an alias; got {shorten(version)!r}")
