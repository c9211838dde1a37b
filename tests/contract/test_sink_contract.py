"""What every vector store must do."""

from __future__ import annotations

import pickle
import random
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import batched
from typing import Any

import numpy as np
import pytest

from converge.run import Settings, planned, run
from schemas.documents import DocumentWrite
from schemas.errors import ConfigurationError
from schemas.ownership import Owner
from schemas.records import Record
from sinks.digests import checksums, classify_drift, expected_of, vector_hash
from sinks.protocol import Sink
from tests.converging import OpenStore, histories_of
from tests.feeding import DIMENSIONS, DOCUMENT, SPECS, Fed, expected, same, vector_of
from tests.history import TABLE, ModelTable, folded, key_of, random_history
from tests.stores import Store
from transforms.documents.planning import DocumentSpec, digest, document_id
from transforms.values import exact_json


@pytest.mark.covers(("postgresql", "mariadb"), "debezium", ("snapshot", "delete", "key change"), "recorded")
def test_shuffled_doubled_and_recut_histories_leave_the_rows_of_the_source(store: Store) -> None:
    """Also with a second writer between plan and write, and a death before or after any durable step."""
    recordings = histories_of("pg15_plain", "mariadb1011_plain")
    settings = Settings(120, seed=secrets.randbelow(10**9))
    outcome = run(OpenStore(store, recordings), recordings, planned(recordings, settings))
    assert (outcome.failing, outcome.smallest) == (0, ()), f"seed {settings.seed}"
    assert outcome.deaths


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
    batches = [list(b) for b in batched(table.changes, 4)]

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
    for batch in batched(edits, cut):
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


@pytest.mark.parametrize("moves", [1, 2])
def test_a_late_change_under_an_old_key_survives_a_race(store: Store, sink: Sink, moves: int) -> None:
    """Which row it concerns now is said by the stored key change alone, and another writer is at that row."""
    table, other = ModelTable(), Fed(store.open())
    table.insert(0, "x")
    for number in range(moves):
        table.move(number, number + 1)
    other(table.changes[1:])
    written = len(table.changes)
    table.update_a(moves, "newer")
    Fed(Interleaved(sink, lambda: other(table.changes[written:])))(table.changes[:1])
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


def test_a_write_planned_on_a_row_that_was_removed_is_refused(store: Store, sink: Sink) -> None:
    """The row was written anew meanwhile, as many times as the one that the write was planned on."""
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "x")
    fed(table.changes)
    name = document_id(TABLE, key_of(1))
    removed = sink.read([name])[name]
    sink.remove({name: removed.revision})
    fed(table.changes)
    stale = DocumentWrite(name, TABLE, key_of(1), removed.revision, removed.state, removed.spec_digest, live=False)
    assert sink.write([stale]) == {name}
    assert [text for _, text, _ in store.contents()[key_of(1)][1]] == ["body x"]


def test_a_write_planned_on_an_older_revision_is_refused(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "x")
    fed(table.changes)
    name = document_id(TABLE, key_of(1))
    stored = sink.read([name])[name]
    stale = DocumentWrite(name, TABLE, key_of(1), stored.revision - 1, stored.state, stored.spec_digest, live=False)
    assert sink.write([stale]) == {name}
    assert same(store.contents(), expected(table))


def test_what_a_bulk_load_wrote_is_searchable_when_it_ends(store: Store, sink: Sink) -> None:
    table = random_history(4, 30)
    with sink.bulk_load():
        for batch in batched(table.changes, 4):
            Fed(sink)(batch)
    assert same(store.contents(), expected(table))


def test_text_no_store_likes_is_taken(store: Store, sink: Sink) -> None:
    table = ModelTable()
    table.insert(1, "nul \0 lone \ud800 wide ☃😀 'quote' \\ %s {x}")
    Fed(sink)(table.changes)
    (_, [(_, text, _)]) = store.contents()[key_of(1)]
    assert text == "body nul \ufffd lone \ufffd wide ☃😀 'quote' \\ %s {x}"


def test_what_decoding_lets_through_every_store_takes(store: Store, sink: Sink) -> None:
    """The deepest value, the widest and the longest numbers, the first and the last commit; PostgreSQL's numeric ends before."""
    numbers = ["1e1000000", "1e-1000000", "0." + "3" * 14_000, "0." + "3" * 20_000, "9" * 4_300, "9" * 140_000]
    owner, _, table = TABLE.partition(".")
    for number, commit in enumerate((-62_135_596_800_000_000, 253_402_300_799_999_999)):
        source = f'{{"schema":"{owner}","table":"{table}","lsn":{number},"ts_us":{commit}}}'
        nested = f"{'[' * 99}{','.join(numbers)}{']' * 99}"
        value = f'{{"op":"c","source":{source},"after":{{"id":{number},"a":{nested},"body":"body {number}"}}}}'
        Fed(sink).indexer.index([Record("t", "0", str(number), None, value.encode())])
    contents = store.contents()
    assert contents.keys() == {key_of(0), key_of(1)}
    kept = exact_json.dumps(contents[key_of(0)][0]["a"]).strip("[]").split(",")
    assert [Decimal(digits.strip('"')) for digits in kept if '"' in digits] == [
        Decimal(numbers[i]) for i in (0, 1, 3, 5)
    ]
    assert len(kept) == len(numbers)


def test_text_the_model_refuses_is_a_reject_and_the_rest_goes_on(store: Store, sink: Sink) -> None:
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


