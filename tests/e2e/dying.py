"""`ragstream`, in a driver that kills itself where it is told to: `python -m tests.e2e.dying ORDERS run CONFIG …`.

ORDERS is a folder. A file in it, named for a point, is the order: the first process that reaches the point takes the file
away and sends SIGKILL to the driver's whole process group and to itself. Nothing else differs from the product.

| point | the driver dies |
|---|---|
| JOB-read | when it has the batch's records and has written nothing |
| land-half | when `changes` has the batch, and `rejects` and `ignored` do not |
| index-embedded | when the model has answered and no store has the vectors |
| index-half | in the store's transaction, between the heads and the chunks |
| merge-half | when one table is written and the others are not |
| load-half | in the warehouse's transaction, between the delete and the insert |
| JOB-written | when the batch is written and Spark has not committed it |
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Orders:
    """Where orders are left, and which processes die of one."""

    folder: str
    group: int

    def reached(self, point: str) -> None:
        """Die if that is the order."""
        order = Path(self.folder) / point
        try:
            order.rename(order.with_name(f"{point}.obeyed"))
        except FileNotFoundError:
            return
        os.killpg(self.group, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def before[**P, R](self, point: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, deadly before it does anything."""

        @functools.wraps(function)
        def deadly(*args: P.args, **kwargs: P.kwargs) -> R:
            self.reached(point)
            return function(*args, **kwargs)

        return deadly

    def after[**P, R](self, point: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, deadly when it has done its work."""

        @functools.wraps(function)
        def deadly(*args: P.args, **kwargs: P.kwargs) -> R:
            answer = function(*args, **kwargs)
            self.reached(point)
            return answer

        return deadly


_armed: set[Orders] = set()


def arm_worker(orders: Orders) -> None:
    """Make this worker process deadly, once."""
    from sinks import index_partition
    from sinks.indexing import Indexer
    from sinks.pgvector import PgvectorSink

    if orders in _armed:
        return
    _armed.add(orders)
    deadly = functools.partial(Indexer, on_step=lambda step: orders.reached(f"index-{step}"))
    setattr(index_partition, "Indexer", deadly)  # noqa: B010 - a name it imports
    PgvectorSink.keep_vectors = orders.before("index-embedded", PgvectorSink.keep_vectors)  # type: ignore[method-assign]
    PgvectorSink._write_chunks = orders.before("index-half", PgvectorSink._write_chunks)  # type: ignore[method-assign]


def index_stage(orders: Orders, make: Callable[[Any], Any], settings: Any) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """The stage of index_documents in deadly workers."""
    stage = make(settings)

    def run(groups: Iterable[Any]) -> Iterator[Any]:
        arm_worker(orders)
        yield from stage(groups)

    return run


def decoded(orders: Orders, columns: Any, context: Any) -> Any:
    """`lake.decoding.decoded`, deadly before it decodes."""
    from lake import decoding

    orders.reached("land-read")
    return decoding.decoded(columns, context)


def arm_driver(orders: Orders) -> None:
    """Make this driver and the workers it will have deadly."""
    from glue_jobs.runtime.streaming import RunningQuery
    from lake import landing
    from lake.tables import _TableMerge
    from sinks import index_partition
    from warehouse.clients import WireClient

    arm_worker(orders)  # a few records are indexed by the driver
    stage = functools.partial(index_stage, orders, index_partition.index_groups)
    setattr(index_partition, "index_groups", stage)  # noqa: B010
    setattr(landing, "decoded", functools.partial(decoded, orders))  # noqa: B010
    setattr(landing, "append", orders.after("land-half", getattr(landing, "append")))  # noqa: B009, B010
    _TableMerge._write = orders.before("merge-read", _TableMerge._write)  # type: ignore[method-assign]
    _TableMerge._write = orders.after("merge-half", _TableMerge._write)  # type: ignore[method-assign]
    execute = WireClient._execute

    def executed(cursor: Any, statement: str) -> None:
        execute(cursor, statement)
        if statement.startswith("DELETE FROM"):
            orders.reached("load-half")

    WireClient._execute = staticmethod(executed)  # type: ignore[method-assign]
    write = RunningQuery._write

    def written(self: RunningQuery, frame: Any, batch_id: int) -> None:
        write(self, frame, batch_id)
        orders.reached(f"{self._query.name.partition('_')[0]}-written")

    RunningQuery._write = written  # type: ignore[method-assign]
    RunningQuery._take = orders.after("index-written", RunningQuery._take)  # type: ignore[method-assign]


def main(arguments: list[str]) -> None:
    """Run the command."""
    from glue_jobs.cli import main as ragstream

    arm_driver(Orders(arguments[0], os.getpgrp()))
    ragstream(arguments[1:])


if __name__ == "__main__":
    # Under its own name, so that workers find by import what they are sent.
    from tests.e2e import dying  # noqa: PLW0406

    dying.main(sys.argv[1:])
