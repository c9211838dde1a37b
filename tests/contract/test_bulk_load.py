"""A load without the vector index, of every store: guarded as ever, searched meanwhile, ended by whoever comes."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import batched

import pytest

from indexing.store_writer import IN_PARTS_FROM
from sinks import open_index
from sinks.protocol import Sink
from sinks.search import Question
from sinks.versions import BulkLoad
from tests.feeding import Fed, expected, same, vector_of
from tests.history import ModelTable, as_record, random_history
from tests.stores import Store
from tests.waiting import eventually


def a_load(by: str = "first load", renewed_us: int | None = None) -> BulkLoad:
    return BulkLoad(by, time.time_ns() // 1000, renewed_us=renewed_us)


def nearest(store: Store, text: str) -> list[str]:
    with closing(open_index(store.config, "model=test")) as index:
        return [hit.chunk_text for hit in index.dense(Question(text, vector_of(text)), 3)]


def test_rows_written_in_a_load_by_two_writers_are_the_source_s(store: Store, sink: Sink) -> None:
    table = random_history(17, 80)
    assert sink.begin_bulk_load(a_load())
    assert sink.begin_bulk_load(a_load())
    one, other = Fed(sink), Fed(store.open())
    for number, batch in enumerate(batched(table.changes, 7)):
        (one, other)[number % 2](batch)
        if number == 5:
            one(batch)
    assert sink.bulk_load_now() is not None
    assert same(store.contents(), expected(table))
    assert sink.end_bulk_load()
    assert sink.bulk_load_now() is None
    assert sink.filling() == ""
    sink.check()
    one(table.changes)
    assert same(store.contents(), expected(table))


def test_a_search_answers_before_while_and_after_the_index_is_missing(store: Store, sink: Sink) -> None:
    table = ModelTable()
    for number in range(40):
        table.insert(number, f"row number {number}")
    sink.begin_bulk_load(a_load())
    fed = Fed(sink)
    fed(table.changes)
    eventually(lambda: nearest(store, "body row number 7")[:1] == ["body row number 7"])
    table.update_body(7, "another text")
    table.delete(8)
    fed(table.changes[-2:])
    eventually(lambda: nearest(store, "body another text")[:1] == ["body another text"])
    assert sink.end_bulk_load()
    assert nearest(store, "body another text")[:1] == ["body another text"]
    assert "body row number 8" not in nearest(store, "body row number 8")


def test_a_store_that_is_searched_keeps_its_index_for_a_few_rows(sink: Sink) -> None:
    table = random_history(19, 20)
    Fed(sink)(table.changes)
    assert not sink.begin_bulk_load(a_load())
    assert not sink.begin_bulk_load(a_load("rebuild"), 500)
    assert not sink.begin_bulk_load(a_load("rebuild", renewed_us=5), sink.most_compared), (
        "readers could not compare them"
    )
    assert sink.bulk_load_now() is None
    assert sink.end_bulk_load()


@pytest.mark.usefixtures("sink")
def test_a_command_takes_a_load_over_and_a_job_does_not(store: Store) -> None:
    job, command = store.open(), store.open()
    assert job.begin_bulk_load(a_load())
    assert command.begin_bulk_load(a_load("rebuild", renewed_us=5), 2_000)
    assert job.begin_bulk_load(a_load())
    load = job.bulk_load_now()
    assert load is not None
    assert (load.by, load.expected, load.renewed_us) == ("rebuild", 2_000, 5)
    command.renew_bulk_load()
    renewed = job.bulk_load_now()
    assert renewed is not None
    assert (renewed.renewed_us or 0) > 5
    assert job.filling() == "filling, 0 %"


def test_units_written_in_parts_leave_what_the_source_has(store: Store, sink: Sink) -> None:
    table = random_history(23, 160)
    for number in range(1000, 1000 + IN_PARTS_FROM):
        table.insert(number, f"row number {number}")
    fed = Fed(sink)
    indexer = fed.indexer
    units = [indexer.decode([as_record(change) for change in batch]) for batch in batched(table.changes, 64)]
    writer = indexer.writer(sink.name)
    written = writer.write(units)
    assert same(store.contents(), expected(table))
    assert sum(map(len, written.embedded.values())) == len(set(fed.embedder.texts))
    again = writer.write(units)
    writer.close()
    assert not any(again.embedded.values())
    assert same(store.contents(), expected(table))
