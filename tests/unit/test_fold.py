"""A row is a fold: any order, any repeats, the same row (I2 to I5)."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.changes import Change
from tests.history import ModelTable, contents, folded, key_of, random_history
from transforms.fold import encode, join, restore
from transforms.positions.sequence import BY_STREAM, sequence, stream_position
from transforms.values import exact_json


def rows_of(table: ModelTable) -> dict[str, dict[str, object]]:
    return {key_of(number): row for number, row in table.rows.items()}


def in_order_of_the_stream(change: Change) -> Change:
    """The change as DMS sends it without transaction details: a key change is one record, and so one place."""
    return replace(change, sequence=sequence(0, BY_STREAM, stream_position(str(int(change.sequence[4:20], 16)))))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9), order=st.integers(0, 10**9))
@example(
    seed=574, order=574
)  # two key changes; the second one carries a value that the first one has in its own record
def test_where_the_stream_alone_ranks_shuffled_histories_end_as_the_source(seed: int, order: int) -> None:
    table, r = random_history(seed, 14, sums=True), random.Random(order)
    changes = [in_order_of_the_stream(change) for change in table.changes]
    changes += r.choices(changes, k=4) if changes else []
    r.shuffle(changes)
    assert contents(folded(changes)) == rows_of(table)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9), order=st.integers(0, 10**9))
def test_shuffled_and_repeated_histories_end_in_the_rows_of_the_source(seed: int, order: int) -> None:
    table = random_history(seed, 14, sums=True)
    changes, r = list(table.changes), random.Random(order)
    changes += r.choices(changes, k=4) if changes else []
    r.shuffle(changes)
    assert contents(folded(changes)) == rows_of(table)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_history_in_its_own_order_ends_in_the_rows_of_the_source(seed: int) -> None:
    table = random_history(seed, 25, reuse_moved_keys=True, sums=True)
    assert contents(folded(table.changes)) == rows_of(table)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9), order=st.integers(0, 10**9))
def test_whole_states_do_not_depend_on_the_order(seed: int, order: int) -> None:
    changes = random_history(seed, 12, sums=True).changes
    shuffled = random.Random(order).sample(changes, len(changes))
    one, other = folded(changes), folded(shuffled)
    assert {k: (s.exists, s.sequence, s.values() if s.exists else None) for k, s in one.items()} == {
        k: (s.exists, s.sequence, s.values() if s.exists else None) for k, s in other.items()
    }
    assert [one[k].unresolved(["sum", "body"]) for k in one] == [other[k].unresolved(["sum", "body"]) for k in one]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_state_survives_its_json(seed: int) -> None:
    for state in folded(random_history(seed, 12, sums=True).changes).values():
        assert restore(exact_json.loads(exact_json.dumps(encode(state)))) == state
        assert join(state, state) == state


def test_an_older_body_fills_a_newer_update_that_lacks_it() -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.update_a(1, "y")
    insert, update = table.changes
    late = folded([update])[key_of(1)]
    assert late.unresolved(["body", "a"]) == ("body",)
    assert "body" not in late.values()
    assert contents(folded([update, insert])) == rows_of(table)


def test_a_tombstone_holds_no_text() -> None:
    table = ModelTable()
    table.insert(1, "secret")
    table.delete(1)
    for order in (table.changes, table.changes[::-1]):
        (state,) = folded(order).values()
        assert not state.columns
        assert "secret" not in exact_json.dumps(encode(state))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_a_key_change_takes_the_unchanged_body_along_in_every_order(order: tuple[int, ...]) -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.move(1, 2)
    assert contents(folded([table.changes[i] for i in order])) == rows_of(table)


@pytest.mark.parametrize("seed", range(6))
def test_insert_delete_insert_is_decided_by_the_sequence_alone(seed: int) -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.delete(1)
    table.insert(1, "z")
    assert contents(folded(random.Random(seed).sample(table.changes, 3))) == rows_of(table)


def test_null_told_by_a_whole_row_is_not_pending() -> None:
    change = Change("public.t", "c", folded_sequence(), key_of(1), {"id": 1}, complete=True)
    (state,) = folded([change]).values()
    assert state.unresolved(["body"]) == ()


def test_a_column_that_stops_coming_keeps_its_value_in_every_order() -> None:
    table = ModelTable(sums=True)
    table.insert(1, "x")
    table.update_without_sum(1, "y")
    table.update_a(1, "z")
    for order in permutations(table.changes):
        state = folded(order)[key_of(1)]
        assert state.values() == {"id": 1, "a": "z", "body": "body y", "sum": "sum x"}
        assert state.unresolved(["id", "a", "body", "sum", "never there"]) == ("sum",)
    table.update_body(1, "w")
    assert not folded(table.changes)[key_of(1)].unresolved(["sum"])


def test_a_state_that_forgot_what_stopped_coming_still_restores() -> None:
    """Before, a whole row dropped the values that it did not tell."""
    table = ModelTable()
    table.insert(1, "x")
    sequence = table.changes[0].sequence
    old = {"s": sequence, "u": "=", "c": "=", "v": {"id": 1}}
    assert restore(old).unresolved(["id", "sum"]) == ()
    assert encode(restore(old)) == old


def folded_sequence() -> str:
    table = ModelTable()
    table.insert(1, "x")
    return table.changes[0].sequence
