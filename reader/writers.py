"""The stores' writers of one process: kept from epoch to epoch, with their connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from embeddings import open_embedder, texts_at_once
from embeddings.registry import embedder_of
from indexing.indexer import Indexer
from sinks import open_sink

if TYPE_CHECKING:
    from indexing.store_writer import StoreWriter
    from reader.messages import ReaderSettings

_PATIENCE_SECONDS = 2.0
"""How long a lane waits for the writer that its predecessor still uses, before it takes another."""


def lane_name(store: str) -> str:
    """The name of the thread that writes a store."""
    return f"store-{store}"


def indexer_of(settings: ReaderSettings, on_step: Callable[[str], None]) -> Indexer:
    """The indexer of a reader; nothing is connected yet. `on_step` is told of each step by the thread that takes it."""
    embedder = open_embedder(settings.embedding)
    return Indexer(
        settings.context,
        settings.specs,
        [open_sink(config, embedder.fingerprint, embedder.dimensions) for config in settings.sinks],
        embedder,
        texts_at_once=texts_at_once(settings.embedding, embedder),
        embedders=partial(embedder_of, own=settings.embedding),
        on_step=on_step,
    )


class Steps:
    """What each thread of the indexer is at and since when (by the monotonic clock), by the thread's name."""

    def __init__(self) -> None:
        """Know of none."""
        self.by_thread: dict[str, tuple[str, float]] = {}

    def __call__(self, step: str) -> None:
        """Take it that this thread begins a step."""
        self.by_thread[threading.current_thread().name] = (step, time.monotonic())


class Writers:
    """Lends each store's writer to one lane at a time."""

    def __init__(self, indexer: Indexer, stores: Iterable[str], steps: Steps) -> None:
        """Open nothing yet."""
        self.indexer, self.stores, self._steps = indexer, frozenset(stores), steps
        self._free: dict[str, StoreWriter] = {}
        self._lent: set[str] = set()
        self._changed = threading.Condition()

    def step(self, store: str) -> tuple[str, float]:
        """What a store's lane is at, and since when."""
        return self._steps.by_thread.get(lane_name(store), ("", 0.0))

    @contextmanager
    def writer(self, store: str) -> Iterator[StoreWriter]:
        """A writer of a store: the one that was used before, unless a write that does not end keeps it."""
        with self._changed:
            self._changed.wait_for(lambda: store not in self._lent, _PATIENCE_SECONDS)
            writer = self._free.pop(store, None) or self.indexer.writer(store)
            self._lent.add(store)
        try:
            yield writer
        finally:
            with self._changed:
                if store in self._free:
                    writer.close()
                self._free.setdefault(store, writer)
                self._lent.discard(store)
                self._changed.notify_all()
