"""What the real-time mode's workers do with records as they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from glue_jobs.runtime.real_time import arriving, fitting, table_of


def row(value: int | None, *, filler: bool) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"value": pa.array([value], pa.int64()), "_filler": [filler]})


def values(group: list[pa.RecordBatch]) -> list[int]:
    return [int(value) for batch in group for value in batch.column("value").to_pylist() if value is not None]


def test_records_that_came_while_the_stage_worked_are_one_group_without_fillers() -> None:
    came = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield row(1, filler=False)
        yield row(None, filler=True)
        assert came.wait(10)
        for number in (2, 3):
            yield row(number, filler=False)
            yield row(None, filler=True)

    groups = arriving(batches())
    assert values(next(groups)) == [1]
    came.set()
    assert [number for group in groups for number in values(group)] == [2, 3]


def test_a_group_holds_the_records_columns_alone() -> None:
    (group,) = arriving([row(1, filler=False)])
    assert group[0].schema.names == ["value"]


def test_what_was_read_before_an_error_is_worked_on_and_then_the_error_is_raised() -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield row(1, filler=False)
        raise OSError("gone")

    groups = arriving(batches())
    assert values(next(groups)) == [1]
    with pytest.raises(OSError, match="gone"):
        next(groups)


def test_a_reader_waits_while_too_many_bytes_wait_for_the_stage() -> None:
    read: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(6):
            read.append(number)
            body = pa.array([b"x" * (3 << 20)], pa.binary())
            yield pa.RecordBatch.from_arrays([body, pa.array([False])], ["value", "_filler"])

    groups = arriving(batches())
    first = len(next(groups))
    assert 1 <= first <= 4
    assert sum(len(group) for group in groups) == 6 - first
    assert read == list(range(6))


@pytest.mark.parametrize(
    ("tasks", "staying"),
    [
        ({"a": 2, "b": 2}, {"a", "b"}),
        ({"a": 3, "b": 2}, {"a"}),
        ({"a": 5, "b": 4}, {"b"}),
        ({"a": None, "b": 1}, {"b"}),
    ],
)
def test_sources_stay_while_their_tasks_leave_slots_to_the_others(
    tasks: dict[str, int | None], staying: set[str]
) -> None:
    assert fitting(driver(slots=8), tasks) == staying
    assert fitting(driver(slots=8, drains=True), tasks) == set()


def driver(*, slots: int, drains: bool = False) -> Any:
    context = SimpleNamespace(defaultParallelism=slots)
    return SimpleNamespace(available_now=drains, spark=SimpleNamespace(sparkContext=context))


def test_answers_are_put_together_again() -> None:
    batch = pa.RecordBatch.from_pydict({"summary": ["a"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert table_of([sink.getvalue().to_pybytes()] * 2).to_pylist() == [{"summary": "a"}] * 2
