"""What every vector store must do. A new store is one line in `STORES`."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import Any, Literal

import numpy as np
import psycopg
import pytest
from pydantic import SecretStr

from local_stack.documentdb import DocumentDB
from local_stack.opensearch import OpenSearch
from schemas.documents import DocumentWrite
from schemas.errors import ConfigurationError
from sinks.contents import checksums, judge, vector_hash, wanted_of
from sinks.documentdb import DocumentDBSink
from sinks.documentdb_client import DocumentDBClient
from sinks.documentdb_config import DocumentDBConfig
from sinks.documentdb_meta import Meta as DocumentDBMeta
from sinks.documentdb_schema import Names as DocumentDBNames
from sinks.documentdb_schema import visible as visible_in_documentdb
from sinks.opensearch import OpenSearchSink
from sinks.opensearch_client import OpenSearchClient
from sinks.opensearch_config import OpenSearchConfig
from sinks.opensearch_meta import Meta
from sinks.opensearch_schema import Names, visible
from sinks.pgvector import PgvectorConfig, PgvectorSink
from sinks.protocol import Sink
from tests.feeding import DIMENSIONS, RECIPES, Contents, Fed, expected, same, vector_of
from tests.history import TABLE, ModelTable, folded, key_of, random_history
from transforms import exact_json
from transforms.documents import digest, document_id


class Store:
    """A store under test: how to open it, and how a reader sees it."""

    def __init__(self, open_sink: Callable[[str, int], Sink], contents: Callable[[], Contents]) -> None:
        self._open, self.contents = open_sink, contents
        self._opened: list[Sink] = []

    def open(self, fingerprint: str = "model=test", dimensions: int = DIMENSIONS) -> Sink:
        """Open the store as one more writer; it is closed with the test."""
        self._opened.append(self._open(fingerprint, dimensions))
        return self._opened[-1]

    def adopt(self, sink: Sink) -> Sink:
        """Close a sink that came another way with the test."""
        self._opened.append(sink)
        return sink

    def close(self) -> None:
        """Close every writer."""
        for sink in self._opened:
            sink.close()


@pytest.fixture
def pgvector(vectors_dsn: str) -> Store:
    config = PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")

    def contents() -> Contents:
        found: Contents = {}
        with psycopg.connect(vectors_dsn) as connection:
            query = "SELECT key, metadata, chunk_index, chunk_text, embedding::text FROM kb ORDER BY document_id, chunk_index"
            for key, metadata, index, text, vector in connection.execute(query):
                _, chunks = found.setdefault(exact_json.dumps(key), (metadata, []))
                chunks.append((index, text, [float(x) for x in vector[1:-1].split(",")]))
        return found

    return Store(lambda fingerprint, dimensions: PgvectorSink(config, fingerprint, dimensions), contents)


def opensearch_store(url: str, index: str, guard: Literal["script", "seq_no"]) -> Store:
    config = OpenSearchConfig(type="opensearch", url=url, index=index, guard=guard, replicas=0)

    def contents() -> Contents:
        found: Contents = {}
        client, names = OpenSearchClient(config), Names(index)
        seen = visible(Meta(client, names).truncations(), {"range": {"chunk_count": {"gt": 0}}})
        for page in client.pages(names.alias, seen, ("document_id",), ("key", "metadata", "chunks")):
            for row in (hit["_source"] for hit in page):
                chunks = [(c["chunk_index"], c["chunk_text"], c["embedding"]) for c in row["chunks"]]
                found[row["key"]] = (exact_json.loads(row["metadata"]), chunks)
        client.close()
        return found

    return Store(lambda fingerprint, dimensions: OpenSearchSink(config, fingerprint, dimensions), contents)


@pytest.fixture
def opensearch_by_script(opensearch: OpenSearch, search_index: str) -> Store:
    return opensearch_store(opensearch.endpoint["url"], search_index, "script")


@pytest.fixture
def opensearch_by_seq_no(opensearch: OpenSearch, search_index: str) -> Store:
    return opensearch_store(opensearch.endpoint["url"], search_index, "seq_no")


@pytest.fixture
def in_documentdb(documentdb: DocumentDB, document_database: str) -> Store:
    uri = SecretStr(documentdb.endpoint["uri"])
    config = DocumentDBConfig(type="documentdb", uri=uri, database=document_database, collection="kb")

    def contents() -> Contents:
        found: Contents = {}
        client, names = DocumentDBClient(config), DocumentDBNames("kb")
        seen = visible_in_documentdb(DocumentDBMeta(client, config).told().truncations, {"chunk_count": {"$gt": 0}})
        for row in client.find(names.documents, seen, ("key", "metadata", "chunks")):
            vectors = client.named(names.vectors, [c["content_hash"] for c in row["chunks"]], ["embedding"])
            chunks = [
                (c["chunk_index"], c["chunk_text"], vectors[c["content_hash"]]["embedding"]) for c in row["chunks"]
            ]
            found[row["key"]] = (exact_json.loads(row["metadata"]), chunks)
        client.close()
        return found

    return Store(lambda fingerprint, dimensions: DocumentDBSink(config, fingerprint, dimensions), contents)


STORES = ["pgvector", "opensearch_by_script", "opensearch_by_seq_no", "in_documentdb"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Store)
    yield found
    found.close()


@pytest.fixture
def sink(store: Store) -> Sink:
    opened = store.open()
    opened.prepare()
    return opened


@pytest.mark.parametrize("seed", range(12))
def test_shuffled_doubled_and_recut_histories_leave_the_rows_of_the_source(store: Store, sink: Sink, seed: int) -> None:
    table, r = random_history(seed, 24), random.Random(seed)
    changes = table.changes + r.choices(table.changes, k=6)
    r.shuffle(changes)
    fed = Fed(sink)
    for batch in batched(changes, r.randint(1, 9), strict=False):
        fed(batch)
    assert same(store.contents(), expected(table))


def test_a_replay_writes_nothing_and_asks_the_model_for_nothing(store: Store, sink: Sink) -> None:
    table = random_history(3, 30)
    Fed(sink)(table.changes)
    before = store.contents()
    again = Fed(sink)
    result = again(table.changes)
    assert result.counts["writes"] == 0
    assert again.embedder.texts == []
    assert store.contents() == before


@pytest.mark.usefixtures("sink")
def test_two_writers_at_once_leave_what_one_would(store: Store) -> None:
    table = random_history(5, 60)
    batches = [list(b) for b in batched(table.changes, 4, strict=False)]

    def write(seed: int) -> None:
        fed = Fed(store.open())
        for batch in random.Random(seed).sample(batches, len(batches)):
            fed(batch)

    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(write, seed) for seed in range(3)]:
            job.result(timeout=60)
    assert same(store.contents(), expected(table))


def test_a_shrunk_document_leaves_no_orphan_chunks(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "\n\n".join(f"paragraph {n} of a long body that is cut into pieces" for n in range(9)))
    fed(table.changes)
    assert len(store.contents()[key_of(1)][1]) == 9
    table.update_body(1, "short")
    fed(table.changes[-1:])
    assert [text for _, text, _ in store.contents()[key_of(1)][1]] == ["body short"]


def test_an_edited_paragraph_embeds_one_chunk_and_keeps_the_other_vectors(sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    paragraphs = [f"paragraph {n} of a long body that is cut into pieces" for n in range(9)]
    table.insert(1, "\n\n".join(paragraphs))
    fed(table.changes)
    asked = len(fed.embedder.texts)
    paragraphs.insert(4, "a new paragraph that is as long as the others are")
    table.update_body(1, "\n\n".join(paragraphs))
    fed(table.changes[-1:])
    assert len(fed.embedder.texts) - asked == 1


def test_a_reader_never_sees_chunks_of_two_versions(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "version 0")
    fed(table.changes)
    seen: set[frozenset[str]] = set()
    with ThreadPoolExecutor(1) as pool:
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                _, chunks = store.contents()[key_of(1)]
                seen.add(frozenset(text.split()[-1] for _, text, _ in chunks))

        reader = pool.submit(read)
        for version in range(1, 30):
            body = "\n\n".join(f"paragraph {n} of a long body in version {version}" for n in range(1 + version % 7))
            table.update_body(1, body)
            fed(table.changes[-1:])
        done.set()
        reader.result(timeout=60)
    assert all(len(versions) == 1 for versions in seen)
    assert len(seen) > 5


def test_a_metadata_change_embeds_nothing(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "x")
    fed(table.changes)
    table.update_a(1, "closed")
    fed(table.changes[-1:])
    assert len(fed.embedder.texts) == 1
    assert same(store.contents(), expected(table))


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_body_edit_and_a_status_edit_of_one_row_both_stay(store: Store, sink: Sink, cut: int, reverse: bool) -> None:  # noqa: FBT001
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "old")
    fed(table.changes)
    table.update_body(1, "8 KB " * 1600)
    table.update_a(1, "closed")
    edits = table.changes[1:][:: -1 if reverse else 1]
    for batch in batched(edits, cut, strict=False):
        fed(batch)
    metadata, chunks = store.contents()[key_of(1)]
    assert metadata == {"a": "closed"}
    assert "".join(text for _, text, _ in chunks).replace(" ", "") == f"body{'8KB' * 1600}"


def test_a_key_change_with_an_unchanged_large_body_calls_no_model(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "\n\n".join(f"paragraph {n} of a long body that is cut into pieces" for n in range(50)))
    fed(table.changes)
    asked, before = len(fed.embedder.texts), store.contents()[key_of(1)][1]
    table.move(1, 2)
    for change in table.changes[-2:][::-1]:
        fed([change])
    assert len(fed.embedder.texts) == asked
    assert store.contents() == {key_of(2): ({"a": table.rows[2]["a"]}, before)}


class Interleaved:
    """A sink before whose first write another writer gets in."""

    def __init__(self, sink: Sink, other: Callable[[], object]) -> None:
        self._sink, self._other = sink, [other]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        while self._other:
            self._other.pop()()
        return self._sink.write(writes)


@pytest.mark.parametrize("held_before", [True, False])
def test_a_key_change_whose_halves_meet_two_writers_loses_nothing(
    store: Store,
    sink: Sink,
    held_before: bool,  # noqa: FBT001
) -> None:
    table, other = ModelTable(), Fed(store.open())
    table.insert(1, "x")
    table.move(1, 2)
    gone, here = sorted(table.changes[1:], key=lambda change: change.op, reverse=True)
    if held_before:
        other(table.changes[:1])
    writer = Fed(Interleaved(sink, lambda: other([here])))
    writer([table.changes[0], gone])
    assert same(store.contents(), expected(table))


def test_truncate_hides_older_rows_and_leaves_newer_ones_whichever_comes_first(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "x")
    table.truncate()
    table.insert(2, "y")
    fed(table.changes[2:])
    fed(table.changes[1:2])
    fed(table.changes[:1])
    assert same(store.contents(), expected(table))


def test_a_late_older_change_does_not_raise_the_dead(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "x")
    table.delete(1)
    fed(table.changes[1:])
    fed(table.changes[:1])
    assert store.contents() == {}


def test_a_write_planned_on_an_older_revision_is_refused(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "x")
    fed(table.changes)
    name = document_id(TABLE, key_of(1))
    held = sink.read([name])[name]
    stale = DocumentWrite(name, TABLE, key_of(1), held.revision - 1, held.state, held.recipe, live=False)
    assert sink.write([stale]) == {name}
    assert same(store.contents(), expected(table))


def test_text_no_store_likes_is_taken(store: Store, sink: Sink) -> None:
    table = ModelTable()
    table.insert(1, "nul \0 lone \ud800 wide ☃😀 'quote' \\ %s {x}")
    Fed(sink)(table.changes)
    (_, [(_, text, _)]) = store.contents()[key_of(1)]
    assert text == "body nul \ufffd lone \ufffd wide ☃😀 'quote' \\ %s {x}"


def test_a_text_the_model_refuses_is_a_reject_and_the_rest_goes_on(store: Store, sink: Sink) -> None:
    table = ModelTable()
    table.insert(1, "refused")
    table.insert(2, "fine")
    result = Fed(sink)(table.changes)
    ((record, reject),) = result.rejected
    assert (reject.stage, reject.condition, reject.table) == ("embed", "MODEL_REFUSED_TEXT", TABLE)
    assert record.position == "1"
    assert store.contents().keys() == {key_of(2)}


def test_an_empty_batch_is_nothing(store: Store, sink: Sink) -> None:
    assert Fed(sink)([]).counts["writes"] == 0
    assert sink.write([]) == set()
    assert store.contents() == {}


def test_the_same_text_in_many_documents_is_embedded_once(sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    for number in range(5):
        table.insert(number, "the same")
    fed(table.changes)
    assert fed.embedder.texts == ["body the same"]


def test_check_refuses_another_dimension_and_another_model(store: Store, sink: Sink) -> None:
    sink.check()
    with pytest.raises(ConfigurationError, match="dimensions"):
        store.open(dimensions=DIMENSIONS * 2).check()
    with pytest.raises(ConfigurationError, match="another model"):
        store.open("model=other").check()


def test_check_writes_nothing(store: Store) -> None:
    fresh = store.open()
    fresh.check()
    fresh.check()
    with pytest.raises(ConfigurationError):
        fresh.read(["x"])


def test_a_sink_travels_to_a_worker(store: Store, sink: Sink) -> None:
    sink.read([])
    travelled = pickle.loads(pickle.dumps(sink))  # noqa: S301 - it is our own
    assert store.adopt(travelled).summary().documents == 0


def test_the_summary_counts_what_a_reader_sees(sink: Sink) -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.insert(2, "y")
    table.delete(2)
    Fed(sink)(table.changes)
    sink.note_progress(5)
    sink.note_progress(3)
    summary = sink.summary()
    assert (summary.documents, summary.chunks, summary.indexed_as_of_us) == (1, 1, 5)


def test_vectors_can_be_read_back_for_a_cache(sink: Sink) -> None:
    table = ModelTable()
    table.insert(1, "x")
    Fed(sink)(table.changes)
    ((_, vector),) = list(sink.vectors_since(0))
    assert np.allclose(vector, vector_of("body x"))


def test_a_store_tells_what_it_really_holds_in_one_form_with_all_others(sink: Sink) -> None:
    table = random_history(5, 40)
    for number, text in enumerate(('\u20ac \ud800 \0 \\ " \n', "plain"), 200):
        table.insert(number, text)
    Fed(sink)(table.changes)
    states, marks = folded(table.changes), sink.truncations()
    recipe = RECIPES[TABLE]
    wanted = [wanted_of(state, key, recipe, marks.get(TABLE, "")) for key, state in states.items()]
    told = {each.document_id: each for each in wanted if each}
    for vectors in (True, False):
        sums = sink.bucket_checksums(1, vectors=vectors)
        held = [document for bucket in sums for document in sink.documents_in(bucket, 1, vectors=vectors)]
        assert checksums(held, 1) == sums
        assert sorted(document.document_id for document in held) == sorted(told)
        landed = {TABLE: max(change.sequence for change in table.changes)}
        assert [found for d in held for found in judge(told[d.document_id], [d], landed, marks)] == []
        digests = (
            {vector_hash(vector_of(exact_json.printable(str(row["body"])).strip())) for row in table.rows.values()}
            if vectors
            else {"v"}
        )
        assert {chunk.vector for document in held for chunk in document.chunks} <= digests


def test_rows_are_removed_unless_they_were_written_since_and_vectors_are_put_back(store: Store, sink: Sink) -> None:
    table = ModelTable()
    for number in range(3):
        table.insert(number, f"row {number}")
    Fed(sink)(table.changes)
    one, two, three = (document_id(TABLE, key_of(number)) for number in range(3))
    sink.remove({one: 1, two: 7})
    assert sorted(store.contents()) == sorted([key_of(1), key_of(2)])
    content = digest("body row 2")
    assert np.allclose(sink.vectors([content, "none"])[content], vector_of("body row 2"), atol=1e-6)
    other = vector_of("something else")
    for replace, kept in ((False, vector_of("body row 2")), (True, other)):
        sink.keep_vectors({content: other}, replace=replace)
        assert np.allclose(sink.vectors([content])[content], kept, atol=1e-6)
    assert sink.read([three])[three].revision == 1
