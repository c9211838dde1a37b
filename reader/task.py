"""A task of the continuous query: it instructs its reader, which it starts if there is none, and yields the harvest.

The only module of this package that knows Arrow; no module of it knows Spark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache

import pyarrow as pa

from embeddings.protocol import EmbeddingCounts
from indexing.garbage import freeze
from indexing.report import REPORT_COLUMNS, REPORT_SCHEMA, report_rows
from indexing.result import IndexResult
from reader.messages import Harvest, Instruction, ReaderSettings
from reader.starting import instruct

HARVEST_COLUMNS = f"{REPORT_COLUMNS}, harvest string"
"""REPORT_COLUMNS, and one row a reader with its harvest but for the results, as JSON; other columns of that row are NULL.

The JSON object: `part`, `batch` (of the instruction) and the fields of `Harvest` without `result` and `model_counts`; a gap
is `[from, to]`.
"""
HARVEST_SCHEMA = REPORT_SCHEMA.append(pa.field("harvest", pa.string()))


def harvest_task(
    settings: ReaderSettings, instructions: Mapping[int, Instruction], secret: bytes
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function for `mapInArrow` over rows `id`: each id is the number of an instruction, sent to its reader.

    It yields HARVEST_COLUMNS. Run again for the same batch, it yields the same results and new ones.

    Raises:
        PipelineError: the error that ended the reader, with its own type and message.
        ReaderFailedError: an unexpected exception ended the reader.
        UnavailableError: no reader could be started, or none answered.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _freeze_once()
        for batch in batches:
            for number in batch.column("id").to_numpy():
                instruction = instructions[int(number)]
                yield from _rows(instruct(settings, instruction, secret), instruction)

    return run


@cache
def _freeze_once() -> None:
    """Exempt imported modules from the collection that PySpark's worker runs after each task (64 ms of processor time)."""
    freeze()


def _rows(harvest: Harvest, instruction: Instruction) -> Iterator[pa.RecordBatch]:
    columns = {field.name: getattr(harvest, field.name) for field in fields(harvest)}
    result, model_counts = columns.pop("result"), columns.pop("model_counts")
    if result != IndexResult() or model_counts != EmbeddingCounts():
        report = report_rows(result, model_counts)
        yield report.append_column(HARVEST_SCHEMA.field("harvest"), pa.nulls(report.num_rows, pa.string()))
    columns |= {"part": instruction.part, "batch": instruction.batch}
    yield pa.RecordBatch.from_pylist([{"harvest": json.dumps(columns)}], HARVEST_SCHEMA)
