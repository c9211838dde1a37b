"""From a commit to the mark on an answer of the page: `make bench-page`.

    python -m benchmarks.page [--edits 60]

A reader has the page of `ragstream serve` open in the system's Chromium. In turn a question is asked, the row that its answer
cites is edited in PostgreSQL, and the page marks the answer: Debezium, Kafka, the index job and pgvector, then the poll of the
watches (at most every 200 ms) and the event to the page. The commit is timed when PostgreSQL has confirmed it, the mark by an
observer within the page; searchable is when the store's row was written. All clocks are this machine's. Ends in one line of JSON,
in milliseconds.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Page, expect

from benchmarks.servers import servers
from tests.e2e.desk import HUB, KEYS, QUESTION, Desk, Servers, open_desk
from tests.e2e.windows import ask, chromium, sign_in, window
from tests.servers import new_database

_PARTS = ("postgres", "vectors", "kafka", "connect", "memorydb")
_A_CONVERSATION = 10
"""Edits until a new conversation is begun."""
_OBSERVE = """() => {
  window.marks = [];
  new MutationObserver(() => {
    const stale = document.querySelectorAll('.turn.stale').length;
    while (window.marks.length < stale) window.marks.push(Date.now());
    if (stale < window.marks.length) window.marks.length = stale;
  }).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""


class Edit(NamedTuple):
    """One edit, in milliseconds from its commit."""

    searchable: float
    marked: float


def main() -> None:
    """Run the edits and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page")
    parser.add_argument("--edits", type=int, default=60)
    chosen = parser.parse_args()
    with servers(_PARTS) as stack, tempfile.TemporaryDirectory() as folder:
        part: dict[str, Any] = {name: stack.service(name) for name in _PARTS}
        for source_dsn in new_database(part["postgres"]):
            for store_dsn in new_database(part["vectors"]):
                others = (part["kafka"], part["connect"], part["memorydb"])
                with open_desk(Path(folder), Servers(source_dsn, store_dsn, *others, str(stack.directory))) as desk:
                    print(json.dumps(summary(measure(desk, chosen.edits))))


def measure(desk: Desk, edits: int) -> list[Edit]:
    """Edit the cited row so many times, each under an answer of its own."""
    with chromium() as browser, window(browser, desk.served.url) as page:
        sign_in(page, KEYS["ada"])
        page.evaluate(_OBSERVE)
        desk.say(HUB, "21 days", "1000 days")
        measured = []
        for number in range(edits):
            if number % _A_CONVERSATION == 0:
                page.get_by_role("button", name="New conversation").click()
                expect(page.get_by_role("article")).to_have_count(0)
            measured.append(edited(desk, page, 1000 + number, number % _A_CONVERSATION))
        return measured


def edited(desk: Desk, page: Page, days: int, stale: int) -> Edit:
    """Ask until the answer has this number of days, and edit it; so many answers are stale before."""
    ask(page, QUESTION)
    expect(page.get_by_role("article").last).to_contain_text(f"{days} days")
    desk.say(HUB, f"{days} days", f"{days + 1} days")
    committed = time.time() * 1000
    expect(page.locator(".turn.stale")).to_have_count(stale + 1)
    headers = {"Authorization": f"Bearer {KEYS['ada']}"}
    results = desk.served.post("/v1/search", {"query": QUESTION}, **headers).json()["results"]
    (document_id,) = {result["document_id"] for result in results if result["key"] == {"id": HUB}}
    row = desk.served.get(f"/v1/rows/{document_id}", **headers).json()
    searchable = dt.datetime.fromisoformat(row["searchable_at"]).timestamp() * 1000
    return Edit(searchable - committed, page.evaluate("window.marks.at(-1)") - committed)


def summary(edits: Sequence[Edit]) -> dict[str, object]:
    """Percentiles of each step."""
    steps = {
        "commit_to_searchable": [edit.searchable for edit in edits],
        "searchable_to_mark": [edit.marked - edit.searchable for edit in edits],
        "commit_to_mark": [edit.marked for edit in edits],
    }
    return {"edits": len(edits), **{name: percentiles(values) for name, values in steps.items()}}


def percentiles(values: Sequence[float]) -> dict[str, int]:
    """The 50th, 90th and 99th, in whole milliseconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{number}": round(cuts[number - 1]) for number in (50, 90, 99)}


if __name__ == "__main__":
    main()
