"""`ragstream serve` when it is not easy: many at once, clients that leave or dawdle, parts that are away, a stop in between."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from local_stack.certificates import self_signed
from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.postgres import VectorStore
from tests.endpoint import Endpoint
from tests.key_server import AUDIENCE, ISSUER, Issuer, issuing
from tests.servers import new_database
from tests.serving import NOTES_OF_TWO_TENANTS, PROBE, Served, parsed, pipeline, serving, written
from tests.waiting import eventually

STREAMS, CUT = 32, 8
POOL = 4
"""Connections of the service to its store; fewer than the streams that are cut off, so none of those may keep one."""
OF_VERSIONS = 1
"""A connection beside them reads which index version is active."""
OF_HEALTH = 4
"""Threads that look at store and memory; they start with the first looks."""
ANSWER = "The warranty of a Moss probe is three years. [1]"
LIMITS = {"burst": 1000, "requests_per_minute": 60_000, "concurrent": 40, "concurrent_per_caller": 40}
KEYS = {"type": "api_keys", "keys": [{"name": "ada", "sha256": hashlib.sha256(b"swordfish").hexdigest()}]}
LOCAL = {"callers": {"type": "none", "claims": {"sub": "ada", "tenant": "acme"}}}


@pytest.fixture(scope="module")
def document(
    vectors: VectorStore, memorydb: MemoryDB, instant_model: ModelService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Answers are worded by a text model, behind an endpoint whose faults a test sets."""
    folder = tmp_path_factory.mktemp("loaded")
    for dsn in new_database(vectors):
        generation = {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **instant_model.endpoint}
        document = pipeline(folder, dsn, instant_model.endpoint, memorydb.endpoint, generation=generation)
        with written(parsed(document), NOTES_OF_TWO_TENANTS[0]):
            pass
        yield document


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as started:
        yield started


