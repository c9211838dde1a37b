"""Watches cited documents for those who were given them: one poll for all who may see the same, at most five times a second.

A change is told once for each newer version that a poll sees; versions that came and went between two polls are told as one.
Where a store does not answer, nothing is told, and the freshness is unknown until it does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from retrieval.access import Access
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
UNKNOWN: Mapping[str, Any] = {"searchable_as_of": None, "lag_seconds": None}


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
        """The last version of each document that was told; None: gone."""
        self._events: asyncio.Queue[WatchEvent | None] = asyncio.Queue()

    async def next(self) -> WatchEvent | None:
        """The next event, `state` or `freshness`; None once the watch ends."""
        return await self._events.get()

    def compare(self, asked: set[str], now: Mapping[str, str]) -> None:
        """Tell what differs from what was told before; of `asked`, the documents missing in `now` are gone."""
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        for document_id, seen in self.seen.items():
            version = now.get(document_id)
            if document_id in asked and version != seen:
                self.seen[document_id] = version
                state = "gone" if version is None else "changed"
                self.tell(WatchEvent("state", {"document_id": document_id, "state": state, "at": at}))

    def tell(self, event: WatchEvent | None) -> None:
        """Put an event before the watcher; None is the last one."""
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
        self._away: set[str] = set()
        self.freshness: Mapping[str, Any] = UNKNOWN
        """As last seen."""
        self.polls = 0
        """Queries for versions so far."""

    @property
    def documents(self) -> int:
        """How many documents are watched, as often as somebody watches them."""
        return sum(len(watcher.seen) for group in self._groups.values() for watcher in group.watchers)

    @contextmanager
    def watching(self, caller: Caller, versions: Mapping[str, str]) -> Iterator[Watcher]:
        """Watch documents, given the versions that the caller has, for a time."""
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
                tasks.append(self._tell_freshness())
            await asyncio.gather(*tasks)
            await asyncio.sleep(max(0.0, began + POLL_SECONDS - loop.time()))

    def end(self) -> None:
        """End all watches."""
        for watcher in [watcher for group in self._groups.values() for watcher in group.watchers]:
            watcher.tell(None)

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
            for watcher in watchers:
                watcher.compare(set(asked), now)

    async def _tell_freshness(self) -> None:
        seen = await self._call("freshness", self._assistant.freshness)
        self.freshness = UNKNOWN if seen is None else seen
        for group in self._groups.values():
            for watcher in group.watchers:
                watcher.tell(WatchEvent("freshness", self.freshness))

    async def _call[T](self, what: str, call: Any, *arguments: object) -> Any:
        """What a call gives; None where it fails, which is logged once until it does not."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        except PipelineError as error:
            self._log(what, error.condition)
        except Exception as error:  # noqa: BLE001 - watchers go on
            self._log(what, type(error).__name__)
        else:
            self._away.discard(what)
            return result
        return None

    def _log(self, what: str, condition: str) -> None:
        if what not in self._away:
            self._away.add(what)
            logger.warning(
                "the watch of cited rows cannot poll", extra={"context": {"call": what, "condition": condition}}
            )
