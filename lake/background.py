"""Workers that land and merge stand back: on cores they share with an indexer, what is to be searchable goes first."""

from __future__ import annotations

import os

_NICENESS = 10


def stand_back() -> None:
    """Lower the priority of this process, once, where it is a Spark worker; Spark keeps its workers, and it stays low."""
    from pyspark import TaskContext

    if TaskContext.get() is not None and os.getpriority(os.PRIO_PROCESS, 0) < _NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
