"""The assistant of a pipeline for many callers at once, over a real store, the local model endpoint and a real memory."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter

from embeddings import EmbeddingConfig, open_embedder
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.postgres import VectorStore
from memory import MemoryConfig
from retrieval import EXTRACTIVE, RetrievalConfig
from retrieval.access import Scope
from retrieval.conversation import Session
from schemas.caller import Caller
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import ChunkConfig, DocumentConfig, TableConfig
from service.assistant import AssistantService
from service.events import Answered, Cited, Event, Said, Started
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from tests.asking import Pipeline
from tests.endpoint import Endpoint
from tests.helpdesk import put
from tests.servers import new_database, unique
from transforms.documents.planning import DocumentSpec

NOTES = "public.notes"
DOCUMENT = DocumentConfig(template="{title}\n\n{body}", metadata=("tenant",), chunk=ChunkConfig(max_tokens=200))
TABLES = (TableConfig(table=NOTES, keys=("id",), document=DOCUMENT),)
ACME = Caller({"tenant": "acme", "sub": "ada"})
GLOBEX = Caller({"tenant": "globex", "sub": "bob"})
ALL_ANSWER = RetrievalConfig(min_similarity=-1)
PROBE = "How long is the warranty of a Moss probe?"


def note(number: int, tenant: str, body: str) -> dict[str, Any]:
    return {"id": number, "tenant": tenant, "title": f"Note {number}", "body": body}


class Notes:
    """Rows of notes in a store, each written as of a position of its own."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.embedder, self._at = pipeline, open_embedder(pipeline.embedding), 0
        self.sink = open_sink(pipeline.sinks[0], self.embedder.fingerprint, self.embedder.dimensions)
        self.sink.prepare()

    def put(self, *rows: dict[str, Any]) -> None:
        self._at += 1
        put(self.sink, self.embedder, NOTES, rows, at=self._at, specs={NOTES: DocumentSpec(NOTES, DOCUMENT)})


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


@pytest.fixture
def notes(pipeline: Pipeline) -> Iterator[Notes]:
    rows = Notes(pipeline)
    with closing(rows.sink):
        rows.put(
            note(1, "acme", "The warranty of a Moss probe is three years."),
            note(2, "acme", "A Skua mast is painted every spring."),
            note(3, "globex", "The warranty of a Moss probe is nine years."),
        )
        yield rows


@pytest.fixture
def service(notes: Notes) -> Iterator[AssistantService]:
    with AssistantService(notes.pipeline, connections=3) as opened:
        yield opened


def test_an_answer_is_told_in_events_and_given_whole(service: AssistantService) -> None:
    events: list[Event] = []
    answer = service.ask(PROBE, Scope(caller=ACME), on_event=events.append)
    assert "three years" in answer["answer"]
    assert events[0] == Started(PROBE)
    assert events[-1] == Answered(answer)
    assert [e.as_json() for e in events if isinstance(e, Said)] == answer["sentences"]
    cited = [e.as_json() for e in events if isinstance(e, Cited)]
    assert [each.pop("number") for each in cited] == list(range(1, len(cited) + 1))
    assert cited == answer["citations"]
    assert service.ask(PROBE, Scope(caller=ACME)) | {"freshness": 0} == answer | {"freshness": 0}


def test_rows_and_versions_are_those_that_the_caller_may_see(service: AssistantService, notes: Notes) -> None:
    found = service.search(PROBE, 5, Scope(caller=ACME))["results"]
    assert sorted(each["key"]["id"] for each in found) == [1, 2]
    ids = [each["document_id"] for each in found]
    versions = service.versions(ids, ACME)
    assert versions == {each["document_id"]: each["version"] for each in found}
    name = next(each["document_id"] for each in found if each["key"] == {"id": 1})
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
    assert [each["session"] for each in service.sessions(ACME)] == ["talk"]
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
    def ask(answers: list[str]) -> None:
        answers.append(service.ask(PROBE, Scope(caller=ACME))["answer"])

    def ask_at_once() -> list[str]:
        answers: list[str] = []
        threads = [threading.Thread(target=ask, args=(answers,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    before = ask_at_once()
    vectors.restart()
    assert ask_at_once() == before
    assert len(before) == 6


def test_feedback_is_kept_with_the_answer_that_it_is_on(service: AssistantService) -> None:
    service.ask(PROBE, Scope(caller=ACME), Session("talk"))
    assert service.feedback(ACME, "talk", 1, "down", "too short")["rating"] == "down"
    assert service.exchanges(ACME, "talk")[0]["feedback"] == {"rating": "down", "comment": "too short"}
    for other in (GLOBEX, Caller({"tenant": "acme"})):
        with pytest.raises(ConfigurationError):
            service.feedback(other, "talk", 1, "up")