@pytest.fixture(scope="module")
def signed_in(document: dict[str, Any], issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Served to callers with tokens."""
    callers = {
        "type": "jwt", "issuer": ISSUER, "audience": [AUDIENCE], "jwks_url": f"{issuer.url}/jwks.json",
        "claims": {"tenant": "tenant"},
    }  # fmt: skip
    serve = {"callers": callers, "limits": LIMITS, "open_metrics": True, "connections": POOL}
    token = issuer.token({"tenant": "acme"})
    with serving(
        document | {"serve": serve}, tmp_path_factory.mktemp("in"), Authorization=f"Bearer {token}"
    ) as started:
        yield started


@pytest.fixture
def model(endpoint: Endpoint) -> Endpoint:
    endpoint.faults(answer=ANSWER)
    return endpoint


def connections(document: dict[str, Any]) -> int:
    with psycopg.connect(document["sinks"][0]["dsn"]) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone() or (0,)
    return int(count)


def state_of(served: Served, session: str) -> str:
    (exchange,) = served.get(f"/v1/sessions/{session}").json()["exchanges"]
    return str(exchange["state"])


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_of_many_streams_some_are_cut_off_and_all_others_whole(
    signed_in: Served, document: dict[str, Any], model: Endpoint
) -> None:
    def ask(number: int, run: str) -> list[tuple[str, Any]]:
        body = {"question": PROBE, "session": f"{run}-{number}"}
        seen = []
        with signed_in.streaming("/v1/ask", body) as (response, events):
            assert response.status_code == 200
            for event in events:
                seen.append(event)
                if run == "cut" and number < CUT:
                    return seen  # closes the connection
        return seen

    model.faults(answer=ANSWER, slow_ms=400)  # all of them are in progress at once
    together(STREAMS, lambda number: ask(number, "warm"))
    threads, asked = signed_in.threads, model.counters()["requests"]
    seen = together(STREAMS, lambda number: ask(number, "cut"))
    assert [[name for name, _ in events] for events in seen[:CUT]] == [["started"]] * CUT
    for events in seen[CUT:]:
        assert [name for name, _ in events] == ["started", "citation", "sentence", "answer"], events
        assert "three years" in events[-1][1]["answer"]
    eventually(lambda: signed_in.metric("ragstream_requests_in_progress") == 0)
    eventually(lambda: signed_in.metric("ragstream_http_streams_open", route="/v1/ask") == 0)
    model.faults(answer=ANSWER)
    assert signed_in.threads <= threads + OF_HEALTH
    assert connections(document) <= POOL + OF_VERSIONS
    states = [state_of(signed_in, f"cut-{number}") for number in range(STREAMS)]
    assert states == ["unanswered"] * CUT + ["answered"] * (STREAMS - CUT)
    assert model.counters()["requests"] - asked < 2 * STREAMS, "the model is read no further for those who left"


def test_a_client_that_leaves_before_its_object_came_cancels_it(signed_in: Served, model: Endpoint) -> None:
    model.faults(answer=ANSWER, slow_ms=1500)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{signed_in.url}/v1/ask",
            json={"question": PROBE, "session": "left"},
            headers=signed_in.headers,
            timeout=0.5,
        )
    eventually(lambda: signed_in.metric("ragstream_requests_in_progress") == 0)
    model.faults(answer=ANSWER)
    assert state_of(signed_in, "left") == "unanswered"
    assert signed_in.metric("ragstream_http_requests_total", route="/v1/ask", status="499") == 1


@pytest.mark.usefixtures("model")
def test_tokens_decide_what_is_answered(signed_in: Served, issuer: Issuer) -> None:
    def answer(token: str) -> httpx.Response:
        return signed_in.post("/v1/ask", {"question": PROBE}, Authorization=f"Bearer {token}")

    assert "three years" in answer(issuer.token({"tenant": ["other", "acme"]})).json()["answer"]
    assert answer(issuer.token({"tenant": "globex"})).json()["abstained"]
    assert answer(issuer.token()).json()["abstained"]
    expired, other = answer(issuer.token({"exp": int(time.time()) - 60})), answer(issuer.token({"aud": "other"}))
    assert [(response.status_code, response.json()["error"]["condition"]) for response in (expired, other)] == [
        (401, "TOKEN_EXPIRED"), (401, "TOKEN_INVALID"),
    ]  # fmt: skip
    assert expired.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    soon = issuer.token({"tenant": "acme", "exp": int(time.time()) - 28})
    events = signed_in.events("/v1/watch", {"citations": []}, Authorization=f"Bearer {soon}")
    assert events[-1][0] == "error"
    assert events[-1][1]["condition"] == "TOKEN_EXPIRED"


def test_a_store_away_in_mid_answer_is_said_and_comes_back(
    document: dict[str, Any],
    vectors: VectorStore,
    model: Endpoint,
    new_proxy: Callable[[int], FaultProxy],
    tmp_path: Path,
) -> None:
    proxy = new_proxy(vectors.port)
    dsn = document["sinks"][0]["dsn"].replace(f":{vectors.port}/", f":{proxy.port}/")
    assert str(proxy.port) in dsn
    sinks = [document["sinks"][0] | {"dsn": dsn, "deadline": "2s"}]
    with serving(document | {"sinks": sinks, "serve": LOCAL}, tmp_path) as served:
        assert served.get("/healthz").json()["parts"] == {"store": "ok", "memory": "ok"}
        model.faults(answer=ANSWER, slow_ms=500)
        seen = []
        with (
            served.streaming("/v1/watch", {"citations": []}) as (_, watched),
            served.streaming("/v1/ask", {"question": PROBE, "session": "away"}) as (_, events),
        ):
            for event in events:
                seen.append(event)
                if event[0] == "started":
                    proxy.refuse()
            assert next(data for name, data in watched if name == "freshness" and data["lag_seconds"] is None)
        assert [name for name, _ in seen] == ["started", "error"]
        assert str(proxy.port) not in json.dumps(seen), "where a part is, is nobody's business"
        refused = served.post("/v1/search", {"query": PROBE})
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        eventually(lambda: served.get("/healthz").status_code == 503)
        assert served.get("/healthz/live").status_code == 200
        proxy.heal()
        model.faults(answer=ANSWER)
        assert state_of(served, "away") == "unanswered"
        eventually(lambda: served.post("/v1/ask", {"question": PROBE}).status_code == 200)
        eventually(lambda: served.get("/healthz").status_code == 200)


def test_a_memory_or_model_away_in_mid_answer_is_said(
    document: dict[str, Any], memorydb: MemoryDB, model: Endpoint, tmp_path: Path
) -> None:
    limits = LIMITS | {"request_timeout": "3s"}
    with serving(document | {"serve": LOCAL | {"limits": limits}}, tmp_path) as served:
        model.faults(answer=ANSWER, slow_ms=300)
        seen = []
        with served.streaming("/v1/ask", {"question": PROBE, "session": "gone"}) as (_, events):
            for event in events:
                seen.append(event)
                if event[0] == "started":
                    memorydb.stop()
        try:
            assert seen[-1][0] == "error"
            assert "MEMORY" in seen[-1][1]["condition"]
            assert served.get("/v1/sessions").status_code == 503
            model.faults(answer=ANSWER)
            assert served.post("/v1/ask", {"question": PROBE}).status_code == 200, (
                "without a session no memory is needed"
            )
        finally:
            memorydb.start()
        eventually(lambda: served.get("/v1/sessions").status_code == 200)
        model.faults(drop=1000)
        broken = served.events("/v1/ask", {"question": PROBE, "session": "model"})
        assert broken[-1][0] == "error"
        model.faults(answer=ANSWER, slow_ms=30_000)
        late = served.post("/v1/ask", {"question": PROBE, "session": "late"})
        assert (late.status_code, late.json()["error"]["condition"]) == (504, "REQUEST_TIMEOUT")
        assert served.stop() == 0, "a thread that waits for a model does not keep the process"
        assert PROBE not in served.log.read_text()
    model.reset()


def test_a_stop_under_load_loses_no_answer_and_refuses_new_questions(
    document: dict[str, Any], model: Endpoint, tmp_path: Path
) -> None:
    with serving(document | {"serve": LOCAL | {"limits": LIMITS}}, tmp_path) as served:
        model.faults(answer=ANSWER, slow_ms=800)
        started = threading.Barrier(9)

        def ask(number: int) -> list[str]:
            names = []
            with served.streaming("/v1/ask", {"question": PROBE, "session": f"stop-{number}"}) as (_, events):
                for name, _data in events:
                    names.append(name)
                    if name == "started":
                        started.wait(20)
            return names

        with ThreadPoolExecutor(9) as pool, served.client() as client:
            asked = [pool.submit(ask, number) for number in range(8)]
            watch = pool.submit(served.events, "/v1/watch", {"citations": []})
            assert client.get("/v1/me").status_code == 200
            started.wait(20)
            served.process.send_signal(signal.SIGTERM)
            eventually(lambda: served.get("/healthz").status_code == 503)
            refused = client.get("/v1/me")
            assert (refused.status_code, refused.json()["error"]["condition"]) == (503, "SERVICE_STOPPING")
            assert refused.headers["connection"] == "close"
            assert {tuple(future.result()) for future in asked} == {("started", "citation", "sentence", "answer")}
            assert watch.result()[-1][1]["condition"] == "SERVICE_STOPPING"
        assert served.process.wait(10) == 0


def test_a_stop_waits_no_longer_than_it_is_told(document: dict[str, Any], model: Endpoint, tmp_path: Path) -> None:
    limits = LIMITS | {"stop_timeout": "500ms"}
    with serving(document | {"serve": LOCAL | {"limits": limits}}, tmp_path) as served:
        model.faults(answer=ANSWER, slow_ms=60_000)
        with served.streaming("/v1/ask", {"question": PROBE, "session": "short"}) as (_, events):
            assert next(events)[0] == "started"
            served.process.send_signal(signal.SIGTERM)
            name, data = next(events)
            assert (name, data["condition"]) == ("error", "SERVICE_STOPPING")
            assert list(events) == []
        assert served.process.wait(10) == 0
    model.reset()


def test_another_machine_is_answered_through_tls(document: dict[str, Any], tmp_path: Path) -> None:
    pem = self_signed(tmp_path, "rag.example", "127.0.0.1")
    files = {"certificate": str(pem.with_suffix(".crt")), "key": str(pem.with_suffix(".key"))}
    serve = {"host": "0.0.0.0", "callers": KEYS, "hosts": ["rag.example"], **files}  # noqa: S104 - a firewall's matter
    with serving(document | {"serve": serve}, tmp_path / "tls") as served:
        url = served.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - the same
        trusted = ssl.create_default_context(cafile=files["certificate"])
        said = {"Authorization": "Bearer swordfish", "Host": "rag.example"}
        assert url.startswith("https://")
        assert httpx.get(f"{url}/v1/me", headers=said, verify=trusted).json()["sign_in"] == "key"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
            httpx.get(f"{url}/v1/me", headers=said)
        assert raw(served, b"GET / HTTP/1.1\r\nHost: rag.example\r\n\r\n") == b""
        assert served.stop() == 0


def raw(served: Served, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that comes back for bytes that are sent one part after the other."""
    host, port = served.url.partition("://")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        gone = threading.Event()

        def send() -> None:
            for part in parts:
                try:
                    connection.sendall(part)
                except OSError:
                    return
                if gone.wait(pause):
                    return

        sender = threading.Thread(target=send)
        sender.start()
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except OSError:
            pass
        gone.set()
        sender.join()
        return received


HEAD = b"POST /v1/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_clients_that_dawdle_or_crowd_are_let_go(document: dict[str, Any], model: Endpoint, tmp_path: Path) -> None:
    limits = {
        "header_timeout": "400ms", "body_timeout": "400ms", "concurrent": 2, "concurrent_per_caller": 2, "burst": 8,
        "requests_per_minute": 1, "connections": 20, "watches_per_caller": 1,
    }  # fmt: skip
    with serving(document | {"serve": LOCAL | {"limits": limits, "hosts": ["rag.example"]}}, tmp_path) as served:
        assert raw(served) == b"", "one that says nothing"
        assert raw(served, *(HEAD[at : at + 1] for at in range(len(HEAD))), pause=0.05) == b""
        whole = HEAD + b"Content-Length: 2000\r\n\r\n"
        slow = raw(served, whole, *(b"x" for _ in range(40)), pause=0.05)
        assert b"408 Request Timeout" in slow
        assert b"BODY_SLOW" in slow
        assert b"400 Bad Request" in raw(served, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n")
        assert b"400 Bad Request" in raw(served, HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
        crowd = [socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) for _ in range(60)]
        for connection in crowd:
            connection.close()
        eventually(lambda: served.get("/healthz/live").status_code == 200)
        for host, status in (
            ("rag.example", 200),
            ("RAG.example:443", 200),
            ("127.0.0.1", 200),
            ("evil.example", 421),
            ("", 421),
        ):
            assert served.get("/page/main.js", Host=host).status_code == status, host
        assert served.get("/v1/me", Origin=served.url).status_code == 200
        model.faults(answer=ANSWER, slow_ms=1500)
        with served.streaming("/v1/watch", {"citations": []}) as (_, watched):
            assert next(watched)[0] == "freshness"
            busy = together(3, lambda _: served.post("/v1/ask", {"question": PROBE}))
            assert sorted(response.status_code for response in busy) == [200, 200, 429]
            again = served.post("/v1/watch", {"citations": []})
            assert (again.status_code, again.json()["error"]["condition"]) == (429, "TOO_MANY_AT_ONCE")
        refused = [served.get("/v1/me") for _ in range(3)][-1]
        assert (refused.status_code, refused.json()["error"]["condition"]) == (429, "RATE_LIMITED")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert served.stop(signal.SIGINT) == 0
