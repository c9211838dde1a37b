"""`ragstream serve`: the API over a real store, model endpoint and memory, as its clients use it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from jsonschema import Draft202012Validator

from local_stack.models.service import ModelService
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.postgres import VectorStore
from service.http.app import ENDPOINTS
from tests.servers import new_database
from tests.serving import NOTES_OF_TWO_TENANTS, PROBE, Notes, Served, note, parsed, pipeline, serving, written
from tests.waiting import eventually

ADA, BOB, EVE = ("Bearer key-of-ada-0123456789", "Bearer key-of-bob-0123456789", "Bearer key-of-eve-0123456789")


def api_key(name: str, key: str, **claims: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(key.removeprefix("Bearer ").encode()).hexdigest(), "claims": claims}


KEYS = {
    "type": "api_keys",
    "keys": [
        api_key("ada", ADA, sub="ada", tenant="acme"),
        api_key("bob", BOB, sub="bob", tenant="globex"),
        api_key("eve", EVE, sub="eve", tenant="acme"),
    ],
}


SERVE = {
    "callers": KEYS, "open_metrics": True, "limits": {"burst": 1000, "requests_per_minute": 60_000},
}  # fmt: skip


@pytest.fixture(scope="module")
def document(
    vectors: VectorStore, memorydb: MemoryDB, instant_model: ModelService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("serving")
    for dsn in new_database(vectors):
        yield pipeline(folder, dsn, instant_model.endpoint, memorydb.endpoint, serve=SERVE)


@pytest.fixture(scope="module")
def notes(document: dict[str, Any]) -> Iterator[Notes]:
    with written(parsed(document), *NOTES_OF_TWO_TENANTS) as notes:
        yield notes


@pytest.fixture(scope="module")
def served(document: dict[str, Any], notes: Notes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    assert notes.embedder.dimensions == document["embedding"]["dimensions"]
    with serving(document, tmp_path_factory.mktemp("served"), Authorization=ADA) as started:
        yield started


@pytest.fixture(scope="module")
def described(served: Served) -> dict[str, Any]:
    answer: dict[str, Any] = served.get("/openapi.json").json()
    return answer


def require(described: dict[str, Any], schema: str, value: Any) -> Any:
    """The value, if it is as OpenAPI says."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": described["components"]}
    Draft202012Validator(reference).validate(value)
    return value


def cited_id(served: Served, number: int, **headers: str) -> str:
    """The id of a note that the caller finds."""
    hits = served.post("/v1/search", {"query": PROBE}, **headers).json()["results"]
    (document_id,) = [hit["document_id"] for hit in hits if hit["key"] == {"id": number}]
    return str(document_id)


EVENT_SCHEMAS = {
    "started": "Started", "citation": "CitationEvent", "sentence": "Sentence", "answer": "Answer", "error": "Fault",
    "state": "State", "fact": "FactEvent", "freshness": "Freshness",
}  # fmt: skip


def test_a_question_is_answered_in_one_object_or_in_events(served: Served, described: dict[str, Any]) -> None:
    answer = require(described, "Answer", served.post("/v1/ask", {"question": PROBE}).json())
    events = served.events("/v1/ask", {"question": PROBE})
    for name, data in events:
        require(described, EVENT_SCHEMAS[name], data)
    assert [name for name, _ in events] == ["started", "citation", "sentence", "answer"]
    assert events[-1][1] | {"freshness": 0} == answer | {"freshness": 0}
    assert "three years" in answer["answer"]
    nothing = served.post("/v1/ask", {"question": PROBE, "tables": ["public.notes"], "filters": ["tenant = globex"]})
    assert nothing.json()["abstained"]


