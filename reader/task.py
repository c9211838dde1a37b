"""A task of the continuous query: it asks its reader what was written since, and starts the reader if there is none.

The only module of this package that knows Arrow; no module of it knows Spark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from sinks.index_report import REPORT_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

    from reader.messages import Instruction, ReaderSettings

HARVEST_COLUMNS = f"{REPORT_COLUMNS}, harvest string"
"""REPORT_COLUMNS, and one row a reader with its harvest but for the results, as JSON; all else of that row is NULL.

The JSON object: `part`, `batch` (of the instruction) and the fields of `Harvest` without `result` and `asked`; a gap is
`[from, to]`.
"""


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
    raise NotImplementedError
