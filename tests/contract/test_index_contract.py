"""What every reader of a vector store must do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from schemas.changes import Change
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import DocumentConfig
from sinks import SinkConfig, open_index
from sinks.protocol import Sink
from sinks.search import Filters, Grant, Hit, Index, Question
from tests.contract.conftest import STORES
from tests.feeding import SPECS, Fed, row_state, vector_of
from tests.history import TABLE, ModelTable, key_of
from tests.stores import Store
from transforms.documents.planning import DocumentSpec, document_id, plan
from transforms.filters.conditions import Condition
from transforms.filters.parsing import Filterable, parse
from transforms.values import exact_json

pytestmark = pytest.mark.parametrize("store", [s for s in STORES if s != "opensearch_by_seq_no"], indirect=True)
"""A guard is the writer's."""
WAYS = ("dense", "lexical")
NAMED_BY = {"pgvector": "table", "opensearch": "index", "documentdb": "collection"}


@pytest.fixture
def index(store: Store, sink: Sink) -> Iterator[Index]:
    """A reader of a store that is prepared."""
    sink.check()
    with closing(open_index(store.config, "model=test")) as opened:
        yield opened


@pytest.fixture
def table() -> ModelTable:
    """Five rows; the words `shared` and `body` are in all of them, `row3` in one."""
    made = ModelTable()
    for number in range(1, 6):
        made.insert(number, f"shared row{number}")
    return made


def asked(text: str) -> Question:
    return Question(text, vector_of(text))


def find(index: Index, way: str, text: str, k: int = 50, filters: Filters | None = None) -> list[Hit]:
    hits: list[Hit] = getattr(index, way)(asked(text), k, filters or Filters())
    return hits


def numbers(hits: list[Hit]) -> list[Any]:
    return [hit.key["id"] for hit in hits]


def a_is(text: str) -> tuple[Condition, ...]:
    return (parse(f"a = {text}", Filterable({TABLE: {"a": "text"}})),)


def named(config: SinkConfig, name: str) -> SinkConfig:
    """Another store on the same server."""
    return config.model_copy(update={NAMED_BY[config.type]: name})


def test_dense_hits_come_nearest_first_with_their_cosine(sink: Sink, index: Index, table: ModelTable) -> None:
    Fed(sink)(table.changes)
    hits = find(index, "dense", "body shared row3")
    cosines = {n: float(vector_of("body shared row3") @ vector_of(f"body shared row{n}")) for n in range(1, 6)}
    assert numbers(hits) == sorted(cosines, key=lambda number: -cosines[number])
    assert [hit.similarity for hit in hits] == pytest.approx(sorted(cosines.values(), reverse=True), abs=1e-3)


def test_lexical_hits_come_with_the_greatest_coverage_first(sink: Sink, index: Index, table: ModelTable) -> None:
    Fed(sink)(table.changes)
    hits = find(index, "lexical", "shared row3")
    assert numbers(hits)[0] == 3
    assert sorted(numbers(hits)) == [1, 2, 3, 4, 5]
    assert hits[0].coverage == pytest.approx(1)
    assert 0 < hits[1].coverage < 1
    assert [hit.coverage for hit in hits] == sorted((hit.coverage for hit in hits), reverse=True)
    assert len(find(index, "lexical", "shared", 2)) == 2
    assert find(index, "lexical", "zyzzyva") == []


@pytest.mark.parametrize("way", WAYS)
def test_hit_is_one_chunk_of_a_document_with_all_it_stands_for(sink: Sink, index: Index, way: str) -> None:
    table = ModelTable()
    table.insert(1, "\n\n".join(f"paragraph {n} of a long body that is cut into pieces" for n in range(9)))
    Fed(sink)(table.changes)
    (hit,) = find(index, way, "paragraph 7 of a long body")
    assert (hit.table, exact_json.dumps(hit.key), hit.metadata) == (TABLE, key_of(1), {"a": table.rows[1]["a"]})
    assert hit.document_id == document_id(TABLE, key_of(1))
    assert hit.chunk_text.startswith(("body paragraph", "paragraph"))
    assert f"paragraph {hit.chunk_index} " in hit.chunk_text
    assert index.live([hit.chunk_id]) == {hit.chunk_id}


@pytest.mark.parametrize("way", WAYS)
def test_deleted_edited_and_truncated_rows_are_never_found(
    sink: Sink, index: Index, table: ModelTable, way: str
) -> None:
    fed = Fed(sink)
    fed(table.changes)
    before = {hit.key["id"]: hit.chunk_id for hit in find(index, way, "shared row3")}
    seen = len(table.changes)
    table.delete(1)
    table.update_body(2, "shared anew")
    fed(table.changes[seen:])
    hits = find(index, way, "shared row3")
    assert sorted(numbers(hits)) == [2, 3, 4, 5]
    assert {hit.chunk_text for hit in hits if hit.key["id"] == 2} == {"body shared anew"}
    assert index.live([*before.values(), "no-such-chunk"]) == {before[number] for number in (3, 4, 5)}
    seen = len(table.changes)
    table.truncate()
    table.insert(9, "shared row9")
    fed(table.changes[seen:])
    assert numbers(find(index, way, "shared row3")) == [9]
    assert index.live(list(before.values())) == set()


