"""One commit on its way to several places, each watched from outside."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from schemas.errors import UnavailableError


class Place(NamedTuple):
    """Where a commit shows some time."""

    shows: Callable[[], bool]
    """Asked by one thread only."""
    every: float
    """Seconds between two looks."""
    close: Callable[[], object] = lambda: None
    """Called by that thread at its end."""


class Arrivals:
    """Watches places until a commit shows in each; a thread a place, which ends with its place or with `stop`."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        """Take the places by their names; nobody looks yet."""
        self._places = places
        self._told: queue.SimpleQueue[tuple[str, float, Exception | None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self.ms: dict[str, float] = {}
        """From the commit to the look that showed it, in milliseconds."""

    def start(self) -> None:
        """Look from now on: the commit has just returned."""
        committed = time.perf_counter()
        for name, place in self._places.items():
            threading.Thread(target=self._look, args=(name, place, committed), daemon=True).start()

    def wait(self, names: Collection[str], seconds: float, tell: Callable[[str, float], None]) -> None:
        """Wait until it shows in these places, telling each arrival; raises UnavailableError when the time is over."""
        until = time.monotonic() + seconds
        while missing := sorted(set(names) - self.ms.keys()):
            try:
                name, ms, error = self._told.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise UnavailableError(f"a commit did not reach {', '.join(missing)} in {seconds:.0f} s") from None
            if error is not None:
                raise UnavailableError(f"{name} could not be asked for a commit ({type(error).__name__})") from error
            self.ms[name] = ms
            tell(name, ms)

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _look(self, name: str, place: Place, committed: float) -> None:
        error = None
        try:
            while not place.shows():
                if self._stopped.wait(place.every):
                    return
        except Exception as raised:  # noqa: BLE001  whatever a client raises is the waiting thread's to tell
            error = raised
        finally:
            place.close()
        self._told.put((name, (time.perf_counter() - committed) * 1000, error))
