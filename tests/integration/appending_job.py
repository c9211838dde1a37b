"""A job as short as one can be: appends its records to a Delta table, and breaks where it is told to.

A file in the folder BREAKS, named for what to do, is the order; the job removes it when it obeys once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from glue_jobs.runtime import Batch, JobContext, Periodic, Query, Report, run_job
from schemas.errors import SourceGoneError, UnavailableError
from sources import read_stream
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

    from sources import SourceConfig

CANARY = "the text of a row"
HELD_SECONDS = 240


def plan(context: JobContext) -> list[Query | Periodic]:
    folder = Path(context.config.lake.path).parent
    return [_query(context, source, folder) for source in context.config.sources]


def _query(context: JobContext, source: SourceConfig, folder: Path) -> Query:
    name = f"land_{source.name}"

    def read() -> object:
        return read_stream(context.spark, source, context.checkpoint(name), drain=context.available_now)

    def write(batch: Batch) -> Report:
        options = batch.transaction("changes")
        frame = batch.frame.mapInArrow(_breaking(str(folder)), batch.frame.schema)
        frame.write.format("delta").mode("append").options(**options).save(f"{context.config.lake.path}/changes")
        if _told(folder, "kill-after-write"):
            os.kill(os.getpid(), signal.SIGKILL)
        if _told(folder, "defect", keep=True):
            raise ValueError(CANARY)
        if (folder / "hold").exists():
            (folder / "held").touch()
            eventually(lambda: not (folder / "hold").exists(), HELD_SECONDS)
        (folder / "wrote").touch()
        return Report(counts={"t": {"batches": 1}})

    return Query(name, read, write, every_seconds=0.2)  # type: ignore[arg-type]


def _breaking(folder: str) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def passed_on(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        if _told(Path(folder), "unavailable"):
            raise UnavailableError("the store does not answer", hint="Start it.")
        if _told(Path(folder), "gone"):
            raise SourceGoneError("the shard is gone", hint="Run `ragstream rebuild`.")
        yield from batches

    return passed_on


def _told(folder: Path, order: str, *, keep: bool = False) -> bool:
    file = folder / order
    if not file.exists():
        return False
    if not keep:
        file.unlink(missing_ok=True)
    return True


if __name__ == "__main__":
    run_job(plan)