@pytest.mark.parametrize("way", WAYS)
def test_filters_let_only_their_tables_and_metadata_through(
    sink: Sink, index: Index, table: ModelTable, way: str
) -> None:
    table.update_a(2, "closed")
    table.update_a(4, "closed")
    Fed(sink)(table.changes)
    closed, nowhere = a_is("closed"), a_is("nowhere")
    assert sorted(numbers(find(index, way, "shared row3", filters=Filters((TABLE,), closed)))) == [2, 4]
    assert sorted(numbers(find(index, way, "shared row3", filters=Filters((), closed)))) == [2, 4]
    assert len(find(index, way, "shared row3", filters=Filters((TABLE,)))) == 5
    assert find(index, way, "shared row3", filters=Filters(("public.elsewhere",), closed)) == []
    assert find(index, way, "shared row3", filters=Filters((), nowhere)) == []


def test_coverage_weighs_a_rare_word_more_than_a_common_one(sink: Sink, index: Index, table: ModelTable) -> None:
    Fed(sink)(table.changes)
    both, rare, common, neither = index.coverage("shared row3", ["shared row3", "row3", "shared", "zyzzyva"])
    assert both == pytest.approx(1)
    assert 1 > rare > common > neither == 0
    assert index.coverage("shared", []) == []


def test_a_word_that_no_row_had_is_found_once_one_has_it(sink: Sink, index: Index, table: ModelTable) -> None:
    fed = Fed(sink)
    fed(table.changes)
    assert (find(index, "dense", "zyzzyva") != [], find(index, "lexical", "zyzzyva")) == (True, [])
    table.update_body(4, "zyzzyva")
    fed(table.changes[-1:])
    covered = {hit.key["id"]: hit.coverage for hit in find(index, "dense", "zyzzyva")}
    assert [covered[4], covered[3]] == pytest.approx([1, 0])
    assert numbers(find(index, "lexical", "zyzzyva")) == [4]
    assert index.coverage("zyzzyva", ["body zyzzyva"]) == [pytest.approx(1)]


def test_a_search_is_all_that_its_parts_are(sink: Sink, index: Index, table: ModelTable) -> None:
    table.update_a(2, "closed")
    Fed(sink)(table.changes)
    sink.note_progress(5)
    closed, nowhere = Filters((TABLE,), a_is("closed")), Filters((), a_is("nowhere"))
    for filters in (Filters(), closed, nowhere, Filters(access=()), Filters(access=(Grant((TABLE,), a_is("closed")),))):
        candidates = index.search(asked("shared row3"), 3, filters)
        assert candidates.active == index.index_versions().active
        assert candidates.freshness.indexed_as_of_us == index.freshness().indexed_as_of_us == 5
        assert abs(candidates.freshness.now_us / 1e6 - time.time()) < 60
        assert candidates.dense == find(index, "dense", "shared row3", 3, filters)
        assert candidates.lexical == find(index, "lexical", "shared row3", 3, filters)
    assert len(index.search(asked("shared row3"), 3).dense) == 3
    without = index.search(asked("zyzzyva"), 3)
    assert (len(without.dense), without.lexical) == (3, [])
    quoted = index.search(asked("shared 'row3' \\ back\\slash's"), 3)
    assert numbers(quoted.lexical)[0] == 3


def test_freshness_is_what_the_writer_noted_on_the_stores_clock(sink: Sink, index: Index) -> None:
    assert index.freshness().indexed_as_of_us is None
    sink.note_progress(5)
    known = index.freshness()
    assert known.indexed_as_of_us == 5
    assert abs(known.now_us / 1e6 - time.time()) < 60


def test_a_reader_finds_the_version_of_its_own_model(store: Store, index: Index) -> None:
    index.check()
    active = index.index_versions().active
    assert (active.number, active.fingerprint) == (1, "model=test")
    with closing(open_index(store.config, "model=other")) as other:
        with pytest.raises(ConfigurationError, match="another model") as raised:
            other.check()
        assert raised.value.hint


@pytest.mark.usefixtures("sink")
def test_a_store_that_does_not_exist_is_a_wrong_configuration(store: Store) -> None:
    with closing(open_index(named(store.config, "nothing"), "model=test")) as nothing:
        for ask in (nothing.check, nothing.index_versions):
            with pytest.raises(ConfigurationError, match="no store nothing"):
                ask()


@pytest.mark.usefixtures("sink")
def test_a_store_that_does_not_answer_is_unavailable(store: Store) -> None:
    with closing(open_index(store.at(1), "model=test")) as away:
        for way in WAYS:
            with pytest.raises(UnavailableError):
                find(away, way, "anything")
        with pytest.raises(UnavailableError):
            away.freshness()
        with pytest.raises(UnavailableError):
            away.search(asked("anything"), 3)


def id_of(number: int) -> str:
    return document_id(TABLE, key_of(number))


