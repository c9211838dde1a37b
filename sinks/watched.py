"""A store whose calls are watched: since when it has not answered, and no more calls once it was given up."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from schemas.errors import PipelineError, UnavailableError

if TYPE_CHECKING:
    from sinks.protocol import Sink

PROBE_SECONDS = 5.0
"""How long a second connection may take to tell whether a server is there."""


@dataclass(slots=True)
class Watch:
    """What one piece of work waits for. Safe to look at from another thread."""

    failing_since: float | None = None
    """When the store first failed, in seconds since the epoch; None while the work gets on."""
    asked_at: float | None = None
    """When the call began that has no answer yet."""
    given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def away_since(self) -> float | None:
        """Since when the store keeps the work waiting."""
        return self.asked_at if self.failing_since is None else self.failing_since

    def give_up(self, asked_at: float) -> bool:
        """Let no call go through any more, unless the one that began then was answered."""
        with self._lock:
            self.given_up = self.asked_at == asked_at
            return self.given_up

    def call(self, store: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a store; an answer that comes after it was given up counts for nothing."""
        with self._lock:
            self._raise_if_given_up(store)
            self.asked_at = time.time()
        try:
            return method(*args, **options)
        finally:
            with self._lock:
                self._raise_if_given_up(store)
                self.asked_at = None

    def _raise_if_given_up(self, store: str) -> None:
        if self.given_up:
            raise UnavailableError(f"sink {store}: it was set aside before it answered")


def watched(sink: Sink, watch: Watch) -> Sink:
    """The same store; of a method that gives an iterator, only the call itself is watched."""
    return cast("Sink", _Watched(sink, watch))


class _Watched:
    def __init__(self, sink: Sink, watch: Watch) -> None:
        self._sink, self._watch = sink, watch

    def __getattr__(self, name: str) -> Any:
        found, store = getattr(self._sink, name), self._sink.name
        if name == "beside":
            return lambda generation: watched(found(generation), self._watch)
        return (lambda *args, **options: self._watch.call(store, found, *args, **options)) if callable(found) else found


def answers(sink: Sink) -> bool:
    """Whether a store answers another connection within `PROBE_SECONDS`: then it is slow, not away."""
    found = threading.Event()

    def ask() -> None:
        other = copy.deepcopy(sink)
        try:
            other.truncations()
        except UnavailableError:
            return
        except PipelineError:  # it does answer; what it says is for the work to find out
            found.set()
        else:
            found.set()
        finally:
            other.close()

    threading.Thread(target=ask, daemon=True, name=f"probe-{sink.name}").start()
    return found.wait(PROBE_SECONDS)
