"""What only OpenSearch can do to its sink: busy, read-only, half a bulk, an answer that comes too late, a node that ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from local_stack.faults.aws import AwsFaultProxy
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.opensearch import OpenSearch
from schemas.errors import DocumentRefusedError, PipelineError, UnavailableError
from sinks.opensearch.client import AWAY, Action, OpenSearchClient
from sinks.opensearch.config import OpenSearchConfig
from sinks.opensearch.schema import Names, mappings
from sinks.opensearch.writer import OpenSearchSink
from tests.feeding import DIMENSIONS, SPECS, Fed, one_row, vector_of, write_of
from tests.history import TABLE, key_of
from tests.waiting import eventually
from transforms.documents.planning import document_id

BLOCK = "index.blocks.read_only_allow_delete"
"""What a node sets itself when its disk is 95 % full."""


def config_of(url: str, index: str, **others: Any) -> OpenSearchConfig:
    return OpenSearchConfig(type="opensearch", url=url, index=index, replicas=0, **others)


def opened(config: OpenSearchConfig, fingerprint: str = "model=test", dimensions: int = DIMENSIONS) -> OpenSearchSink:
    return OpenSearchSink(config, fingerprint, dimensions)


@pytest.fixture
def config(opensearch: OpenSearch, search_index: str) -> OpenSearchConfig:
    return config_of(opensearch.endpoint["url"], search_index)


@pytest.fixture
def sink(config: OpenSearchConfig) -> Iterator[OpenSearchSink]:
    with closing(opened(config)) as sink:
        sink.prepare()
        yield sink


@pytest.fixture
def busy(opensearch: OpenSearch) -> Iterator[AwsFaultProxy]:
    with AwsFaultProxy(opensearch.endpoint["url"]) as proxy:
        yield proxy


def settings(opensearch: OpenSearch, index: str, **values: Any) -> None:
    with opensearch.client() as client:
        client.indices.put_settings(index=index, body={name.replace("__", "."): v for name, v in values.items()})


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_store_slows_a_writer_down(
    sink: OpenSearchSink, config: OpenSearchConfig, busy: AwsFaultProxy, status: int
) -> None:
    with closing(opened(config.model_copy(update={"url": busy.endpoint_url, "guard": "script"}))) as slow:
        slow.keep_vectors({"h": vector_of("h")})
        busy.fail("POST", "busy", times=2, status=status)
        assert slow.write([write_of(1, "h")]) == set()
        assert busy.calls["POST"] == 5  # which generation it is, the vector, and the write three times
    assert sink.summary().documents == 1


def test_a_busy_store_is_asked_again(sink: OpenSearchSink, config: OpenSearchConfig, busy: AwsFaultProxy) -> None:
    sink.keep_vectors({"h": vector_of("h")})
    with closing(opened(config.model_copy(update={"url": busy.endpoint_url}))) as slow:
        busy.fail("POST", "busy", times=2, status=429)
        assert slow.missing_vectors(["h", "other"]) == {"other"}
        assert busy.calls["POST"] >= 3


def test_a_store_that_stays_busy_is_unavailable(
    sink: OpenSearchSink, config: OpenSearchConfig, busy: AwsFaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.opensearch.client.PAUSES", (0.01, 0.02))
    with closing(opened(config.model_copy(update={"url": busy.endpoint_url}))) as slow:
        fed = Fed(slow)
        busy.fail("POST", "busy", times=1000, status=429)
        with pytest.raises(UnavailableError, match="takes no requests now"):
            fed(one_row().changes)
        busy.heal()
        fed(one_row().changes)
    assert sink.summary().documents == 1


@pytest.mark.usefixtures("sink")
def test_of_half_a_bulk_only_the_refused_half_is_sent_again(opensearch: OpenSearch, config: OpenSearchConfig) -> None:
    names = Names(config.index)
    settings(opensearch, names.meta, **{BLOCK: True})
    heals = threading.Timer(0.3, settings, (opensearch, names.meta), {BLOCK: None})
    heals.start()
    actions = [
        Action("create", {"_index": names.vectors, "_id": "h"}, {"content_hash": "h"}),
        Action("index", {"_index": names.meta, "_id": "m"}, {"value": "1"}),
        Action("create", {"_index": names.vectors, "_id": "h"}, {"content_hash": "h"}),
    ]
    with closing(OpenSearchClient(config)) as client:
        outcomes = client.bulk(actions)
    heals.join()
    assert [outcome["status"] for outcome in outcomes] == [201, 201, 409]
    assert [outcome["_version"] for outcome in outcomes[:2]] == [1, 1]


def test_an_item_refused_for_good_does_not_hide_behind_written_ones(sink: OpenSearchSink) -> None:
    sink.keep_vectors({"good": vector_of("x"), "bad": np.ones(DIMENSIONS + 1, "f4")})
    with pytest.raises(DocumentRefusedError, match="refuses a document"):
        sink.write([write_of(1, "good"), write_of(2, "bad")])
    assert sink.summary().documents == 1


@pytest.mark.parametrize("block", [BLOCK, "index.blocks.write"], ids=["full disk", "read-only"])
def test_a_store_that_takes_no_writes_is_waited_for(
    opensearch: OpenSearch, sink: OpenSearchSink, config: OpenSearchConfig, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.opensearch.client.PAUSES", (0.01,))
    fed, index = Fed(sink), Names(config.index).documents
    settings(opensearch, index, **{block: True})
    with pytest.raises(UnavailableError, match="takes no requests now"):
        fed(one_row().changes)
    settings(opensearch, index, **{block: None})
    fed(one_row().changes)
    assert sink.summary().documents == 1
    assert len(fed.embedder.texts) == 1


def test_an_answer_that_comes_too_late_was_a_write_all_the_same(
    opensearch: OpenSearch, sink: OpenSearchSink, config: OpenSearchConfig, new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(opensearch.port)
    url = f"http://127.0.0.1:{proxy.port}"
    with closing(opened(config.model_copy(update={"url": url, "timeout_seconds": 2.0, "guard": "script"}))) as late:
        fed = Fed(late)
        late.keep_vectors({"h": vector_of("h")})
        proxy.delay(1.6)
        with pytest.raises(UnavailableError, match="does not answer"):
            late.write([write_of(1, "h")])
        proxy.heal()
        eventually(lambda: sink.summary().documents)
        assert late.write([write_of(1, "h")]) == {write_of(1, "h").document_id}
        fed(one_row().changes)
    assert sink.summary().documents == 1


def test_a_node_that_ends_and_comes_back_has_lost_nothing(opensearch: OpenSearch, sink: OpenSearchSink) -> None:
    table, fed = one_row(), Fed(sink)
    fed(table.changes)
    opensearch.kill()
    table.insert(2, "y")
    with pytest.raises(UnavailableError, match="does not answer"):
        fed(table.changes)
    back = threading.Thread(target=opensearch.start)
    back.start()

    def has_started() -> bool:
        with contextlib.suppress(UnavailableError):  # before its shards are there: whatever it says then is no refusal
            fed(table.changes)
        return not back.is_alive()

    eventually(has_started, 120)
    fed(table.changes)
    assert sink.summary().documents == 2
    assert len(fed.embedder.texts) == 2


@pytest.mark.parametrize("kind", sorted(AWAY))
def test_a_shard_that_is_looked_for_is_waited_for(config: OpenSearchConfig, kind: str) -> None:
    assert isinstance(OpenSearchClient(config).refusal(404, kind), UnavailableError)


def test_a_store_that_somebody_else_made_is_refused(opensearch: OpenSearch, config: OpenSearchConfig) -> None:
    with opensearch.client() as client:
        client.indices.create(index=f"{config.index}_2", body={"mappings": {"properties": {"a": {"type": "text"}}}})
    for act in (OpenSearchSink.check, OpenSearchSink.prepare):
        with closing(opened(config_of(config.url, f"{config.index}_2"))) as sink:
            refused(lambda: act(sink), "no store of a pipeline", "FOREIGN_INDEX")  # noqa: B023 - called at once


def test_a_store_that_lost_an_index_is_refused(
    opensearch: OpenSearch, config: OpenSearchConfig, sink: OpenSearchSink
) -> None:
    with opensearch.client() as client:
        client.indices.delete(index=Names(config.index).documents)
    refused(sink.check, "lacks an index", "STORE_EMPTY")
    refused(lambda: Fed(sink)(one_row().changes), "lacks an index", "STORE_EMPTY")


def test_a_right_that_is_missing_is_named(config: OpenSearchConfig, busy: AwsFaultProxy) -> None:
    with closing(opened(config.model_copy(update={"url": busy.endpoint_url}))) as sink:
        busy.fail("*", "security_exception", times=1000, status=403)
        refused(sink.check, "refuses a right", "MISSING_RIGHTS")


@pytest.mark.parametrize("service", ["es", "aoss"])
def test_signed_requests_do_all_that_others_do(
    config: OpenSearchConfig, busy: AwsFaultProxy, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    signing = {"service": service, "region": "eu-central-1"}
    with closing(opened(config_of(busy.endpoint_url, config.index, signing=signing))) as sink:
        sink.prepare()
        fed = Fed(sink)
        fed(one_row().changes)
        fed(one_row().changes)
        assert len(sink.read([document_id(TABLE, key_of(1))])) == 1
    signed = busy.headers["Authorization"]
    assert f"/eu-central-1/{service}/aws4_request" in signed
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date" in signed


def test_server_that_is_not_there_is_unavailable_and_its_password_stays_secret(config: OpenSearchConfig) -> None:
    nowhere = config_of("http://127.0.0.1:1", config.index, user="u", password="secret")
    with closing(opened(nowhere)) as sink, pytest.raises(UnavailableError, match="does not answer") as raised:
        sink.check()
    assert "secret" not in f"{raised.value}{nowhere!r}"


def test_truncated_rows_and_unused_vectors_are_swept(sink: OpenSearchSink, monkeypatch: pytest.MonkeyPatch) -> None:
    table, fed = one_row(), Fed(sink)
    table.truncate()
    table.insert(2, "y")
    fed(table.changes[:1])
    fed(table.changes[1:])
    monkeypatch.setattr("sinks.opensearch.writer.UNUSED_MS", -1)
    assert sink.missing_vectors([]) == set()
    kept = [name for name, _ in sink.vectors_since(0)]
    sink.sweep()
    assert len(kept) == 2
    assert len(sink.missing_vectors(kept)) == 1
    assert sink.read([document_id(TABLE, key_of(1)), document_id(TABLE, key_of(2))]).keys() == {
        document_id(TABLE, key_of(2))
    }


def refused(act: Callable[[], object], message: str, condition: str) -> None:
    with pytest.raises(PipelineError, match=message) as raised:
        act()
    assert (raised.value.condition, raised.value.exit_status) == (condition, 2)
    assert raised.value.hint


def test_documents_are_counted_where_the_store_cannot_group_by_spec(
    opensearch: OpenSearch, config: OpenSearchConfig
) -> None:
    names = Names(config.index)
    body = mappings(config, names, DIMENSIONS)[names.documents]
    body["mappings"]["properties"]["recipe"] = {"type": "keyword", "index": False, "doc_values": False}
    with opensearch.client() as client:
        client.indices.create(index=names.documents, body=body)
    with closing(opened(config)) as sink:
        sink.prepare()
        Fed(sink)(one_row().changes)
        assert sink.documents_by_spec() == {(TABLE, SPECS[TABLE].digest): 1}
