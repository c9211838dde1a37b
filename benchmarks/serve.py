"""`ragstream serve` held against the store's own queries, and how soon an answer begins: `make bench-serve`.

Searches go over HTTP, at 1, 8 and 32 callers at once, while 50 rows a second change in the store. The bare queries are those that
a search cannot do without, by as many threads with a connection each: freshness, dense and lexical candidates, with the same
filter of access. The question's embedding, which the bare queries do not need, is measured apart and taken off. Bare queries and
searches alternate, so both meet the same load; the ratio is that of their medians (and of their 99th percentiles). Clients,
service, writer, model endpoint and store share the machine: a search has two changes of process more than a bare query, so the
ratio at one caller means something on a quiet machine alone. Then an answer in events, one caller, extractive, without and with a
session: milliseconds to the first sentence and to the whole answer. The vectors are hashes: nothing here says how good an answer
is.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.servers import servers
from benchmarks.stores import machine
from glue_jobs.config.pipeline import PipelineConfig, parse_config
from glue_jobs.config.values import Substitution
from retrieval.access import Access
from retrieval.search import CANDIDATES
from schemas.caller import Caller
from sinks import open_index
from sinks.search import ANYTHING, Question
from tests.servers import new_database
from tests.serving import Notes, note, pipeline, serving

CALLERS = (1, 8, 32)
CLAIMS = {"sub": "ada", "tenant": "acme"}
K = 10
WORDS = (
    "moss",
    "probe",
    "skua",
    "mast",
    "heron",
    "lamp",
    "plover",
    "gate",
    "warranty",
    "paint",
    "battery",
    "valve",
    "sensor",
)
SERVE = {
    "callers": {"type": "none", "claims": CLAIMS},
    "limits": {"burst": 1_000_000, "requests_per_minute": 60_000_000, "concurrent_per_caller": 64},
}


def text_of(number: int) -> str:
    """A row's text; its words differ from those of its neighbours."""
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 8)) + f" {number}"


def percentiles(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(times)
    return {"p50": statistics.median(ordered) * 1000, "p99": ordered[int(len(ordered) * 0.99)] * 1000}


def at_once(threads: int, count: int, opened: Callable[[], Callable[[str], object]]) -> list[float]:
    """How long each of `count` calls took, by so many threads, each with what `opened` gives it."""

    def run(thread: int) -> list[float]:
        call, times = opened(), []
        for number in range(count // threads + 1):
            question = text_of(thread * 7919 + number)
            began = time.perf_counter()
            call(question)
            times.append(time.perf_counter() - began)
        return times[1:]  # without the first, which connects

    with ThreadPoolExecutor(threads) as pool:
        return [took for times in pool.map(run, range(threads)) for took in times]


def client(url: str, path: str, headers: dict[str, str], body: Callable[[str], object]) -> Callable[[str], bytes]:
    """A caller with a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def call(question: str) -> bytes:
        connection.request("POST", path, json.dumps(body(question)), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        read = answer.read()
        assert answer.status == 200, read  # noqa: S101 - a measurement of refusals is none
        return read

    return call


def searches(notes: Notes, config: PipelineConfig, url: str, count: int, rounds: int) -> dict[str, Any]:
    """Bare queries and searches in turn."""
    allowed = Access(config.access, config.tables).applied(ANYTHING, Caller(CLAIMS))
    vector = notes.embedder.embed_query(text_of(1))

    def bare() -> Callable[[str], object]:
        index = open_index(config.sinks[0], notes.embedder.fingerprint)

        def query(text: str) -> None:
            question = Question(text, vector)
            index.freshness()
            index.dense(question, CANDIDATES, allowed)
            index.lexical(question, CANDIDATES, allowed)

        return query

    ways: dict[str, Callable[[], Callable[[str], object]]] = {
        "bare": bare,
        "embedding": lambda: notes.embedder.embed_query,
        "search": lambda: client(url, "/v1/search", {}, lambda text: {"query": text, "k": K}),
    }
    results: dict[str, Any] = {}
    for callers in CALLERS:
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, opened in ways.items():
                times[name] += at_once(callers, count, opened)
        took = {name: percentiles(each) for name, each in times.items()}
        ratios = {p: (took["search"][p] - took["embedding"]["p50"]) / took["bare"][p] for p in ("p50", "p99")}
        results[str(callers)] = {**took, "ratio": ratios}
    return results


def answers(url: str, count: int) -> dict[str, Any]:
    """Answers in events, without and with a session."""
    results = {}
    for way in ("alone", "session"):
        first, whole = [], []
        for number in range(count):
            connection = http.client.HTTPConnection(urlsplit(url).netloc)
            body = {"question": text_of(number)} | ({} if way == "alone" else {"session": f"s{number // 5}"})
            began, said = time.perf_counter(), 0.0
            connection.request(
                "POST", "/v1/ask", json.dumps(body), {"Content-Type": "application/json", "Accept": "text/event-stream"}
            )
            for line in connection.getresponse():
                if line.startswith(b"event: sentence") and not said:
                    said = time.perf_counter() - began
            whole.append(time.perf_counter() - began)
            first += [said] if said else []
            connection.close()
        results[way] = {"first_sentence": percentiles(first), "whole": percentiles(whole)}
    return results


def changing(notes: Notes, stop: threading.Event, rows: int, per_second: int) -> None:
    """Change rows in batches of a tenth of a second."""
    number, due = 0, time.perf_counter()
    while not stop.wait(max(0.0, due - time.perf_counter())):
        due += 0.1
        batch = [(number + at) % rows for at in range(per_second // 10)]
        notes.put(*(note(row, "acme", text_of(row + number)) for row in batch))
        number += len(batch)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--count", type=int, default=200, help="searches of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    about = machine()
    with servers(["vectors", "instant-model", "memorydb"]) as stack, tempfile.TemporaryDirectory() as folder:
        model, memory = (stack.service(name).endpoint for name in ("instant-model", "memorydb"))
        for dsn in new_database(stack.service("vectors")):  # type: ignore[arg-type] # a server of PostgreSQL
            document = pipeline(Path(folder), dsn, model, memory, serve=SERVE)
            config = parse_config(json.dumps(document), "serve.json", Substitution({}, Path(folder)))
            notes, stop = Notes(document), threading.Event()
            with closing(notes.sink):
                for at in range(0, options.rows, 500):
                    notes.put(*(note(row, "acme", text_of(row)) for row in range(at, at + 500)))
                writer = threading.Thread(target=changing, args=(notes, stop, options.rows, 50))
                writer.start()
                try:
                    with serving(document, Path(folder) / "served") as served:
                        results = searches(notes, config, served.url, options.count, options.rounds)
                        told = answers(served.url, options.count // 2)
                finally:
                    stop.set()
                    writer.join()
            shown = {"benchmark": "serve", "rows": options.rows, "search": results, "answer": told, "machine": about}
            print(json.dumps(shown, default=str))


if __name__ == "__main__":
    main()
