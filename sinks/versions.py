"""Index versions of a store: one for each embedding model it is, or was, filled with, and which of them readers use. Pure.

They stand in the store's own meta, where every writer and reader finds them; each step of a migration is one change of them,
and a change made twice is made once. A store whose meta does not tell of any has one, told by its facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from schemas.errors import ConfigurationError

FIRST = 1
"""The number of a store's first index version."""

type State = Literal["creating", "filling", "filled", "ready", "dropping"]
"""`creating`: its tables may be missing, nobody writes. `filling`: live writes go to it, what was before is being brought in
from the lake. `filled`: that is done, what the lake lacks is brought over. `ready`: it holds all, readers may use it.
`dropping`: nobody writes, its tables may be gone."""

UNDER_WAY: frozenset[State] = frozenset({"creating", "filling", "filled"})
_WRITTEN: frozenset[State] = frozenset({"filling", "filled", "ready"})


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """What one model filled."""

    number: int
    """In the names of its tables; never used again."""
    fingerprint: str
    dimensions: int
    state: State = "ready"
    embedding: Mapping[str, Any] | None = None
    """The model's configuration without secrets; None for one that no migration has told of."""


@dataclass(frozen=True, slots=True)
class IndexVersions:
    """All index versions of a store, and the one that readers use."""

    active_number: int
    every: tuple[IndexVersion, ...]
    last: int = 0
    """The highest number ever given."""

    @property
    def active(self) -> IndexVersion:
        """The one that readers use."""
        return self.numbered(self.active_number)

    @property
    def written(self) -> tuple[IndexVersion, ...]:
        """Those that live writes go to, the one that readers use last: what can be found there stands in the others."""
        wanted = [each for each in self.every if each.state in _WRITTEN]
        return tuple(sorted(wanted, key=lambda each: (each.number == self.active_number, each.number)))

    def numbered(self, number: int) -> IndexVersion:
        """The one of that number."""
        return next(each for each in self.every if each.number == number)

    def of(self, fingerprint: str) -> IndexVersion | None:
        """The one that model fills; None where there is none, or it is going."""
        return next((each for each in self.every if each.fingerprint == fingerprint and each.state != "dropping"), None)

    def announced(self, fingerprint: str, dimensions: int, embedding: Mapping[str, Any]) -> IndexVersions:
        """With an index version for that model, unless there is one."""
        if self.of(fingerprint) is not None:
            return self
        number = max([self.last, *(each.number for each in self.every)]) + 1
        new = IndexVersion(number, fingerprint, dimensions, "creating", dict(embedding))
        return replace(self, every=(*self.every, new), last=number)

    def told(self, fingerprint: str, embedding: Mapping[str, Any]) -> IndexVersions:
        """With that model's configuration beside its index version, so that whoever knows another model can use it."""
        return self._with(fingerprint, embedding=dict(embedding))

    def reached(self, fingerprint: str, state: State) -> IndexVersions:
        """With that model's index version in a state; the one that readers use stays ready."""
        mine = self.of(fingerprint)
        return self if mine is None or mine.number == self.active_number else self._with(fingerprint, state=state)

    def switched(self, fingerprint: str) -> IndexVersions:
        """With readers on that model's index version.

        Raises:
            ConfigurationError: there is none that holds everything.
        """
        mine = self.of(fingerprint)
        if mine is None or mine.state != "ready":
            raise ConfigurationError(
                f"the index version of {fingerprint} is not ready", condition="GENERATION_NOT_READY",
                hint="run `ragstream migrate` again; it goes on where it stopped",
            )  # fmt: skip
        return replace(self, active_number=mine.number)

    def without(self, number: int) -> IndexVersions:
        """Without one whose tables are gone."""
        kept = tuple(each for each in self.every if each.number != number)
        return replace(self, every=kept, last=max([self.last, *(each.number for each in self.every)]))

    def _with(self, fingerprint: str, **changes: Any) -> IndexVersions:
        mine = self.of(fingerprint)
        return replace(self, every=tuple(replace(e, **changes) if e is mine else e for e in self.every))


def first(fingerprint: str, dimensions: int) -> IndexVersions:
    """The index versions of a store that was never migrated."""
    return IndexVersions(FIRST, (IndexVersion(FIRST, fingerprint, dimensions),), FIRST)


def of_facts(facts: Mapping[str, Any]) -> IndexVersions:
    """The index versions of a store that was never migrated, as its meta tells of its model."""
    return first(str(facts.get("fingerprint") or ""), int(facts.get("dimensions") or 0))


def to_json(index_versions: IndexVersions) -> dict[str, Any]:
    """As plain JSON, for a meta."""
    return {
        "serving": index_versions.active_number,
        "last": index_versions.last,
        "every": [asdict(g) for g in index_versions.every],
    }


def from_json(told: Mapping[str, Any]) -> IndexVersions:
    """What `plain` gave."""
    return IndexVersions(told["serving"], tuple(IndexVersion(**each) for each in told["every"]), told["last"])