def test_every_route_is_described_and_answers_as_it_says(served: Served, described: dict[str, Any]) -> None:
    ours = {(endpoint.method.lower(), endpoint.path) for endpoint in ENDPOINTS} | {("get", "/healthz")}
    assert {(method, path) for path, methods in described["paths"].items() for method in methods} == ours
    Draft202012Validator.check_schema({"$defs": described["components"]["schemas"]})
    for reference in re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', json.dumps(described)):
        assert reference in described["components"]["schemas"]
    asked = {"question": PROBE, "session": "described", "turn_id": "one"}
    require(described, "Answer", served.post("/v1/ask", asked).json())
    payload = require(described, "SearchAnswer", served.post("/v1/search", {"query": PROBE, "k": 1}).json())
    assert len(payload["results"]) == 1
    require(described, "Row", served.get(f"/v1/rows/{payload['results'][0]['document_id']}").json())
    require(described, "Freshness", served.get("/v1/freshness").json())
    require(described, "Sessions", served.get("/v1/sessions").json())
    require(described, "Exchanges", served.get("/v1/sessions/described").json())
    require(described, "Profile", served.get("/v1/profile").json())
    require(described, "Me", served.get("/v1/me").json())
    require(described, "Health", served.get("/healthz").json())
    deleted = httpx.delete(f"{served.url}/v1/sessions/described", headers=served.headers).json()
    assert require(described, "Deleted", deleted) == {"session": "described", "deleted_messages": 2}
    require(described, "Error", served.get("/v1/rows/none").json())


def test_a_row_of_another_tenant_is_as_one_that_is_gone(served: Served) -> None:
    ours, theirs = cited_id(served, 1), cited_id(served, 3, Authorization=BOB)
    row = served.get(f"/v1/rows/{ours}").json()
    assert (row["key"], row["metadata"]) == ({"id": 1}, {"tenant": "acme", "price": None})
    assert "three years" in " ".join(row["chunks"])
    refused = [served.get(f"/v1/rows/{name}") for name in (theirs, "0" * 32, "a/b%2Fc", "%00")]
    assert {response.status_code for response in refused} == {404}
    assert len({response.text for response in refused}) == 1


def test_an_edit_is_told_within_a_second_and_a_delete_too(
    served: Served, notes: Notes, described: dict[str, Any]
) -> None:
    notes.put(note(10, "acme", "The lamp of a Heron is white."), note(11, "acme", "A Heron has two lamps."))
    hits = served.post("/v1/search", {"query": "Heron lamp"}).json()["results"]
    cited = [{"document_id": hit["document_id"], "version": hit["version"]} for hit in hits if hit["key"]["id"] > 9]
    foreign = {"document_id": cited_id(served, 3, Authorization=BOB), "version": "1"}
    seen: list[tuple[float, str, Any]] = []
    with served.streaming("/v1/watch", {"citations": [*cited, foreign]}) as (_, events):
        for name, data in events:
            require(described, EVENT_SCHEMAS[name], data)
            seen.append((time.monotonic(), name, data))
            states = [state for _, kind, state in seen if kind == "state"]
            match len(states):
                case 1 if name == "state":
                    assert states[0] | {"at": 0} == {"document_id": foreign["document_id"], "state": "gone", "at": 0}
                    notes.put(note(10, "acme", "The lamp of a Heron is green."))
                    edited = time.monotonic()
                case 2 if name == "state":
                    seconds = time.monotonic() - edited
                    notes.delete(note(11, "acme", ""))
                case 3:
                    break
    assert [state["state"] for state in states] == ["gone", "changed", "gone"]
    assert seconds < 1
    freshness = [at for at, name, _ in seen if name == "freshness"]
    assert freshness
    old = {**cited[0], "version": "0"}
    with served.streaming("/v1/watch", {"citations": [old]}) as (_, events):
        assert next(data["state"] for name, data in events if name == "state") in {"changed", "gone"}
    eventually(lambda: served.metric("ragstream_watched_documents") == 0)


def test_numbers_and_texts_come_as_the_row_has_them(served: Served, notes: Notes) -> None:
    wide = 12345678901234567890123
    notes.put(note(wide, "acme", "A Plover\u2028costs \x7f much. \U0001f426", Decimal("1000000000000000000000.10")))
    (document_id,) = (
        hit["document_id"]
        for hit in served.post("/v1/search", {"query": "Plover"}).json()["results"]
        if hit["key"]["id"] == wide
    )
    row = json.loads(served.get(f"/v1/rows/{document_id}").text, parse_float=Decimal)
    assert row["metadata"]["price"] == Decimal("1000000000000000000000.10")
    assert "\U0001f426" in row["chunks"][0]
    events = served.events("/v1/ask", {"question": "Does a Plover cost much?"})
    assert events[-1][0] == "answer"
    notes.delete(note(wide, "acme", ""))


