"""A writer that is a process of its own, for tests that kill it: it feeds a store from some place of a long history on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.feeding import Fed
from tests.history import ModelTable
from tests.processes import PROCESSES

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

    from sinks.protocol import Sink

LARGEST_BATCH = 9
_KEYS = 60


def long_history(seed: int, length: int) -> ModelTable:
    """Documents of one to six chunks over few keys: cut anew, moved, deleted, truncated; a shorter one is its beginning."""
    r, table = random.Random(seed), ModelTable()
    for step in range(length):
        free = [n for n in range(_KEYS) if n not in table.rows and n not in table.moved]
        body = "\n\n".join(f"paragraph {n} of a long body in version {step}" for n in range(r.randint(1, 6)))
        kind = r.choice(["insert", "a", "body", "body", "body", "delete", "move"])
        live = sorted(table.rows)
        if step % 97 == 96:
            table.truncate()
        elif (kind == "insert" or not live) and free:
            table.insert(r.choice(free), body)
        elif kind == "move" and len(free) > 1 and r.random() < 0.1:
            table.move(r.choice(live), r.choice(free))
        elif kind == "delete" and r.random() < 0.5:
            table.delete(r.choice(live))
        elif live:
            (table.update_a if kind == "a" else table.update_body)(r.choice(live), body)
    return table


def _write(sink: Sink, seed: int, length: int, at: int, reports: Connection) -> None:
    changes = long_history(seed, length).changes
    fed, r = Fed(sink), random.Random(at)
    reports.send(at)
    while at < len(changes):
        batch = changes[at : at + r.randint(1, LARGEST_BATCH)]
        fed(batch)
        at += len(batch)
        reports.send(at)


@contextmanager
def writing(sink: Sink, seed: int, length: int, at: int) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """A process that writes the history from a place on, and where it tells its place: at first, then after each batch."""
    reached, tells = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_write, args=(sink, seed, length, at, tells), daemon=True)
    process.start()
    tells.close()
    try:
        yield process, reached
    finally:
        process.kill()
        process.join()
        process.close()
        reached.close()
