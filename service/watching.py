"""Watches cited documents for those whose answers cite them: one poll for all who may see the same, at most five times a second.

A change is sent once for each newer version that a poll sees; versions that came and went between two polls are sent as one.
While a store does not answer, no change is sent, and the freshness is unknown.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from retrieval.access import Access
from retrieval.ranking.search import UNKNOWN_FRESHNESS
from schemas.caller import Caller
from schemas.errors import PipelineError
from sinks.search import ANYTHING, Filters

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""The least time from the beginning of a poll to that of the next."""
FRESHNESS_SECONDS = 1.0
MOST_DOCUMENTS = 20_000
"""Documents that are watched at once."""
_A_QUERY = 1000
"""Documents of one query."""
_THREADS = 4


class WatchEvent(NamedTuple):
    """One event: its name and its JSON object."""

    name: str
    data: Mapping[str, Any]


class Versions(Protocol):
    """What is asked of the assistant; see `service.assistant.AssistantService`."""

    def versions(self, document_ids: Sequence[str], caller: Caller) -> dict[str, str]:
        """The versions of those documents that are live and allowed."""

    def freshness(self) -> dict[str, Any]:
        """How far the index has come."""


class Watcher:
    """One who watches some documents."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        self.seen: dict[str, str | None] = dict(versions)
        """The last version of each document that was sent; None: gone."""
        self._events: asyncio.Queue[WatchEvent | None] = asyncio.Queue()

    async def next(self) -> WatchEvent | None:
        """The next event, `state` or `freshness`; None once the watch ends."""
        return await self._events.get()

    def compare(self, asked: frozenset[str], now: Mapping[str, str]) -> None:
        """Send what differs from what was sent before; of `asked`, the documents missing in `now` are gone."""
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        for document_id, seen in self.seen.items():
            version = now.get(document_id)
            if document_id in asked and version != seen:
                self.seen[document_id] = version
                state = "gone" if version is None else "changed"
                self.send(WatchEvent("state", {"document_id": document_id, "state": state, "at": at}))

    def send(self, event: WatchEvent | None) -> None:
        """Send the watcher an event; None is the last one."""
        self._events.put_nowait(event)


class _Group:
    """Watchers with the same grants."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.watchers: set[Watcher] = set()


class Watching:
    """All watchers of one process. Of one event loop, but for the calls to the assistant, which run in threads of its own."""

    def __init__(self, assistant: Versions, access: Access) -> None:
        """`access` are the pipeline's rules: callers with the same grants share a poll."""
        self._assistant = assistant
        self._access = access
        self._groups: dict[Filters, _Group] = {}
        self._wanted = asyncio.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="watch")
        self._failing: set[str] = set()
        self.freshness: Mapping[str, Any] = UNKNOWN_FRESHNESS
        """As last seen."""
        self.polls = 0
        """Queries for versions so far."""

    @property
    def watchers(self) -> int:
        """How many watch."""
        return sum(len(group.watchers) for group in self._groups.values())

    @property
    def documents(self) -> int:
        """How many documents are watched, as often as somebody watches them."""
        return sum(len(watcher.seen) for group in self._groups.values() for watcher in group.watchers)

    @contextmanager
    def watching(self, caller: Caller, versions: Mapping[str, str]) -> Iterator[Watcher]:
        """Watch documents, whose versions are those that the caller has, for a time."""
        grants = self._access.applied(ANYTHING, caller)
        group = self._groups.setdefault(grants, _Group(caller))
        watcher = Watcher(versions)
        group.watchers.add(watcher)
        self._wanted.set()
        try:
            yield watcher
        finally:
            group.watchers.discard(watcher)
            if not group.watchers:
                self._groups.pop(grants, None)

    async def run(self) -> None:
        """Poll until cancelled, while anybody watches."""
        loop, freshness_at = asyncio.get_running_loop(), float("-inf")
        while True:
            if not self._groups:
                self._wanted.clear()
                await self._wanted.wait()
            began = loop.time()
            tasks = [self._poll(group) for group in list(self._groups.values())]
            if began - freshness_at >= FRESHNESS_SECONDS:
                freshness_at = began
                tasks.append(self._send_freshness())
            await asyncio.gather(*tasks)
            await asyncio.sleep(max(0.0, began + POLL_SECONDS - loop.time()))

    def end(self) -> None:
        """End all watches."""
        for watcher in [watcher for group in self._groups.values() for watcher in group.watchers]:
            watcher.send(None)

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _poll(self, group: _Group) -> None:
        watchers = list(group.watchers)
        document_ids = sorted({document_id for watcher in watchers for document_id in watcher.seen})
        for at in range(0, len(document_ids), _A_QUERY):
            asked = document_ids[at : at + _A_QUERY]
            now = await self._call("versions", self._assistant.versions, asked, group.caller)
            if now is None:
                return
            self.polls += 1
            asked_ids = frozenset(asked)
            for watcher in watchers:
                watcher.compare(asked_ids, now)

    async def _send_freshness(self) -> None:
        seen = await self._call("freshness", self._assistant.freshness)
        self.freshness = UNKNOWN_FRESHNESS if seen is None else seen
        for group in self._groups.values():
            for watcher in group.watchers:
                watcher.send(WatchEvent("freshness", self.freshness))

    async def _call[*A, T](self, what: str, call: Callable[[*A], T], *arguments: *A) -> T | None:
        """The result of a call; None where it fails, which is logged once until a call succeeds."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        except PipelineError as error:
            self._log(what, error.condition)
        except Exception as error:  # noqa: BLE001 - watchers go on
            self._log(what, type(error).__name__)
        else:
            self._failing.discard(what)
            return result
        return None

    def _log(self, what: str, condition: str) -> None:
        if what not in self._failing:
            self._failing.add(what)
            logger.warning(
                "the watch of cited rows cannot poll", extra={"context": {"call": what, "condition": condition}}
            )
