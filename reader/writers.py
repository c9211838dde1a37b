"""The store writers of one process, kept from epoch to epoch with their connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from embeddings import open_embedder, texts_at_once
from embeddings.budget.budget import Budget
from embeddings.registry import embedder_of
from indexing.indexer import Indexer
from indexing.store_writer import StoreWriter
from reader.messages import ReaderSettings
from sinks import open_sink

_PATIENCE_SECONDS = 2.0
"""How long a worker waits for the writer that its predecessor still uses, before it takes another."""
_BUDGET_PATIENCE_SECONDS = 0.5
"""How long a write waits for the model's budget before all that needs no new vector is written."""


def thread_name(store: str) -> str:
    """The name of the thread that writes a store."""
    return f"store-{store}"


def indexer_of(settings: ReaderSettings, on_step: Callable[[str], None]) -> Indexer:
    """The indexer of a reader, not connected yet; each thread calls `on_step` with the name of its step as it begins."""
    embedder = open_embedder(settings.embedding)
    budget: Budget | None = getattr(embedder, "budget", None)
    if budget is not None:
        budget.gives_up = True
    return Indexer(
        settings.context,
        settings.specs,
        [open_sink(config, embedder.fingerprint, embedder.dimensions) for config in settings.sinks],
        embedder,
        texts_at_once=texts_at_once(settings.embedding, embedder),
        embedders=partial(embedder_of, own=settings.embedding),
        on_step=on_step,
        patience=_BUDGET_PATIENCE_SECONDS,
    )


class Steps:
    """The current step of each thread of the indexer and its begin (monotonic clock), by the thread's name."""

    def __init__(self) -> None:
        """Begin empty."""
        self.by_thread: dict[str, tuple[str, float]] = {}

    def __call__(self, step: str) -> None:
        """Note that this thread begins a step."""
        self.by_thread[threading.current_thread().name] = (step, time.monotonic())


class Writers:
    """The writers of the stores; one worker at a time uses each."""

    def __init__(self, indexer: Indexer, stores: Iterable[str], steps: Steps) -> None:
        """Open nothing yet."""
        self.indexer, self.stores, self._steps = indexer, frozenset(stores), steps
        self._free: dict[str, StoreWriter] = {}
        self._in_use: set[str] = set()
        self._changed = threading.Condition()

    def step(self, store: str) -> tuple[str, float]:
        """The step of a store's worker, and its begin."""
        return self._steps.by_thread.get(thread_name(store), ("", 0.0))

    @contextmanager
    def writer(self, store: str) -> Iterator[StoreWriter]:
        """A writer of a store: the former one, unless a write that does not end still uses it."""
        with self._changed:
            self._changed.wait_for(lambda: store not in self._in_use, _PATIENCE_SECONDS)
            writer = self._free.pop(store, None) or self.indexer.writer(store)
            self._in_use.add(store)
        try:
            yield writer
        finally:
            with self._changed:
                if store in self._free:
                    writer.close()
                self._free.setdefault(store, writer)
                self._in_use.discard(store)
                self._changed.notify_all()
