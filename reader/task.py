"""A task of the continuous query: it asks its reader what was written since, and starts the reader if there is none.

The only module of this package that knows Arrow; no module of it knows Spark.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

from embeddings.protocol import EmbeddingCounts
from indexing.report import REPORT_COLUMNS, REPORT_SCHEMA, report_rows
from indexing.result import IndexResult
from reader.messages import Harvest
from reader.starting import harvested

if TYPE_CHECKING:
    from reader.messages import Instruction, ReaderSettings

HARVEST_COLUMNS = f"{REPORT_COLUMNS}, harvest string"
"""REPORT_COLUMNS, and one row a reader with its harvest but for the results, as JSON; all else of that row is NULL.

The JSON object: `part`, `batch` (of the instruction) and the fields of `Harvest` without `result` and `asked`; a gap is
`[from, to]`.
"""
HARVEST_SCHEMA = REPORT_SCHEMA.append(pa.field("harvest", pa.string()))


def harvest_task(
    settings: ReaderSettings, instructions: Mapping[int, Instruction], secret: bytes
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function for `mapInArrow` over rows `id`: each id names the instruction that is handed to its reader.

    It yields HARVEST_COLUMNS. Run again for the same batch, it yields the same results and what is new.

    Raises:
        PipelineError: what the reader died of, with its own type and message.
        ReaderFailedError: the reader died of an unexpected exception.
        UnavailableError: no reader could be started, or none answered.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _freeze()
        for batch in batches:
            for number in batch.column("id").to_numpy():
                instruction = instructions[int(number)]
                yield from _rows(harvested(settings, instruction, secret), instruction)

    return run


@cache
def _freeze() -> None:
    """Take what the imports made out of the collection that PySpark's worker runs after each task (64 ms of processor time)."""
    gc.collect()
    gc.freeze()


def _rows(harvest: Harvest, instruction: Instruction) -> Iterator[pa.RecordBatch]:
    told = {field.name: getattr(harvest, field.name) for field in fields(harvest)}
    result, asked = told.pop("result"), told.pop("asked")
    if result != IndexResult() or asked != EmbeddingCounts():
        report = report_rows(result, asked)
        yield report.append_column(HARVEST_SCHEMA.field("harvest"), pa.nulls(report.num_rows, pa.string()))
    told |= {"part": instruction.part, "batch": instruction.batch}
    yield pa.RecordBatch.from_pylist([{"harvest": json.dumps(told)}], HARVEST_SCHEMA)
