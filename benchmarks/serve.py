"""The service held against what it cannot do without, while a running pipeline indexes changes: `make bench-serve`.

    python -m benchmarks.serve [--callers 1,8,32] [--seconds 8] [--rounds 3] [--rate 50] [--asks 40] [--marks 40]

An instant model, pgvector, one driver that indexes from Kafka. All ratios are of one run, whose phases alternate in rounds.

1. `search` through HTTP ÷ the store's bare queries, from the same number of callers: the dense and the lexical statement that
   such a search sends (as many candidates, the same filter, vector and words known), by psycopg, a connection a caller.
   The question's embedding is measured apart, from as many callers, and its p50 is taken off both percentiles of the service.
   `store` is all that a search asks its store for, the weights of the question's words and the freshness too, which the bare
   queries do without. `library` is the same search in this process, without HTTP. So each says what the next one adds.
2. The first sentence and the whole answer of `ask` as events, in a new session and without one, with facts and without: less the
   p50 of an embedding and of a stream of the text model, which are measured apart.
3. From the return of a commit in PostgreSQL to the event of `/v1/watch`, under the same changes. A watch polls every 200 ms.

Ends in one line of JSON: milliseconds, ratios, and the processor seconds of each group of processes for 100 s of each phase.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import yaml
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks import workload
from benchmarks.cpu import cpu_seconds, spent
from benchmarks.freshness import PARTS, ROWS, console
from benchmarks.peers import PEERS
from benchmarks.servers import servers
from benchmarks.service import START_SECONDS, Client, RunningPipeline, changing, running, service
from benchmarks.stores import machine
from embeddings import open_embedder
from generation import Message, open_generator
from glue_jobs.config.pipeline import PipelineConfig, load_config
from local_stack.servers.connect import request_json
from retrieval.access import Access, Scope
from retrieval.ranking.search import CANDIDATES
from service.assistant import AssistantService
from sinks.idf import WeighedWords
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.filtering import Filtering
from sinks.pgvector.preparing import LEAST_COMPARED
from sinks.pgvector.reader import DENSE, LEXICAL, SETTINGS, SHARE, SPARE, PgvectorIndex
from sinks.pgvector.schema import VISIBLE, Names
from sinks.search import Filters, Question
from tests.desk_facts import ALL, TICKETS, loaded_warehouse, reading_user
from tests.servers import new_database, unique
from tests.warehouse_fixtures import warehouse_config
from transforms.documents.languages import OWN

if TYPE_CHECKING:
    from embeddings.protocol import Embedder

K = 10
FILTER = "status in (new, open, held)"
"""Lets most rows through, so that both sides scan the graph."""
QUESTIONS = 64
ANSWER = "They are kept until they are fetched. [1] Then they are removed at once. [1]"
"""Without a number or a name, so that any row supports it."""
WATCHED = 10_000_000
"""The id of a row that the load does not touch."""
_WANTED = {"search_p50_and_p99_at_1_and_8": 1.3, "mark_p50_ms": 300}


def main() -> None:
    """Run all measurements and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve")
    parser.add_argument("--callers", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--asks", type=int, default=40)
    parser.add_argument("--marks", type=int, default=40)
    chosen = parser.parse_args()
    before = machine()
    with servers([*PARTS, "instant-model", "memorydb", "redshift"]) as stack, running(stack) as pipeline:
        with changing(pipeline, chosen.rate) as committer:
            searches = {str(n): measured_searches(pipeline, n, chosen) for n in map(int, chosen.callers.split(","))}
            marks = measured_marks(pipeline, chosen.marks)
        asks = measured_asks(pipeline, chosen.asks)
    print(json.dumps({
        "benchmark": "serve", "rate": chosen.rate, "k": K, "filter": FILTER, "rows": ROWS, "seconds": chosen.seconds,
        "rounds": chosen.rounds, "late": committer.late, "wanted": _WANTED, "search": searches, "ask": asks, "mark": marks,
        "machine": before,
    }))  # fmt: skip


class BareQueries:
    """The two statements of a search, by psycopg over one connection."""

    def __init__(self, pipeline: RunningPipeline, texts: Sequence[str]) -> None:
        config = load_config(str(pipeline.config))
        store, self._texts = _store(config), texts
        names, filtering = Names(store.table), Filtering(filters_of(config))
        visible = sql.SQL("{} AND {}").format(names.compose(VISIBLE), filtering.condition)
        coverage = sql.SQL(SHARE).format(vector=sql.Identifier("c", "chunk_words"))
        self._statements = [names.compose(query, visible=visible, coverage=coverage) for query in (DENSE, LEXICAL)]
        self._values = filtering.values
        self._connection = psycopg.connect(pipeline.store, autocommit=True)
        register_vector(self._connection)
        self._connection.execute(SETTINGS)
        passing = names.compose(
            "SELECT count(*) FROM {documents} AS d WHERE d.live AND {filters}", filters=filtering.condition
        )
        count = self._connection.execute(passing, self._values).fetchone()
        assert count is not None  # noqa: S101
        assert count[0] > LEAST_COMPARED, "fewer rows would be compared one by one"  # noqa: S101
        self._known = known(config, store, texts)

    def __call__(self) -> None:
        """Ask for one of the questions."""
        values = self._values | self._known[random.choice(self._texts)]
        for statement in self._statements:
            self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class StoreQueries:
    """All that a search asks its store for, over one connection."""

    def __init__(self, pipeline: RunningPipeline, texts: Sequence[str]) -> None:
        config = load_config(str(pipeline.config))
        embedder, self._filters = embedder_of(config), filters_of(config)
        self._questions = [Question(text, embedder.embed_query(text)) for text in texts]
        self._index = PgvectorIndex(_store(config), embedder.fingerprint)

    def __call__(self) -> None:
        """Ask for one of the questions."""
        self._index.search(random.choice(self._questions), CANDIDATES, self._filters)

    def close(self) -> None:
        """Close the connection."""
        self._index.close()


def _store(config: PipelineConfig) -> PgvectorConfig:
    store = config.sinks[0]
    assert isinstance(store, PgvectorConfig)  # noqa: S101
    return store


def known(config: PipelineConfig, store: PgvectorConfig, texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By question: what its statements are bound to beside the filter."""
    embedder = embedder_of(config)
    values = {}
    with closing(PgvectorIndex(store, embedder.fingerprint)) as index:
        for text in texts:
            words = WeighedWords.joined(index.weigh(text, (OWN,)))
            values[text] = {
                "vector": embedder.embed_query(text), "k": CANDIDATES, "chunks": CANDIDATES * SPARE,
                "words": list(words.shares), "weights": list(words.shares.values()),
                "query": " | ".join(f"'{word}'" for word in words.searched),
            }  # fmt: skip
    return values


def embedder_of(config: PipelineConfig) -> Embedder:
    """The pipeline's model."""
    assert config.embedding is not None  # noqa: S101
    return open_embedder(config.embedding)


def filters_of(config: PipelineConfig) -> Filters:
    """The filter of the searches."""
    return Access(config.access, config.tables).filters(Scope(conditions=(FILTER,)))


def questions() -> list[str]:
    """Questions in the words of the rows."""
    chosen = random.Random(5)
    return [" ".join(chosen.sample(workload.WORDS, 4)) for _ in range(QUESTIONS)]


def measured_searches(pipeline: RunningPipeline, callers: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Searches from a number of callers, in phases that alternate."""
    texts, config = questions(), pipeline.served("searched")
    loaded = load_config(str(config))
    took: dict[str, list[float]] = {name: [] for name in ("service", "bare", "store", "embedding", "library")}
    cpu: dict[str, dict[str, float]] = {}
    scope = Scope(conditions=(FILTER,))
    with ExitStack() as stack:
        url = stack.enter_context(service(pipeline, config))
        library = stack.enter_context(AssistantService(loaded, connections=8))
        clients = [stack.enter_context(closing(Client(url))) for _ in range(callers)]
        embedder = embedder_of(loaded)
        calls: dict[str, list[Callable[[], object]]] = {
            "service": [partial(searched, client, texts) for client in clients],
            "bare": [stack.enter_context(closing(BareQueries(pipeline, texts))) for _ in range(callers)],
            "store": [stack.enter_context(closing(StoreQueries(pipeline, texts))) for _ in range(callers)],
            "embedding": [lambda: embedder.embed_query(random.choice(texts))] * callers,
            "library": [lambda: library.search(random.choice(texts), K, scope)] * callers,
        }
        for of_callers in calls.values():
            repeated(of_callers, 1.0)
        for number in range(chosen.rounds):
            for name, of_callers in calls.items():
                console.print(f"round {number + 1} of {chosen.rounds}: {name}, {callers} callers")
                began, before = time.time(), cpu_seconds(pipeline.stack.directory)
                took[name] += repeated(of_callers, chosen.seconds)
                cpu[name] = spent(before, cpu_seconds(pipeline.stack.directory), time.time() - began)
    figures = {name: percentiles(ms) for name, ms in took.items()}
    return {"ms": figures, **ratios(figures), "cpu_s_per_100s": cpu}


def searched(client: Client, texts: Sequence[str]) -> None:
    """Search through the service."""
    client.post("/v1/search", {"query": random.choice(texts), "k": K, "filters": [FILTER]})


def ratios(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each figure over the bare queries, and over all that the store is asked; of what embeds the question less an embedding."""
    apart = {"service": figures["embedding"]["p50"], "library": figures["embedding"]["p50"]}

    def ratio(name: str, over: str) -> dict[str, float]:
        return {q: round((figures[name][q] - apart.get(name, 0.0)) / figures[over][q], 3) for q in ("p50", "p99")}

    pairs = (("service", "bare"), ("library", "bare"), ("store", "bare"), ("service", "store"), ("library", "store"))
    return {f"{name}_over_{over}": ratio(name, over) for name, over in pairs}


def repeated(of_callers: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Every caller's calls in its own thread for a time; milliseconds of each call."""
    until, took, failed = time.monotonic() + seconds, list[float](), list[BaseException]()

    def run(call: Callable[[], object]) -> None:
        try:
            while (began := time.monotonic()) < until:
                call()
                took.append((time.monotonic() - began) * 1000)
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in of_callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return took


def percentiles(took: Sequence[float]) -> dict[str, float]:
    """p50 and p99 of milliseconds, and how many there are."""
    p50, p99 = np.percentile(took, (50, 99)) if took else (float("nan"), float("nan"))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "n": len(took)}


def measured_marks(pipeline: RunningPipeline, marks: int) -> dict[str, Any]:
    """From a commit to the event of a watch, under load."""
    took = []
    with (
        service(pipeline, pipeline.served("watched")) as url,
        psycopg.connect(pipeline.source, autocommit=True) as source,
        closing(Client(url)) as client,
    ):
        insert = "INSERT INTO articles (id, title, body, status, nonce) VALUES (%s, 'watched', 'rev 0', 'new', 0)"
        source.execute(insert, (WATCHED,))
        document_id, version = PEERS["ragstream"].row_name(WATCHED), appeared(url, PEERS["ragstream"].row_name(WATCHED))
        events = client.events("/v1/watch", {"citations": [{"document_id": document_id, "version": version}]})
        next(event for event in events if event[0] == "freshness")
        for number in range(marks):
            time.sleep(random.uniform(0.05, 0.45))
            source.execute("UPDATE articles SET body = %s WHERE id = %s", (f"rev {number + 1}", WATCHED))
            committed = time.monotonic()
            next(event for event in events if event[0] == "state")
            took.append((time.monotonic() - committed) * 1000)
    return {"ms": percentiles(took), "poll_ms": 200}


def appeared(url: str, document_id: str) -> str:
    """The version of a document, once it is searchable."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        status, row = request_json(url, "GET", f"/v1/rows/{document_id}")
        if status == 200:
            return str(row["version"])
        time.sleep(0.1)
    raise TimeoutError("the watched row did not become searchable")


def measured_asks(pipeline: RunningPipeline, asks: int) -> dict[str, Any]:
    """First sentence and whole answer of each kind of question."""
    stack = pipeline.stack
    model = stack.service("instant-model").endpoint
    request_json(model["endpoint_url"], "POST", "/faults", {"answer": ANSWER})
    parts: dict[str, Any] = {
        "generation": {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **model},
        "memory": {"type": "memorydb", "prefix": unique("bench"), **stack.service("memorydb").endpoint},
    }
    took: dict[str, dict[str, list[float]]] = {}
    for warehouse in new_database(stack.service("redshift")):  # type: ignore[arg-type]
        loaded_warehouse(warehouse, stack.aws)
        with reading_user(warehouse) as login, ExitStack() as opened:
            tables = [
                *yaml.safe_load(pipeline.config.read_text())["tables"],
                TICKETS.model_dump(mode="json", exclude_defaults=True),
            ]
            with_facts = {
                "warehouse": warehouse_config(warehouse, stack.aws),
                "facts": login | {"queries": [ALL]},
                "tables": tables,
            }
            urls = {
                "": opened.enter_context(service(pipeline, pipeline.served("asked", **parts))),
                " with facts": opened.enter_context(service(pipeline, pipeline.served("facts", **parts, **with_facts))),
            }
            alone = model_alone(load_config(str(pipeline.served("asked", **parts))), asks)
            for number in range(asks):
                for facts, url in urls.items():
                    for memory in ("", " with memory"):
                        of_kind = took.setdefault(f"ask{memory}{facts}", {"first": [], "whole": []})
                        session = {"session": f"s{number}{facts}"} if memory else {}
                        for name, ms in asked(url, session).items():
                            of_kind[name].append(ms)
    return {
        "model_ms": alone,
        "ms": {kind: {name: percentiles(ms) for name, ms in of_kind.items()} for kind, of_kind in took.items()},
        "ms_without_model": {
            kind: {name: round(statistics.median(ms) - alone["embedding"] - alone[name], 2) for name, ms in of_kind.items()}
            for kind, of_kind in took.items()
        },
    }  # fmt: skip


def asked(url: str, session: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds from a question to its first sentence, and to its answer."""
    question = {"question": " ".join(random.sample(workload.WORDS, 4)), "filters": [FILTER], **session}
    took: dict[str, float] = {}
    with closing(Client(url)) as client:
        began = time.monotonic()
        for name, data in client.events("/v1/ask", question | {"turn_id": uuid.uuid4().hex} if session else question):
            moment = (time.monotonic() - began) * 1000
            if name == "sentence":
                took.setdefault("first", moment)
            elif name == "answer":
                took["whole"] = moment
            elif name in {"error", "restart"}:
                raise RuntimeError(f"{name}: {data}")
    return took


def model_alone(config: PipelineConfig, asks: int) -> dict[str, float]:
    """Medians of the model's own part: an embedding, the first piece of a stream, and the whole of it."""
    assert config.generation is not None  # noqa: S101
    embedder, generator = embedder_of(config), open_generator(config.generation)  # type: ignore[arg-type] # of a text model
    took: dict[str, list[float]] = {"embedding": [], "first": [], "whole": []}
    for _ in range(asks):
        began = time.monotonic()
        embedder.embed_query(" ".join(random.sample(workload.WORDS, 4)))
        took["embedding"].append((time.monotonic() - began) * 1000)
        began, pieces = time.monotonic(), 0
        for pieces, _piece in enumerate(
            generator.stream([Message("user", "When are they removed?")], system="Say."), 1
        ):
            if pieces == 1:
                took["first"].append((time.monotonic() - began) * 1000)
        took["whole"].append((time.monotonic() - began) * 1000)
    return {name: round(statistics.median(ms), 2) for name, ms in took.items()}


if __name__ == "__main__":
    main()
