"""The assistant of a pipeline for many callers at once, over a real store, the local model endpoint and a real memory."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr, TypeAdapter

from embeddings import EmbeddingConfig
from generation import TextModelConfig
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.postgres import VectorStore
from memory import MemoryConfig
from retrieval import EXTRACTIVE, RetrievalConfig
from retrieval.access import Scope
from retrieval.answering.events import Answered, CancelledError, Cited, Event, Restarted, SentenceWritten, Started
from retrieval.conversation.turns import Session
from schemas.caller import Caller
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import ChunkConfig, DocumentConfig, TableConfig
from service.assistant import AssistantService
from sinks.pgvector.config import PgvectorConfig
from tests.asking import Pipeline
from tests.endpoint import Endpoint
from tests.servers import new_database, unique
from tests.serving import NOTES, NOTES_OF_TWO_TENANTS, PROBE, Notes, note, written

DOCUMENT = DocumentConfig(template="{title}\n\n{body}", metadata=("tenant",), chunk=ChunkConfig(max_tokens=200))
TABLES = (TableConfig(table=NOTES, keys=("id",), document=DOCUMENT),)
ACME = Caller({"tenant": "acme", "sub": "ada"})
GLOBEX = Caller({"tenant": "globex", "sub": "bob"})
ALL_ANSWER = RetrievalConfig(min_similarity=-1)


@pytest.fixture
def pipeline(vectors: VectorStore, memorydb: MemoryDB, endpoint: Endpoint) -> Iterator[Pipeline]:
    embedding: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
    kept: TypeAdapter[MemoryConfig] = TypeAdapter(MemoryConfig)
    model = {"type": "bedrock", "model": "cohere.embed-v4:0", "dimensions": 512, **endpoint.service.endpoint}
    memory = {
        "type": "memorydb", "prefix": unique("notes"), "busy_timeout": "5s", **memorydb.endpoint,
        "profile": {"plan": {"type": "text", "description": "what is paid for"}},
    }  # fmt: skip
    for dsn in new_database(vectors):
        yield Pipeline(
            embedding.validate_python(model),
            (PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table="notes"),),
            EXTRACTIVE,
            ALL_ANSWER,
            TABLES,
            {"tenant": "${claim:tenant}"},
            memory=kept.validate_python(memory),
        )


@pytest.fixture(autouse=True)
def notes(pipeline: Pipeline) -> Iterator[Notes]:
    with written(pipeline, *NOTES_OF_TWO_TENANTS) as notes:
        yield notes


@pytest.fixture
def service(pipeline: Pipeline) -> Iterator[AssistantService]:
    with AssistantService(pipeline, connections=3) as opened:
        yield opened


def test_an_answer_is_told_in_events_and_given_whole(service: AssistantService) -> None:
    events: list[Event] = []
    answer = service.ask(PROBE, Scope(caller=ACME), on_event=events.append)
    assert "three years" in answer["answer"]
    assert events[0] == Started(PROBE)
    assert events[-1] == Answered(answer)
    assert [e.as_json() for e in events if isinstance(e, SentenceWritten)] == answer["sentences"]
    cited = [e.as_json() for e in events if isinstance(e, Cited)]
    assert [citation.pop("number") for citation in cited] == list(range(1, len(cited) + 1))
    assert cited == answer["citations"]
    assert service.ask(PROBE, Scope(caller=ACME)) | {"freshness": 0} == answer | {"freshness": 0}


def test_rows_and_versions_are_those_that_the_caller_may_see(service: AssistantService, notes: Notes) -> None:
    hits = service.search(PROBE, 5, Scope(caller=ACME))["results"]
    assert sorted(hit["key"]["id"] for hit in hits) == [1, 2]
    ids = [hit["document_id"] for hit in hits]
    versions = service.versions(ids, ACME)
    assert versions == {hit["document_id"]: hit["version"] for hit in hits}
    name = next(hit["document_id"] for hit in hits if hit["key"] == {"id": 1})
    row = service.row(name, ACME)
    assert row is not None
    assert (row["table"], row["metadata"], row["version"]) == (NOTES, {"tenant": "acme"}, versions[name])
    assert "three years" in row["chunks"][0]
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(row["searchable_at"])
    assert abs(age.total_seconds()) < 60
    assert (service.row(name, GLOBEX), service.row("no-such-row", ACME)) == (None, None)
    assert service.versions(ids, GLOBEX) == {}
    notes.put(note(1, "globex", "The warranty of a Moss probe is three years."))
    assert service.versions(ids, ACME).keys() == set(ids) - {name}
    moved = service.row(name, GLOBEX)
    assert moved is not None
    assert moved["version"] != versions[name]


def test_a_session_is_listed_read_and_deleted_by_its_user_alone(service: AssistantService) -> None:
    session = Session("talk", "mine")
    first = service.ask(PROBE, Scope(caller=ACME), session)
    assert [listing["session"] for listing in service.sessions(ACME)] == ["talk"]
    (exchange,) = service.exchanges(ACME, "talk")
    assert (exchange["turn"], exchange["question"], exchange["reply"]) == (1, PROBE, first)
    assert service.sessions(GLOBEX) == []
    with pytest.raises(ConfigurationError, match="another user"):
        service.exchanges(GLOBEX, "talk")
    elsewhere = Caller({"tenant": "globex", "sub": "ada"})
    with pytest.raises(ConfigurationError, match="no session"):
        service.exchanges(elsewhere, "talk")
    with pytest.raises(ConfigurationError, match="no user"):
        service.sessions(Caller({"tenant": "acme"}))
    assert service.delete_session(ACME, "talk") == {"session": "talk", "deleted_messages": 2}
    assert service.sessions(ACME) == []


def test_a_profile_is_written_on_the_version_that_was_read(service: AssistantService) -> None:
    empty = service.profile(ACME)
    assert (empty["version"], empty["values"], empty["fields"]["plan"]["type"]) == (0, {}, "text")
    assert service.put_profile(ACME, {"plan": "team"}, 0)["version"] == 1
    assert service.profile(ACME)["values"] == {"plan": "team"}
    with pytest.raises(UnavailableError, match="version"):
        service.put_profile(ACME, {"plan": "other"}, 0)
    with pytest.raises(ConfigurationError, match="no user"):
        service.profile(Caller({"tenant": "acme"}))


def test_a_repeated_turn_is_refused_once_one_of_its_rows_changed(service: AssistantService, notes: Notes) -> None:
    events: list[Event] = []
    asked = Scope(caller=ACME), Session("talk", "mine")
    first = service.ask(PROBE, *asked)
    assert service.ask(PROBE, *asked, on_event=events.append) == first
    assert [type(event) for event in events] == [Started, Answered]
    notes.put(note(1, "globex", "The warranty of a Moss probe is three years."))
    with pytest.raises(ConfigurationError, match="changed, are gone") as refused:
        service.ask(PROBE, *asked)
    assert refused.value.condition == "ANSWER_OUTDATED"
    assert "three" not in service.ask(PROBE, asked[0], Session("talk", "another"))["answer"]


def test_connections_that_a_restart_broke_cost_no_question(service: AssistantService, vectors: VectorStore) -> None:
    def ask(texts: list[str]) -> None:
        texts.append(service.ask(PROBE, Scope(caller=ACME))["answer"])

    def ask_at_once() -> list[str]:
        texts: list[str] = []
        threads = [threading.Thread(target=ask, args=(texts,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return texts

    before = ask_at_once()
    vectors.restart()
    assert ask_at_once() == before
    assert len(before) == 6


def test_questions_take_no_more_connections_than_are_allowed(service: AssistantService, pipeline: Pipeline) -> None:
    (sink,) = pipeline.sinks
    assert isinstance(sink, PgvectorConfig)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: service.search(PROBE, 5, Scope(caller=ACME)), range(18)))
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ragstream search' AND datname = current_database()"
    with psycopg.connect(sink.conninfo) as admin:
        (count,) = admin.execute(query).fetchone() or (0,)
    assert 1 <= count <= 3


def test_a_store_that_is_silent_is_waited_for_a_bounded_time(pipeline: Pipeline, vectors: VectorStore) -> None:
    sink = pipeline.sinks[0].model_copy(update={"deadline": 0.5, "connect_timeout_seconds": 1})
    with AssistantService(replace(pipeline, sinks=(sink,)), connections=1) as impatient:
        before = impatient.search(PROBE, 5, Scope(caller=ACME))["results"]
        vectors.pause()
        try:
            with pytest.raises(UnavailableError, match="does not answer"):
                impatient.search(PROBE, 5, Scope(caller=ACME))
        finally:
            vectors.resume()
        assert impatient.search(PROBE, 5, Scope(caller=ACME))["results"] == before


def test_feedback_is_kept_with_the_answer_that_it_is_on(service: AssistantService) -> None:
    service.ask(PROBE, Scope(caller=ACME), Session("talk"))
    assert service.feedback(ACME, "talk", 1, "down", "too short")["rating"] == "down"
    assert service.exchanges(ACME, "talk")[0]["feedback"] == {"rating": "down", "comment": "too short"}
    for other in (GLOBEX, Caller({"tenant": "acme"})):
        with pytest.raises(ConfigurationError):
            service.feedback(other, "talk", 1, "up")


SPRING = "A Skua mast is painted every spring [1, 2]."
SAID = f"The warranty of a Moss probe is three years [1, 2]. {SPRING} Ask again."
PIECE_MS = 5


@pytest.fixture
def worded(pipeline: Pipeline, endpoint: Endpoint) -> Iterator[AssistantService]:
    """The assistant of a pipeline whose text model says `SAID`, slowly."""
    kept: TypeAdapter[TextModelConfig] = TypeAdapter(TextModelConfig)
    model = {
        "type": "bedrock",
        "model": "amazon.nova-lite-v1:0",
        "guardrail": {"id": "gr-1"},
        **endpoint.service.endpoint,
    }
    endpoint.faults(answer=SAID, piece_ms=PIECE_MS)
    with AssistantService(replace(pipeline, generation=kept.validate_python(model)), connections=2) as opened:
        yield opened


class Listening:
    """Keeps the events of an answer; `then` is done at the first sentence."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.events: list[Event] = []
        self._then: Callable[[], object] | None = then

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, SentenceWritten) and self._then is not None:
            then, self._then = self._then, None
            then()

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def since_restart(self, kind: type[Cited | SentenceWritten]) -> list[dict[str, Any]]:
        """The events of a kind since the last restart."""
        restarts = [place for place, event in enumerate(self.events) if isinstance(event, Restarted)]
        return [event.as_json() for event in self.events[max(restarts, default=0) :] if isinstance(event, kind)]


