"""What every reader of a vector store must do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from schemas.errors import ConfigurationError, UnavailableError
from sinks import SinkConfig, open_index
from sinks.protocol import Sink
from sinks.search import Filters, Hit, Index, Question
from tests.contract.conftest import STORES
from tests.feeding import Fed, vector_of
from tests.history import TABLE, ModelTable, key_of
from tests.stores import Store
from transforms.documents.planning import document_id
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
