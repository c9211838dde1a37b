"""Public keys by their id, fetched when one is asked for that is not known, and not too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from joserfc.jwk import Key

from schemas.errors import PipelineError, UnavailableError

REFRESH_SECONDS = 3600.0
"""Age of keys after which they are fetched again: a key that was withdrawn is accepted for so long."""
REFETCH_SECONDS = 10.0
"""The least time between two fetches, however many tokens name unknown keys."""


class KeyCache:
    """The keys of one address. What was fetched stays good while the address is away."""

    def __init__(self, fetch: Callable[[], Mapping[str, Key]], clock: Callable[[], float] = time.monotonic) -> None:
        """`fetch` gives all keys by id, and raises UnavailableError; it runs in a thread."""
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, Key] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failure: UnavailableError | None = None
        self._lock = asyncio.Lock()

    async def key(self, key_id: str | None) -> Key | None:
        """The key of that id, or the only one for a token that names none; None if there is none.

        Raises:
            UnavailableError: it is not among the known keys, and the last fetch failed.
        """
        if not self._is_old() and (known := self._known(key_id)) is not None:
            return known
        async with self._lock:  # the requests behind it find what this one fetched
            if self._is_old() or self._known(key_id) is None:
                await self._refetch()
        known = self._known(key_id)
        if known is None and self._failure is not None:
            raise self._failure
        return known

    def _known(self, key_id: str | None) -> Key | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _is_old(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at > REFRESH_SECONDS

    async def _refetch(self) -> None:
        now = self._clock()
        if self._tried_at is not None and now - self._tried_at < REFETCH_SECONDS:
            return
        self._tried_at = now
        try:
            self._keys = await asyncio.to_thread(self._fetch)
        except UnavailableError as error:
            self._failure = error
        except PipelineError as error:
            self._failure = UnavailableError(error.message, condition=error.condition, hint=error.hint)
        else:
            self._fetched_at, self._failure = self._clock(), None