def test_sentences_are_told_while_the_model_writes(worded: AssistantService, endpoint: Endpoint) -> None:
    generations: list[int] = []
    listening = Listening(lambda: generations.append(endpoint.counters()["generations"]))
    answer = worded.ask(PROBE, Scope(caller=ACME), on_event=listening)
    assert generations == [0], "the model counts an answer at its end"
    assert listening.names == ["started", "citation", "citation", "sentence", "sentence", "answer"]
    assert listening.since_restart(SentenceWritten) == answer["sentences"]
    assert worded.ask(PROBE, Scope(caller=ACME)) | {"freshness": 0} == answer | {"freshness": 0}
    assert endpoint.counters()["generations"] == 2
    assert endpoint.counters()["texts"] == 5, "three rows, and a question once each time"


def test_an_edit_in_mid_answer_takes_back_what_was_said(
    worded: AssistantService, notes: Notes, endpoint: Endpoint
) -> None:
    def edit() -> None:
        endpoint.faults(answer=SAID.replace("three", "four"), piece_ms=PIECE_MS)
        notes.put(note(1, "acme", "The warranty of a Moss probe is four years."))

    listening = Listening(edit)
    answer = worded.ask(PROBE, Scope(caller=ACME), on_event=listening)
    assert listening.names[:5] == ["started", "citation", "citation", "sentence", "restart"]
    assert listening.names.count("restart") == 1
    assert "three years" in str(listening.events[:-1])
    assert listening.since_restart(SentenceWritten)[0]["text"] == "The warranty of a Moss probe is four years."
    assert listening.since_restart(SentenceWritten) == answer["sentences"]
    versions = worded.versions([citation["document_id"] for citation in answer["citations"]], ACME)
    assert {citation["document_id"]: citation["version"] for citation in answer["citations"]} == versions


