"""A bulk load that is killed at a step: killed_load.py STEP, with the store's configuration as JSON on stdin.

Steps: `announced` (the load is in the meta, the index still there), `begun`, `built` (the index is there, the load still in the
meta). Without one of them it runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from sinks import SinkConfig, open_sink
from sinks.versions import BulkLoad
from tests.feeding import DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sinks.versions import IndexVersions


def main() -> None:
    """Begin a load, and end it."""
    step = sys.argv[1]
    config: SinkConfig = TypeAdapter(SinkConfig).validate_json(sys.stdin.read())
    sink = open_sink(config, "model=test", DIMENSIONS)
    change = sink.change_index_versions

    def changed(becomes: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        if step == "built":
            os.kill(os.getpid(), signal.SIGKILL)
        after = change(becomes)
        if step == "announced":
            os.kill(os.getpid(), signal.SIGKILL)
        return after

    if step != "built":
        vars(sink)["change_index_versions"] = changed
    sink.begin_bulk_load(BulkLoad("first load", time.time_ns() // 1000), 0)
    if step == "begun":
        os.kill(os.getpid(), signal.SIGKILL)
    vars(sink)["change_index_versions"] = changed
    sink.end_bulk_load()


if __name__ == "__main__":
    main()