def test_a_store_is_one_pipelines_until_another_adopts_it(store: Store, sink: Sink) -> None:
    mine, other, rebuilt = Owner("desk", "1"), Owner("shop", "2"), Owner("desk", "3")
    assert sink.owner() is None, "a store from before is nobody's"
    sink.check(mine)
    sink.prepare(Owner("desk", ""))
    assert sink.owner() is None, "a pipeline without a lake claims nothing"
    for _ in range(2):
        sink.prepare(mine)
        store.open().prepare(mine)
    assert store.open().owner() == mine
    for stranger in (other, rebuilt, Owner("desk", "")):
        for refused in (store.open().check, store.open().prepare):
            with pytest.raises(ConfigurationError, match="belongs to") as raised:
                refused(stranger)
            assert (raised.value.condition, raised.value.exit_status) == ("OTHER_PIPELINE", 2)
            assert "ragstream adopt" in raised.value.hint
    assert sink.claim(other, rebuilt) == mine, "it was not the one's that is given up"
    assert sink.claim(rebuilt, mine) == rebuilt
    store.open().prepare(rebuilt)
    with pytest.raises(ConfigurationError, match="another lake"):
        sink.prepare(mine)


def test_of_two_pipelines_that_start_at_once_one_gets_the_store(store: Store) -> None:
    owners = [Owner(name, name) for name in ("desk", "shop")]

    def start(owner: Owner) -> bool:
        try:
            store.open().prepare(owner)
        except ConfigurationError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(start, owners))
    assert sorted(started) == [False, True]
    assert store.open().owner() == owners[started.index(True)]


def test_check_writes_nothing(store: Store) -> None:
    fresh = store.open()
    fresh.check()
    fresh.check(Owner("desk", "1"))
    assert fresh.owner() is None
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
    sink.note_progress(10**18)  # of the year 33658, as a commit once told: it must not stick
    sink.note_progress(5)
    sink.note_progress(3)
    summary = sink.summary()
    assert (summary.documents, summary.chunks, summary.indexed_as_of_us) == (1, 1, 5)


def test_live_documents_are_counted_by_their_document_spec(sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    assert sink.documents_by_spec() == {}
    for number in (1, 2, 3, 4):
        table.insert(number, "x")
    table.delete(4)
    fed(table.changes)
    old = SPECS[TABLE].digest
    assert sink.documents_by_spec() == {(TABLE, old): 3}
    new = DocumentSpec(TABLE, DOCUMENT.model_copy(update={"template": "{a}: {body}"}))
    fed.change_recipe(new)
    table.update_body(1, "y")
    fed(table.changes[-1:])
    assert sink.documents_by_spec() == {(TABLE, old): 2, (TABLE, new.digest): 1}
    table.truncate()
    fed(table.changes[-1:])
    assert sink.documents_by_spec() == {}


def test_vectors_can_be_read_back_for_a_cache(sink: Sink) -> None:
    table = ModelTable()
    table.insert(1, "x")
    Fed(sink)(table.changes)
    ((_, vector),) = list(sink.vectors_since(0))
    assert np.allclose(vector, vector_of("body x"))


def test_store_tells_what_it_really_holds_in_one_form_with_all_others(sink: Sink) -> None:
    table = random_history(5, 40)
    for number, text in enumerate(('\u20ac \ud800 \0 \\ " \n', "plain"), 200):
        table.insert(number, text)
    Fed(sink)(table.changes)
    states, marks = folded(table.changes), sink.truncations()
    spec = SPECS[TABLE]
    wanted = [expected_of(state, key, spec, marks.get(TABLE, "")) for key, state in states.items()]
    expected_by_id = {document.document_id: document for document in wanted if document}
    for vectors in (True, False):
        sums = sink.bucket_checksums(1, vectors=vectors)
        stored = [document for bucket in sums for document in sink.documents_in(bucket, 1, vectors=vectors)]
        assert checksums(stored, 1) == sums
        assert sorted(document.document_id for document in stored) == sorted(expected_by_id)
        landed = {TABLE: max(change.sequence for change in table.changes)}
        assert [
            finding for d in stored for finding in classify_drift(expected_by_id[d.document_id], [d], landed, marks)
        ] == []
        digests = (
            {vector_hash(vector_of(exact_json.printable(str(row["body"])).strip())) for row in table.rows.values()}
            if vectors
            else {"v"}
        )
        assert {chunk.vector for document in stored for chunk in document.chunks} <= digests


def test_rows_are_removed_unless_written_since_and_vectors_are_put_back(store: Store, sink: Sink) -> None:
    table = ModelTable()
    for number in range(3):
        table.insert(number, f"row {number}")
    Fed(sink)(table.changes)
    one, two, three = (document_id(TABLE, key_of(number)) for number in range(3))
    before = {name: stored.revision for name, stored in sink.read([one, two, three]).items()}
    sink.remove({one: before[one], two: before[two] + 6})
    assert sorted(store.contents()) == sorted([key_of(1), key_of(2)])
    content = digest("body row 2")
    assert np.allclose(sink.vectors([content, "none"])[content], vector_of("body row 2"), atol=1e-6)
    other = vector_of("something else")
    for replace, kept in ((False, vector_of("body row 2")), (True, other)):
        sink.keep_vectors({content: other}, replace=replace)
        assert np.allclose(sink.vectors([content])[content], kept, atol=1e-6)
    assert sink.read([three])[three].revision == before[three]