def test_a_row_that_moves_away_in_mid_answer_is_not_told_again(worded: AssistantService, notes: Notes) -> None:
    listening = Listening(lambda: notes.put(note(1, "globex", "The warranty of a Moss probe is three years.")))
    answer = worded.ask(PROBE, Scope(caller=ACME), on_event=listening)
    assert listening.names[:5] == ["started", "citation", "citation", "sentence", "restart"]
    assert listening.names.count("restart") == 1
    assert [sentence["text"] for sentence in listening.since_restart(SentenceWritten)] == [
        "A Skua mast is painted every spring."
    ]
    assert "three" not in str(answer)


def test_a_guardrail_behind_the_pieces_takes_back_what_was_said(worded: AssistantService, endpoint: Endpoint) -> None:
    endpoint.faults(answer=SAID, guard_answer="again")
    listening = Listening()
    answer = worded.ask(PROBE, Scope(caller=ACME), Session("talk"), on_event=listening)
    assert listening.names == ["started", "citation", "citation", "sentence", "sentence", "restart", "answer"]
    assert (answer["abstained"], answer["citations"], answer["sentences"]) == (True, [], [])
    assert "guardrail" in answer["answer"]


@pytest.mark.parametrize("how", ["cancelled", "gone"])
def test_a_listener_that_leaves_leaves_the_turn_unanswered(
    worded: AssistantService, endpoint: Endpoint, how: str
) -> None:
    cancelled, asked = threading.Event(), (PROBE, Scope(caller=ACME), Session("talk", "mine"))

    def leave() -> None:
        if how == "gone":
            raise BrokenPipeError
        cancelled.set()

    endpoint.faults(answer=SAID + " More." * 2_000, piece_ms=PIECE_MS)
    with pytest.raises(CancelledError if how == "cancelled" else BrokenPipeError):
        worded.ask(*asked, on_event=Listening(leave), cancelled=cancelled)
    assert [exchange["state"] for exchange in worded.exchanges(ACME, "talk")] == ["unanswered"]
    endpoint.faults(answer=SAID)
    assert worded.ask(*asked)["turn"] == 1
    assert [exchange["state"] for exchange in worded.exchanges(ACME, "talk")] == ["answered"]


