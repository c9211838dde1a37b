"""The schemas of a registry by id, as this process knows them: asked for once, and remembered.

A schema is immutable and its id names it for ever, so what is remembered never grows stale. An id that the registry does not
have is asked for again later: a registry's replica may lag behind the one that the serializer wrote to.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, assert_never

from schemas.errors import ConfigurationError, UnavailableError
from sources.registry.config import ConfluentRegistryConfig, GlueRegistryConfig, RegistryConfig
from transforms.envelopes.registry import RegisteredSchema, RegistryKind

MOST_SCHEMAS = 10_000
"""Schemas of a process; beyond, all are forgotten and asked for again."""
_PATIENCE_SECONDS, _PAUSE_SECONDS = 2.0, 0.5
"""How long an id that is not there is asked for before it counts as missing, and between two tries."""
_FEW_MISSING = 8
"""Missing ids up to which that is so; with more at a time, which are no lag, a further one counts as missing at once."""
_MISSING_SECONDS = 60.0
"""How long a missing id is remembered: a stream of records with it asks the registry no more often."""
_UNUSED_IDS = {"glue": "00000000-0000-0000-0000-000000000000", "confluent": "2147483647"}
"""Ids that no schema has, by kind: asking for one needs the rights that asking for others does."""


class KeptSchemas(Protocol):
    """Schemas of this source that were looked up before, kept where they outlive the registry."""

    def get(self, name: str) -> RegisteredSchema | None:
        """The schema of an id; None where it was never kept."""


@dataclass(frozen=True)
class RegisteredSchemas:
    """A registry's schemas: plain configuration, so it pickles; each process has its own memory. Threads may share it."""

    config: RegistryConfig
    kept: KeptSchemas | None = None
    """Asked where the registry does not have an id, or does not answer."""

    @property
    def kind(self) -> RegistryKind:
        """Whose framing its schemas' ids stand in."""
        return self.config.type

    def schema(self, name: str) -> RegisteredSchema | None:
        """The schema of an id; None where neither the registry nor what was kept has it.

        Raises UnavailableError while the registry does not answer and nothing was kept, ConfigurationError where it refuses.
        """
        return _cache.get((self.config, name), partial(self._looked_up, name))

    def _looked_up(self, name: str, patience: float) -> RegisteredSchema | None:
        try:
            registered = _lagging(self.config, name, patience)
        except (UnavailableError, ConfigurationError):
            registered = self._kept(name)
            if registered is None:
                raise
            return registered
        return registered or self._kept(name)

    def _kept(self, name: str) -> RegisteredSchema | None:
        return self.kept.get(name) if self.kept else None


def check(config: RegistryConfig) -> None:
    """Ask the registry for an id that no schema has; raises ConfigurationError or UnavailableError saying what is wrong."""
    importlib.import_module("fastavro")  # without it no record in Avro can be read
    fetch(config, _UNUSED_IDS[config.type])


def fetch(config: RegistryConfig, name: str) -> RegisteredSchema | None:
    """Ask the registry itself; None where it has no such id. Raises ConfigurationError and UnavailableError."""
    match config:
        case GlueRegistryConfig():
            from sources.registry import glue

            return glue.fetch(config, name)
        case ConfluentRegistryConfig():
            from sources.registry import confluent

            return confluent.fetch(config, name)
        case _:
            assert_never(config)


def _lagging(config: RegistryConfig, name: str, patience: float) -> RegisteredSchema | None:
    until = time.monotonic() + patience
    while (registered := fetch(config, name)) is None and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    return registered


class SchemaCache:
    """Schemas by registry and id; bounded, and any thread may call it. One thread at a time asks a registry."""

    def __init__(self, most: int = MOST_SCHEMAS, missing_seconds: float = _MISSING_SECONDS) -> None:
        """An empty cache, which is emptied again when it has `most` ids; a missing one is kept for `missing_seconds`."""
        self._most, self._missing_seconds = most, missing_seconds
        self._schemas: dict[tuple[RegistryConfig, str], RegisteredSchema] = {}
        self._missing: dict[tuple[RegistryConfig, str], float] = {}
        self._lock = threading.Lock()

    def get(
        self, key: tuple[RegistryConfig, str], look_up: Callable[[float], RegisteredSchema | None]
    ) -> RegisteredSchema | None:
        """A schema that is known, else the result of `look_up`, which is remembered; it is called with seconds of patience."""
        known = self._schemas.get(key)
        if known is not None:
            return known
        with self._lock:
            now = time.monotonic()
            known = self._schemas.get(key)
            if known is not None or now < self._missing.get(key, now):
                return known
            self._missing = {missing: until for missing, until in self._missing.items() if now < until}
            registered = look_up(_PATIENCE_SECONDS if len(self._missing) < _FEW_MISSING else 0.0)
            if len(self._schemas) + len(self._missing) >= self._most:
                self._schemas, self._missing = {}, {}
            if registered is None:
                self._missing[key] = time.monotonic() + self._missing_seconds
            else:
                self._schemas[key] = registered
            return registered


_cache = SchemaCache()