def test_a_conversation_is_kept_and_is_its_users_alone(served: Served) -> None:
    asked = {"question": PROBE, "session": "Ada’s: 1/2", "turn_id": "first"}
    first, again = served.post("/v1/ask", asked).json(), served.post("/v1/ask", asked).json()
    assert (first, first["turn"], first["turn_id"]) == (again, 1, "first")
    path = f"/v1/sessions/{quote('Ada’s: 1/2', safe='')}"
    assert served.get("/v1/sessions").json()["sessions"][0]["session"] == "Ada’s: 1/2"
    (exchange,) = served.get(path).json()["exchanges"]
    assert (exchange["question"], exchange["state"], exchange["answer"]) == (PROBE, "answered", first)
    for refused in (
        served.get(path, Authorization=EVE),
        served.post("/v1/ask", asked | {"turn_id": "second"}, Authorization=EVE),
        httpx.delete(served.url + path, headers={"Authorization": EVE}),
    ):
        assert (refused.status_code, refused.json()["error"]["condition"]) == (403, "SESSION_OF_ANOTHER")
    assert served.get("/v1/sessions", Authorization=EVE).json() == {"sessions": []}
    other = served.post("/v1/ask", asked | {"question": "Is a mast painted?"})
    assert (other.status_code, other.json()["error"]["condition"]) == (409, "TURN_ID_USED")
    assert served.get("/v1/sessions/none").status_code == 404


def test_an_answer_is_rated_by_who_got_it(served: Served) -> None:
    served.post("/v1/ask", {"question": PROBE, "session": "rated"})

    def rate(body: dict[str, Any], key: str = ADA) -> tuple[int, Any]:
        said = served.post("/v1/feedback", {"session": "rated", "turn": 1, "rating": "down", **body}, Authorization=key)
        return said.status_code, said.json().get("error", {}).get("condition")

    assert rate({}) == rate({"rating": "up", "comment": "swordfish-4711"}) == (200, None)
    (exchange,) = served.get("/v1/sessions/rated").json()["exchanges"]
    assert exchange["rating"] == {"rating": "up", "comment": "swordfish-4711"}
    assert rate({}, EVE) == (403, "SESSION_OF_ANOTHER")
    assert rate({"turn": 2}) == (404, "TURN_UNKNOWN")
    assert rate({"rating": "sideways"}) == rate({"turn": "1"}) == (422, "BODY_INVALID")
    assert rate({"comment": "c" * 2001}) == (413, "MESSAGE_TOO_LARGE")


