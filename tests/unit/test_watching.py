"""One poll for all who watch with the same grants; each change is told once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

from retrieval.access import Access
from retrieval.ranking.search import UNKNOWN_FRESHNESS
from schemas.caller import Caller
from schemas.errors import UnavailableError
from schemas.tables import DocumentConfig, TableConfig
from service.watching import POLL_SECONDS, Watcher, WatchEvent, Watching

TABLE = TableConfig(
    table="public.notes", keys=("id",), document=DocumentConfig(template="{body}", metadata=("tenant",))
)
RULES = Access({"tenant": "${claim:tenant}"}, [TABLE])
ADA, EVE, BOB = (Caller({"sub": s, "tenant": t}) for s, t in (("ada", "acme"), ("eve", "acme"), ("bob", "globex")))


class Rows:
    """Versions of documents; what was asked, and from which tenant."""

    def __init__(self, **versions: str) -> None:
        self.now, self.is_away = dict(versions), False
        self.asked: list[tuple[float, Any, tuple[str, ...]]] = []
        self.threads: set[str] = set()

    def versions(self, document_ids: Sequence[str], caller: Caller) -> dict[str, str]:
        self.asked.append((time.monotonic(), caller.claims["tenant"], tuple(document_ids)))
        self.threads.add(threading.current_thread().name)
        if self.is_away:
            raise UnavailableError("away")
        return {name: self.now[name] for name in document_ids if name in self.now}

    def freshness(self) -> dict[str, Any]:
        if self.is_away:
            raise UnavailableError("away")
        return {"searchable_as_of": "now", "lag_seconds": 0.5}


def watched(rows: Rows, story: Callable[[Watching], Awaitable[None]]) -> None:
    async def run() -> None:
        watching = Watching(rows, RULES)
        polling = asyncio.ensure_future(watching.run())
        try:
            await asyncio.wait_for(story(watching), 20)
        finally:
            polling.cancel()
            watching.close()

    asyncio.run(run())


async def next_of(watcher: Watcher, name: str) -> dict[str, Any]:
    while True:
        event = await watcher.next()
        assert event is not None
        if event.name == name:
            return {key: value for key, value in event.data.items() if key != "at"}


def test_many_watchers_with_the_same_grants_share_each_poll() -> None:
    rows = Rows(**{f"d{number}": "1" for number in range(30)})

    async def story(watching: Watching) -> None:
        with ExitStack() as stack:
            watchers = [
                stack.enter_context(watching.watching(ADA if number % 2 else EVE, {f"d{number}": "1", "d0": "1"}))
                for number in range(30)
            ]
            other = stack.enter_context(watching.watching(BOB, {"d0": "1"}))
            await asyncio.sleep(5 * POLL_SECONDS)
            rows.now["d0"] = "2"
            states = [await next_of(watcher, "state") for watcher in (*watchers, other)]
            assert states == [{"document_id": "d0", "state": "changed"}] * 31
            assert watching.documents == 60
        assert watching.documents == 0

    watched(rows, story)
    whole = tuple(sorted(f"d{number}" for number in range(30)))
    ours = [at for at, tenant, asked in rows.asked if tenant == "acme" and asked == whole]
    assert len(ours) >= 4
    assert {asked for _, tenant, asked in rows.asked if tenant == "globex"} == {("d0",)}
    assert len(ours) - 2 <= (ours[-1] - ours[0]) / POLL_SECONDS  # one of them may have been late
    assert all(name.startswith("watch") for name in rows.threads)


def test_each_change_is_told_once_and_what_was_old_at_once() -> None:
    rows = Rows(changed="2", here="1")

    async def story(watching: Watching) -> None:
        with watching.watching(ADA, {"changed": "1", "here": "1", "missing": "7"}) as watcher:
            first = [await next_of(watcher, "state"), await next_of(watcher, "state")]
            assert first == [
                {"document_id": "changed", "state": "changed"}, {"document_id": "missing", "state": "gone"},
            ]  # fmt: skip
            del rows.now["here"]
            assert await next_of(watcher, "state") == {"document_id": "here", "state": "gone"}
            rows.now["here"] = "3"
            assert await next_of(watcher, "state") == {"document_id": "here", "state": "changed"}
            for _ in range(2):
                event = await watcher.next()
                assert event is not None
                assert event.name == "freshness", "nothing else has changed"

    watched(rows, story)


def test_while_a_store_is_away_nothing_is_gone_and_freshness_is_unknown() -> None:
    rows = Rows(here="1")

    async def story(watching: Watching) -> None:
        with watching.watching(ADA, {"here": "1"}) as watcher:
            assert await watcher.next() == WatchEvent("freshness", {"searchable_as_of": "now", "lag_seconds": 0.5})
            rows.is_away = True
            while await next_of(watcher, "freshness") != UNKNOWN_FRESHNESS:
                pass
            rows.now["here"], rows.is_away = "2", False
            assert await next_of(watcher, "state") == {"document_id": "here", "state": "changed"}
            watching.end()
            while (event := await watcher.next()) is not None:
                assert event.name == "freshness"

    watched(rows, story)


def test_nothing_is_asked_while_nobody_watches() -> None:
    rows = Rows(here="1")

    async def story(watching: Watching) -> None:
        await asyncio.sleep(2 * POLL_SECONDS)
        assert rows.asked == []
        with watching.watching(ADA, {}) as watcher:
            await watcher.next()
        assert rows.asked == [], "freshness alone asks for no row"
        with watching.watching(ADA, {"here": "0"}) as watcher:
            await next_of(watcher, "state")
        seen = len(rows.asked)
        await asyncio.sleep(2 * POLL_SECONDS)
        assert len(rows.asked) <= seen + 1

    watched(rows, story)