def test_a_question_cancelled_before_it_is_asked_costs_no_model_call(
    worded: AssistantService, endpoint: Endpoint
) -> None:
    cancelled = threading.Event()
    cancelled.set()
    before = endpoint.counters()
    with pytest.raises(CancelledError):
        worded.ask(PROBE, Scope(caller=ACME), cancelled=cancelled)
    assert endpoint.counters() == before


def test_a_stream_that_breaks_off_goes_on_without_saying_anything_twice(
    worded: AssistantService, endpoint: Endpoint
) -> None:
    endpoint.faults(answer=SAID, stream_error=1, stream_error_after=15)
    listening = Listening()
    answer = worded.ask(PROBE, Scope(caller=ACME), on_event=listening)
    assert listening.names == ["started", "citation", "citation", "sentence", "sentence", "answer"]
    assert len(answer["sentences"]) == 2


def test_rows_that_move_while_eight_threads_ask_are_never_crossed(service: AssistantService, notes: Notes) -> None:
    def of(tenant: str, number: int, what: int) -> dict[str, Any]:
        return note(number, tenant, f"The secret {what} belongs to {tenant}.")

    done, crossings, asked = threading.Event(), list[str](), [0] * 8

    def ask(place: int) -> None:
        own, other = (("acme", "globex"), ("globex", "acme"))[place % 2]
        scope, payloads = Scope(caller=Caller({"tenant": own, "sub": f"user {place}"})), list[object]()
        session = Session(f"talk {place}")
        while not done.is_set():
            with suppress(UnavailableError):  # its rows moved at each try
                payloads.append(service.ask("secret", scope, session, on_event=payloads.append))
            hits = service.search("secret", 5, scope)["results"]
            payloads += [hits, *(service.row(hit["document_id"], scope.caller) for hit in hits)]
            crossings.extend(text for text in map(str, payloads) if f"belongs to {other}" in text)
            asked[place] += 1
            payloads = [service.exchanges(scope.caller, session.name)]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    moves = 0
    while moves < 400 and min(asked) < 15:
        notes.put(*(of(("acme", "globex")[(number + moves) % 2], number, moves) for number in range(1, 5)))
        moves += 1
    done.set()
    for thread in threads:
        thread.join()
    assert crossings == []
    assert min(asked) >= 15
    assert moves > 10