def test_metrics_tell_how_far_the_index_is(served: Served, notes: Notes) -> None:
    assert math.isnan(served.metric("ragstream_freshness_lag_seconds"))
    notes.sink.note_progress(time.time_ns() // 1000 - 3_000_000)
    eventually(lambda: 3 <= served.metric("ragstream_freshness_lag_seconds") < 30)


def test_metrics_count_searches_watchers_and_what_models_were_asked(
    document: dict[str, Any], notes: Notes, instant_model: ModelService, tmp_path: Path
) -> None:
    assert notes.embedder.dimensions == document["embedding"]["dimensions"]
    model = {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **instant_model.endpoint}
    with serving(document | {"generation": model}, tmp_path / "served", Authorization=ADA) as counted:
        counted.post("/v1/search", {"query": PROBE})
        counted.post("/v1/search", {"query": PROBE, "filters": ["tenant = globex"]})
        assert counted.metric("ragstream_searches_total", outcome="relevant") == 1
        assert counted.metric("ragstream_searches_total", outcome="irrelevant") == 1
        queries = {"model": document["embedding"]["model"], "purpose": "query"}
        assert counted.metric("ragstream_model_requests_total", **queries, outcome="answered") == 2
        assert counted.metric("ragstream_model_tokens_total", **queries, direction="input") > 0
        assert counted.post("/v1/ask", {"question": PROBE}).status_code == 200
        generations = {"model": model["model"], "purpose": "generation"}
        assert counted.metric("ragstream_model_requests_total", **generations, outcome="answered") == 1
        assert counted.metric("ragstream_model_requests_total", **generations, outcome="failed") == 0
        for direction in ("input", "output"):
            assert counted.metric("ragstream_model_tokens_total", **generations, direction=direction) > 0
        watched = {"citations": [{"document_id": cited_id(counted, 1), "version": "0" * 16}]}
        with counted.streaming("/v1/watch", watched) as (_, events):
            next(events)
            assert (counted.metric("ragstream_watchers"), counted.metric("ragstream_watched_documents")) == (1, 1)
        eventually(lambda: counted.metric("ragstream_watchers") == 0)


def test_an_answer_out_of_budget_is_refused_while_searches_go_on(
    document: dict[str, Any], notes: Notes, instant_model: ModelService, tmp_path: Path
) -> None:
    assert notes.embedder.dimensions == document["embedding"]["dimensions"]
    budget = {"requests_per_minute": 2, "wait": "50ms", "ledger": {"type": "file", "path": str(tmp_path / "budget")}}
    model = {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **instant_model.endpoint, "budget": budget}
    with serving(document | {"generation": model}, tmp_path / "served", Authorization=ADA) as limited:
        assert limited.post("/v1/ask", {"question": PROBE}).status_code == 200
        refused = limited.post("/v1/ask", {"question": PROBE})
        assert (refused.status_code, refused.json()["error"]["condition"]) == (503, "BUDGET_USED_UP")
        assert "requests_per_minute" in limited.log.read_text()
        assert limited.post("/v1/search", {"query": PROBE}).json()["results"]
        waits = {"section": "generation", "limit": "requests_per_minute"}
        eventually(lambda: limited.metric("ragstream_budget_wait_seconds", **waits) > 0)


def test_a_profile_is_written_from_the_version_that_was_read(served: Served) -> None:
    def put(values: Any, version: int) -> httpx.Response:
        body = {"values": values, "version": version}
        return httpx.put(f"{served.url}/v1/profile", json=body, headers=served.headers)

    assert served.get("/v1/profile").json()["version"] == 0
    assert put({"plan": "Grower", "hubs": 3}, 0).json()["values"] == {"plan": "Grower", "hubs": 3}
    late, wrong = put({"plan": "Seed"}, 0), put({"hubs": "many", "shoe_size": 44}, 1)
    assert (late.status_code, late.json()["error"]["condition"]) == (409, "PROFILE_CHANGED")
    assert (wrong.status_code, wrong.json()["error"]["condition"]) == (422, "PROFILE_INVALID")
    assert "many" not in wrong.text
    assert put({"plan": 7}, -1).status_code == 422
    assert served.get("/v1/profile").json()["fields"]["hubs"]["type"] == "integer"
    assert served.get("/v1/profile", Authorization=EVE).json()["values"] == {}


SECRET = "swordfish-4711"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "condition"),
    [
        ("/v1/ask", b'{"question": "swordfish-4711', JSON, 400, "BODY_MALFORMED"),
        ("/v1/ask", b'{"question": "swordfish-4711\xff"}', JSON, 400, "BODY_MALFORMED"),
        ("/v1/ask", b'{"question": "swordfish-4711\\ud800"}', JSON, 400, "BODY_MALFORMED"),
        ("/v1/ask", b"[" * 100_000, JSON, 400, "BODY_MALFORMED"),
        ("/v1/ask", b"", JSON, 400, "BODY_MALFORMED"),
        ("/v1/ask", b'"swordfish-4711"', JSON, 422, "BODY_INVALID"),
        ("/v1/ask", b'{"question": ""}', JSON, 422, "BODY_INVALID"),
        ("/v1/ask", b'{"question": ["swordfish-4711"]}', JSON, 422, "BODY_INVALID"),
        ("/v1/ask", b'{"question": "q", "swordfish-4711": 1}', JSON, 422, "BODY_INVALID"),
        ("/v1/ask", b'{"question": "q", "filters": ["tenant ~ swordfish-4711"]}', JSON, 422, "FILTER_INVALID"),
        ("/v1/ask", b'{"question": "q", "tables": ["public.other"]}', JSON, 422, "FILTER_INVALID"),
        ("/v1/ask", b'{"question": "q", "session": "\\u0007swordfish-4711"}', JSON, 422, "NAME_INVALID"),
        ("/v1/ask", b'{"question": "swordfish-4711"}', {"Content-Type": "text/plain"}, 415, "BODY_TYPE"),
        ("/v1/ask", b'{"question": "swordfish-4711"}', {}, 415, "BODY_TYPE"),
        ("/v1/search", b'{"query": "q", "k": 100000}', JSON, 422, "BODY_INVALID"),
        ("/v1/search", b'{"query": "q", "k": true}', JSON, 422, "BODY_INVALID"),
        ("/v1/search", b'{"query": "' + b"x" * 300_000 + b'"}', JSON, 413, "QUESTION_TOO_LONG"),
        ("/v1/ask", b'{"session": "s", "question": "' + b"x" * 200_000 + b'"}', JSON, 413, "MESSAGE_TOO_LARGE"),
        ("/v1/ask", b'{"question": "' + b"x" * 2_000_000 + b'"}', JSON, 413, "BODY_TOO_LARGE"),
        ("/v1/watch", b'{"citations": [{"document_id": "swordfish-4711"}]}', JSON, 422, "BODY_INVALID"),
        ("/v1/none", b"", JSON, 404, "NOT_FOUND"),
        ("/v1/sessions", b"", JSON, 405, "METHOD_NOT_ALLOWED"),
        ("/v1/ask", b"{}", JSON | {"Authorization": "Bearer swordfish-4711"}, 401, "KEY_UNKNOWN"),
        ("/v1/ask", b"{}", JSON | {"Authorization": "Basic swordfish-4711"}, 401, "SIGN_IN_NEEDED"),
        ("/v1/ask", b"{}", JSON | {"Origin": "https://swordfish-4711.example"}, 403, "ORIGIN_FOREIGN"),
        ("/v1/ask", b"{}", JSON | {"Host": "swordfish-4711/../"}, 421, "HOST_UNKNOWN"),
    ],
)
def test_a_request_that_is_not_answered_says_why(
    served: Served, path: str, body: bytes, headers: dict[str, str], status: int, condition: str
) -> None:
    refused = httpx.post(served.url + path, content=body, headers=served.headers | headers)
    assert (refused.status_code, refused.json()["error"]["condition"]) == (status, condition)
    assert SECRET not in refused.text
    assert ("www-authenticate" in refused.headers) == (status == 401)