@pytest.mark.parametrize("way", WAYS)
def test_a_version_changes_with_each_newer_change(sink: Sink, index: Index, table: ModelTable, way: str) -> None:
    fed, ids = Fed(sink), [id_of(number) for number in range(1, 6)]
    fed(table.changes)
    first = index.versions([*ids, "no-such-document"])
    assert sorted(first) == sorted(ids)
    assert {hit.document_id: hit.version for hit in find(index, way, "shared row3")} == first
    seen = len(table.changes)
    table.update_body(1, "shared anew")
    table.update_a(2, "its metadata alone")
    table.delete(3)
    fed(table.changes[seen:])
    second = index.versions(ids)
    assert {name for name in ids if second.get(name) != first[name]} == {id_of(1), id_of(2), id_of(3)}
    assert id_of(3) not in second
    assert {hit.document_id: hit.version for hit in find(index, way, "shared row4")} == second
    table.truncate()
    fed(table.changes[-1:])
    assert index.versions(ids) == {}


def test_a_row_written_again_at_its_sequence_keeps_its_version(sink: Sink, index: Index, table: ModelTable) -> None:
    fed, ids = Fed(sink), [id_of(number) for number in range(1, 6)]
    fed(table.changes)
    first, written = index.versions(ids), index.document(ids[0])
    fed(table.changes)
    assert index.versions(ids) == first
    fed.change_recipe(DocumentSpec(TABLE, DocumentConfig(template="again: {body}", metadata=("a",))))
    fed(table.changes)
    assert index.versions(ids) == first
    anew = index.document(ids[0])
    assert written is not None
    assert anew is not None
    assert (anew.chunk_texts, anew.version) == (("again: body shared row1",), written.version)


def test_versions_and_documents_are_those_that_filters_let_through(sink: Sink, index: Index, table: ModelTable) -> None:
    fed, ids = Fed(sink), [id_of(number) for number in range(1, 6)]
    table.update_a(2, "mine")
    fed(table.changes)
    mine = Filters(access=(Grant((TABLE,), a_is("mine")),))
    others: list[Filters] = [
        Filters(("public.elsewhere",)), Filters((), a_is("other")), Filters(access=()),
        Filters(access=(Grant(("public.elsewhere",)),)), Filters((TABLE,), a_is("mine"), access=()),
    ]  # fmt: skip
    assert index.versions(ids, mine).keys() == {id_of(2)}
    assert [index.document(name, mine) is not None for name in ids] == [False, True, False, False, False]
    assert [(index.versions(ids, other), index.document(id_of(2), other)) for other in others] == [({}, None)] * 5
    table.update_a(2, "other")
    table.update_a(5, "mine")
    fed(table.changes[-2:])
    assert index.versions(ids, mine).keys() == {id_of(5)}, "one moved out of the grant, another into it"
    assert index.document(id_of(2), mine) is None


def test_a_document_has_its_row_its_texts_in_order_and_its_times(sink: Sink, index: Index) -> None:
    spec, name, committed = SPECS[TABLE], id_of(1), 1_700_000_000_123_456

    def put(change: Change) -> None:
        write = plan(sink.read([name]).get(name), row_state(change), key_of(1), spec)
        assert write is not None
        sink.keep_vectors({chunk.content_hash: vector_of(chunk.chunk_text) for chunk in write.added})
        assert sink.write([write]) == set()

    table = ModelTable()
    table.insert(1, "\n\n".join(f"paragraph {n} of a long body that is cut into pieces" for n in range(9)))
    assert index.document(name) is None
    before = time.time()
    put(replace(table.changes[0], commit_time_us=committed))
    read = index.document(name)
    assert read is not None
    assert (read.document_id, read.table, exact_json.dumps(read.key)) == (name, TABLE, key_of(1))
    assert read.metadata == {"a": table.rows[1]["a"]}
    assert [f"paragraph {n} " in text for n, text in enumerate(read.chunk_texts)] == [True] * 9
    assert read.commit_time_us == committed
    assert before - 60 < read.written_at_us / 1e6 < time.time() + 60
    assert {read.document_id: read.version} == index.versions([name])
    table.update_body(1, "short")
    put(replace(table.changes[1], commit_time_us=committed + 5_000_000))
    edited = index.document(name)
    assert edited is not None
    assert (edited.chunk_texts, edited.commit_time_us) == (("body short",), committed + 5_000_000)
    assert edited.version != read.version
    assert edited.written_at_us > read.written_at_us - 5_000_000  # the writer's clock, and then the store's
    table.delete(1)
    put(replace(table.changes[2], commit_time_us=committed + 9_000_000))
    assert index.document(name) is None


def test_a_row_without_text_is_a_document_without_chunks(sink: Sink, index: Index) -> None:
    fed = Fed(sink)
    fed.change_recipe(DocumentSpec(TABLE, DocumentConfig(template="{body}")))
    table = ModelTable()
    table.insert(1, "")
    fed([replace(table.changes[0], columns={"id": 1, "body": " "})])
    read = index.document(id_of(1))
    assert read is not None
    assert (read.chunk_texts, read.version) == ((), index.versions([id_of(1)])[id_of(1)])
