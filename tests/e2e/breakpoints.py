"""`ragstream`, in a driver that stops where it is told to: `python -m tests.e2e.breakpoints FOLDER run CONFIG …`.

A file in FOLDER, named for a point, is a breakpoint: the first process that reaches it takes the file away, notes its pid
in POINT.reached, and goes no further. The test kills it there, alone or with its driver. Nothing else differs from the product.

| point | reached |
|---|---|
| JOB-read | when it has the batch's records and has written nothing |
| land-half | when `changes` has the batch, and `rejects` and `ignored` do not |
| index-embedded | when the model has answered and no store has the vectors |
| index-half | in the store's transaction, between the heads and the chunks |
| merge-half | when one table is written and the others are not |
| load-half | in the warehouse's transaction, between the delete and the insert |
| JOB-written | when the batch is written and Spark has not committed it |
| backfill-written | when a store has got what it lacked, and its record stands |
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Breakpoints:
    """Where breakpoints are set and reached: the folder that a test and its processes share."""

    folder: str

    def set(self, *points: str) -> None:
        """Stop the next process that reaches each of these points."""
        for point in points:
            (Path(self.folder) / point).touch()

    def pid_at(self, point: str) -> int | None:
        """The process that stands at a point; None while there is none."""
        try:
            return int((Path(self.folder) / f"{point}.reached").read_text())
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """Forget all of them, set and reached."""
        for file in Path(self.folder).iterdir():
            file.unlink()

    def reached(self, point: str) -> None:
        """Go no further, if the point is set."""
        marker = Path(self.folder) / f"{point}.{os.getpid()}.{threading.get_ident()}"
        try:
            (Path(self.folder) / point).rename(marker)
        except FileNotFoundError:
            return
        marker.write_text(str(os.getpid()))
        marker.rename(Path(self.folder) / f"{point}.reached")
        threading.Event().wait()

    def before[**P, R](self, point: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, stopping before it does anything."""

        @functools.wraps(function)
        def stopping(*args: P.args, **kwargs: P.kwargs) -> R:
            self.reached(point)
            return function(*args, **kwargs)

        return stopping

    def after[**P, R](self, point: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, stopping when it has done its work."""

        @functools.wraps(function)
        def stopping(*args: P.args, **kwargs: P.kwargs) -> R:
            answer = function(*args, **kwargs)
            self.reached(point)
            return answer

        return stopping


_armed: set[Breakpoints] = set()


def arm_worker(breakpoints: Breakpoints) -> None:
    """Make this worker process stop at breakpoints, once."""
    from indexing import spark_stage as index_partition
    from indexing.indexer import Indexer
    from sinks.pgvector.writer import PgvectorSink

    if breakpoints in _armed:
        return
    _armed.add(breakpoints)

    def stopping(*arguments: Any, on_step: Callable[[str], None] | None = None, **options: Any) -> Indexer:
        def step_begins(step: str) -> None:
            breakpoints.reached(f"index-{step}")
            if on_step is not None:
                on_step(step)

        return Indexer(*arguments, on_step=step_begins, **options)

    setattr(index_partition, "Indexer", stopping)  # noqa: B010 - a name it imports
    PgvectorSink.keep_vectors = breakpoints.before("index-embedded", PgvectorSink.keep_vectors)  # type: ignore[method-assign]
    PgvectorSink._write_chunks = breakpoints.before("index-half", PgvectorSink._write_chunks)  # type: ignore[method-assign]


def armed_task(
    arm: Callable[[], None], make: Callable[..., Any], *arguments: Any
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """The task that `make` gives, in workers that were armed before."""
    task = make(*arguments)

    def run(batches: Iterable[Any]) -> Iterator[Any]:
        arm()
        yield from task(batches)

    return run


def arm_readers(breakpoints: Breakpoints) -> None:
    """Make the readers that this worker process starts stop at breakpoints."""
    from reader import starting

    boot = "import sys; sys.path[:] = sys.argv[1:]; from tests.e2e import breakpoints as b; b.be_reader({!r}) # reader.process"
    setattr(starting, "_BOOT", boot.format(breakpoints.folder))  # noqa: B010


def be_reader(folder: str) -> None:
    """Run as a reader that stops at breakpoints."""
    from indexing import spark_stage as index_partition
    from reader import process, writers

    arm_worker(Breakpoints(folder))
    setattr(writers, "Indexer", getattr(index_partition, "Indexer"))  # noqa: B009, B010
    process.main()


def decoded(breakpoints: Breakpoints, columns: Any, context: Any) -> Any:
    """`lake.landing.decoding.decoded`, stopping before it decodes."""
    from lake.landing import decoding

    breakpoints.reached("land-read")
    return decoding.decoded(columns, context)


def arm_driver(breakpoints: Breakpoints) -> None:
    """Make this driver and the workers it will have stop at breakpoints."""
    from glue_jobs.continuous import query as reader_query
    from glue_jobs.continuous.backfills import Backfills
    from glue_jobs.runtime.streaming import RunningQuery
    from indexing import spark_stage as index_partition
    from lake.landing import batch as landing
    from lake.tables.merge import _TableMerge
    from reader.task import harvest_task
    from warehouse.clients import WireClient

    arm_worker(breakpoints)  # a few records are indexed by the driver
    arm = functools.partial(arm_worker, breakpoints)
    stage = functools.partial(armed_task, arm, index_partition.index_partition)
    setattr(index_partition, "index_partition", stage)  # noqa: B010
    task = functools.partial(armed_task, functools.partial(arm_readers, breakpoints), harvest_task)
    setattr(reader_query, "harvest_task", task)  # noqa: B010
    setattr(landing, "decoded", functools.partial(decoded, breakpoints))  # noqa: B010
    setattr(landing, "append", breakpoints.after("land-half", getattr(landing, "append")))  # noqa: B009, B010
    _TableMerge._write = breakpoints.before("merge-read", _TableMerge._write)  # type: ignore[method-assign]
    _TableMerge._write = breakpoints.after("merge-half", _TableMerge._write)  # type: ignore[method-assign]
    Backfills.done = breakpoints.before("backfill-written", Backfills.done)  # type: ignore[method-assign]
    execute = WireClient._execute

    def executed(cursor: Any, statement: str) -> None:
        execute(cursor, statement)
        if statement.startswith("DELETE FROM"):
            breakpoints.reached("load-half")

    WireClient._execute = staticmethod(executed)  # type: ignore[method-assign]
    write = RunningQuery._write

    def written(self: RunningQuery, frame: Any, batch_id: int) -> None:
        write(self, frame, batch_id)
        breakpoints.reached(f"{self._query.name.partition('_')[0]}-written")

    RunningQuery._write = written  # type: ignore[method-assign]


def main(arguments: list[str]) -> None:
    """Run the command."""
    from glue_jobs.cli.main import main as ragstream

    arm_driver(Breakpoints(arguments[0]))
    ragstream(arguments[1:])


if __name__ == "__main__":
    # Under its own name, so that workers find by import what they are sent.
    from tests.e2e import breakpoints  # noqa: PLW0406

    breakpoints.main(sys.argv[1:])