def test_a_body_without_a_length_is_measured(served: Served) -> None:
    parts = (b"x" * 100_000 for _ in range(20))
    refused = httpx.post(f"{served.url}/v1/ask", content=parts, headers=served.headers | JSON)
    assert (refused.status_code, refused.json()["error"]["condition"]) == (413, "BODY_TOO_LARGE")


def test_every_answer_has_headers_that_keep_a_page_safe(served: Served) -> None:
    for answer in (
        served.get("/v1/me"),
        served.get("/nowhere"),
        served.get("/healthz"),
        served.get("/v1/me", Host="a b"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert len(answer.headers["x-request-id"]) == 32
    assert served.get("/v1/me").json() == {
        "user": "ada", "sign_in": "key", "pipeline": "notes", "answerer": "extractive", "memory": True,
        "tables": ["public.notes"],
    }  # fmt: skip


def test_two_tenants_at_once_never_see_a_word_of_each_other(served: Served) -> None:
    sees, ids = {ADA: "three years", BOB: "nine years"}, {}
    for key, number in ((ADA, 1), (BOB, 3)):
        ids[key] = cited_id(served, number, Authorization=key)

    def visit(number: int) -> list[str]:
        key, other = (ADA, BOB) if number % 2 else (BOB, ADA)
        session = f"tenants-{number}"
        texts = [
            served.post("/v1/search", {"query": PROBE}, Authorization=key).text,
            json.dumps(served.events("/v1/ask", {"question": PROBE, "session": session}, Authorization=key)),
            served.get(f"/v1/sessions/{session}", Authorization=key).text,
            served.get(f"/v1/rows/{ids[other]}", Authorization=key).text,
        ]
        assert all(sees[key] in text for text in texts[:3]), texts
        return [text for text in texts if sees[other] in text or f'"{"globex" if key == ADA else "acme"}"' in text]

    with ThreadPoolExecutor(8) as pool:
        assert [crossing for crossings in pool.map(visit, range(10)) for crossing in crossings] == []


def test_nothing_of_a_request_stands_in_the_log(served: Served) -> None:
    served.post("/v1/ask", {"question": f"{SECRET}?", "session": SECRET})
    served.get("/v1/rows/none", **{"X-Forwarded-For": SECRET})
    eventually(lambda: any(line.get("route") == "/v1/rows/{document_id}" for line in served.logged()))
    text = served.log.read_text()
    assert [
        word
        for word in (SECRET, "warranty", "three years", "Moss", "key-of-ada", "Bearer", "swordfish")
        if word in text
    ] == []
    lines = [line for line in served.logged() if line["msg"] == "request"]
    assert {"request_id", "method", "route", "status", "milliseconds", "caller"} <= set(lines[-1])
    assert served.metric("ragstream_http_requests_total", route="/v1/ask", status="200") > 0
    assert served.metric("ragstream_answers_total", outcome="answered") > 0
