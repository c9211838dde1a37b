"""The index versions of a store, one for each embedding model, and which of them readers use. Pure.

They are stored in the store's meta, which every writer and reader reads. Each step of a migration is one idempotent change of
them. A store that was never migrated has no list of them: its one index version follows from the facts in its meta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from schemas.errors import ConfigurationError

FIRST = 1
"""The number of a store's first index version."""

type State = Literal["creating", "filling", "filled", "ready", "dropping"]
"""`creating`: its tables may be missing, nobody writes. `filling`: live writes go to it, and the lake is backfilled into it.
`filled`: the backfill is done, and documents that the lake lacks are copied. `ready`: it is complete, readers may use it.
`dropping`: nobody writes, its tables may be gone."""

UNDER_WAY: frozenset[State] = frozenset({"creating", "filling", "filled"})
_WRITTEN: frozenset[State] = frozenset({"filling", "filled", "ready"})


@dataclass(frozen=True, slots=True)
class BulkLoad:
    """A load whose vector index is built once, at its end."""

    by: str
    """Who began it: a job or a command."""
    since_us: int
    """When, in microseconds since the epoch."""
    expected: int | None = None
    """Vectors of the index version when it ends; None: not known."""
    renewed_us: int | None = None
    """When the command that began it was last seen at work; None for a load that ends once the streams have been read."""


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """A store's copy for one embedding model."""

    number: int
    """Part of its tables' names; never used again."""
    fingerprint: str
    dimensions: int
    state: State = "ready"
    embedding: Mapping[str, Any] | None = None
    """The model's configuration without secrets; None before a first migration."""
    calibration: Mapping[str, Any] | None = None
    """Thresholds and weights that were measured with this model on labelled questions; None before."""
    bulk_load: BulkLoad | None = None
    """The load that is under way: the store's vector index may be missing until it ends."""


@dataclass(frozen=True, slots=True)
class IndexVersions:
    """All index versions of a store, and the active one. Every change returns a new value and is idempotent."""

    active_number: int
    every: tuple[IndexVersion, ...]
    last: int = 0
    """The highest number ever used."""

    @property
    def active(self) -> IndexVersion:
        """The one that readers use."""
        return self.numbered(self.active_number)

    @property
    def written(self) -> tuple[IndexVersion, ...]:
        """The ones that live writes go to, the active one last: whatever is searchable is in the others too."""
        written = [version for version in self.every if version.state in _WRITTEN]
        return tuple(sorted(written, key=lambda version: (version.number == self.active_number, version.number)))

    def numbered(self, number: int) -> IndexVersion:
        """The one of that number."""
        return next(version for version in self.every if version.number == number)

    def bulk_load_of(self, number: int) -> BulkLoad | None:
        """The bulk load that is under way in the one of that number; None without one, or without that one."""
        return next((version.bulk_load for version in self.every if version.number == number), None)

    def of(self, fingerprint: str) -> IndexVersion | None:
        """The one of that model; None if there is none, or it is being dropped."""
        return next((v for v in self.every if v.fingerprint == fingerprint and v.state != "dropping"), None)

    def announced(self, fingerprint: str, dimensions: int, embedding: Mapping[str, Any]) -> IndexVersions:
        """A copy with a new index version for that model, unless there is one."""
        if self.of(fingerprint) is not None:
            return self
        number = self._last() + 1
        new = IndexVersion(number, fingerprint, dimensions, "creating", dict(embedding))
        return replace(self, every=(*self.every, new), last=number)

    def with_embedding(self, fingerprint: str, embedding: Mapping[str, Any]) -> IndexVersions:
        """A copy with the model's configuration, so that pipelines of another model can open it."""
        return self._with(fingerprint, embedding=dict(embedding))

    def calibrated(self, fingerprint: str, calibration: Mapping[str, Any] | None) -> IndexVersions:
        """A copy with what was measured with that model; None takes it away. Unchanged if the store has no such model."""
        return self if self.of(fingerprint) is None else self._with(fingerprint, calibration=calibration)

    def loading(self, fingerprint: str, load: BulkLoad | None) -> IndexVersions:
        """A copy with the bulk load of that model's index version; None ends it."""
        return self._with(fingerprint, bulk_load=load)

    def reached(self, fingerprint: str, state: State) -> IndexVersions:
        """A copy with that model's index version in a state; the active one stays `ready`."""
        version = self.of(fingerprint)
        return self if version is None or version.number == self.active_number else self._with(fingerprint, state=state)

    def switched(self, fingerprint: str) -> IndexVersions:
        """A copy with that model's index version active.

        Raises:
            ConfigurationError: it is missing or incomplete.
        """
        version = self.of(fingerprint)
        if version is None or version.state != "ready":
            raise ConfigurationError(
                f"the index version of {fingerprint} is not ready", condition="GENERATION_NOT_READY",
                hint="run `ragstream migrate` again; it goes on where it stopped",
            )  # fmt: skip
        return replace(self, active_number=version.number)

    def without(self, number: int) -> IndexVersions:
        """A copy without one whose tables are gone."""
        return replace(self, every=tuple(v for v in self.every if v.number != number), last=self._last())

    def _with(self, fingerprint: str, **changes: Any) -> IndexVersions:
        version = self.of(fingerprint)
        return replace(self, every=tuple(replace(v, **changes) if v is version else v for v in self.every))

    def _last(self) -> int:
        return max([self.last, *(version.number for version in self.every)])


def first(fingerprint: str, dimensions: int) -> IndexVersions:
    """The index versions of a store that was never migrated."""
    return IndexVersions(FIRST, (IndexVersion(FIRST, fingerprint, dimensions),), FIRST)


def of_facts(facts: Mapping[str, Any]) -> IndexVersions:
    """The index versions of a store that was never migrated, from its meta."""
    return first(str(facts.get("fingerprint") or ""), int(facts.get("dimensions") or 0))


def to_json(index_versions: IndexVersions) -> dict[str, Any]:
    """The JSON value that is stored."""
    return {
        "serving": index_versions.active_number,
        "last": index_versions.last,
        "every": [_stored(version) for version in index_versions.every],
    }


_LATER = ("calibration", "bulk_load")
"""Fields that an earlier release does not know: it reads a value without them."""


def _stored(version: IndexVersion) -> dict[str, Any]:
    """Its JSON value, without the later fields where they say nothing."""
    return {name: value for name, value in asdict(version).items() if value is not None or name not in _LATER}


def from_json(stored: Mapping[str, Any]) -> IndexVersions:
    """The inverse of `to_json`."""
    return IndexVersions(stored["serving"], tuple(map(_restored, stored["every"])), stored["last"])


def _restored(fields: Mapping[str, Any]) -> IndexVersion:
    load = fields.get("bulk_load")
    return IndexVersion(**{**fields, "bulk_load": BulkLoad(**load) if load else None})
