"""Measures when one commit becomes visible in several places."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from schemas.errors import UnavailableError


class Place(NamedTuple):
    """A place where a commit becomes visible."""

    shows: Callable[[], bool]
    """Whether it is visible; called by one thread only."""
    every: float
    """Seconds between two polls."""
    close: Callable[[], object] = lambda: None
    """Called by that thread at its end."""


class Arrivals:
    """Polls places until a commit is visible in each, one thread a place; `stop` ends the threads."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        """Take the places by name; nothing is polled yet."""
        self._places = places
        self._results: queue.SimpleQueue[tuple[str, float, Exception | None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self.ms: dict[str, float] = {}
        """By place: milliseconds from the commit to the poll that saw it."""

    def start(self) -> None:
        """Start polling, right after the commit has returned."""
        committed = time.perf_counter()
        for name, place in self._places.items():
            threading.Thread(target=self._look, args=(name, place, committed), daemon=True).start()

    def wait(self, names: Collection[str], seconds: float, on_arrival: Callable[[str, float], None]) -> None:
        """Wait until it is visible in these places, reporting each; raises UnavailableError after a timeout in seconds."""
        until = time.monotonic() + seconds
        while missing := sorted(set(names) - self.ms.keys()):
            try:
                name, ms, error = self._results.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise UnavailableError(f"a commit did not reach {', '.join(missing)} in {seconds:.0f} s") from None
            if error is not None:
                raise UnavailableError(f"{name} could not be asked for a commit ({type(error).__name__})") from error
            self.ms[name] = ms
            on_arrival(name, ms)

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def _look(self, name: str, place: Place, committed: float) -> None:
        error = None
        try:
            while not place.shows():
                if self._stopped.wait(place.every):
                    return
        except Exception as raised:  # noqa: BLE001  the waiting thread raises whatever a client raised
            error = raised
        finally:
            place.close()
        self._results.put((name, (time.perf_counter() - committed) * 1000, error))
