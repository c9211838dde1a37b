"""A partition's records written as Parquet files beside the lake's tables by the worker that decodes them.

A file is part of a table when the driver commits it, and only the files of tasks that succeeded reach the driver; what a
failed task wrote is never read and goes with the next vacuum. Spark's own writer takes ten times as long
for these rows, and longer than everything before it together.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import json
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from lake.landing.decoding import DecodedBatch, Tally
from lake.layout import RAW_COLUMNS, STATS_COLUMNS, LakeLayout
from lake.storage import arrow_files, commit
from lake.table_schemas import CHANGES, REJECTS
from transforms.envelopes.stored import HEADER

if TYPE_CHECKING:
    from deltalake import DeltaTable as RustTable

    from transforms.context import DecodeContext

type Columns = dict[str, pa.Array[Any]]
type Decode = Callable[[Sequence[pa.Array[Any]], DecodeContext], DecodedBatch]

_MARK = pa.array([[{"key": HEADER, "value": b"1"}]], CHANGES.field("headers").type)
"""The headers of a record of which `changes` keeps the stored form."""
OUTCOME_DDL = "outcome binary"
_PARTITION = "_ingest_date"
_FILE_BYTES = 128 * 1024 * 1024
_FEW_VALUES = ("stream", "partition", "_source", "_table", "_op", "_schema_id", "stage", "condition", "message")
"""Columns that repeat themselves; a dictionary of any other costs time and saves nothing."""


@dataclass(frozen=True)
class WrittenFile:
    """A file that is not committed yet; its path is relative to the table's."""

    path: str
    size: int
    partition: str
    stats: str


@dataclass
class Outcome:
    """What one task, or all of an action, did."""

    tally: Tally = field(default_factory=Tally)
    changes: list[WrittenFile] = field(default_factory=list)
    rejects: list[WrittenFile] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add what another task did."""
        self.tally.add(other.tally)
        self.changes += other.changes
        self.rejects += other.rejects


@dataclass(frozen=True)
class LandPartition:
    """The stage of landing: from a partition's RAW_COLUMNS to its files.

    Run again it writes other files, and one run's alone are ever committed. The input's last column says where headers were NULL.
    """

    root: str
    source: str
    context: DecodeContext
    decode: Decode
    now: dt.datetime

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield one row: the pickled Outcome."""
        layout = LakeLayout(self.root)
        changes = _Files(layout.path("changes"), CHANGES, STATS_COLUMNS["changes"], self.now)
        rejects = _Files(layout.path("rejects"), REJECTS, STATS_COLUMNS["rejects"], self.now)
        outcome = Outcome()
        for batch in batches:
            raw = dict(zip(RAW_COLUMNS, _with_null_headers(batch.columns), strict=True))
            batch_decoded = self.decode([raw[name] for name in RAW_COLUMNS[:6]], self.context)
            outcome.tally.add(batch_decoded.tally)
            stamps = {"_source": self.source, "_ingest_time": self.now, "stage": "decode"}
            of_changes, of_rejects = kept_bytes(raw, batch_decoded.kept)
            columns = _by_name(batch_decoded.records)
            changes.write(of_changes | columns, stamps, columns["_op"])
            rejects.write(of_rejects | columns, stamps, columns["condition"])
            if len(batch_decoded.unfit):
                unfit = _by_name(batch_decoded.unfit)
                landed = {name: column.take(unfit["record"]) for name, column in of_rejects.items()}
                rejects.write(landed | unfit, stamps, unfit["condition"])
        outcome.changes, outcome.rejects = changes.done(), rejects.done()
        yield pa.RecordBatch.from_arrays([pa.array([pickle.dumps(outcome)], pa.binary())], ["outcome"])


def kept_bytes(raw: Columns, kept: Mapping[int, bytes | None]) -> tuple[Columns, Columns]:
    """RAW_COLUMNS as `changes` and as `rejects` keep them: of the places in `kept`, no key, value and header that came."""
    if not kept:
        return raw, raw
    places = pa.array(range(len(raw["key"])), pa.int64())
    put = pc.if_else(pc.is_in(places, pa.array(list(kept), pa.int64())), None, places)
    nothing = {name: raw[name].take(put) for name in ("key", "value", "headers")}
    values = [kept.get(place) for place in range(len(places))]
    of_changes = {
        "key": nothing["key"],
        "value": pc.coalesce(nothing["value"], pa.array(values, raw["value"].type)),
        "headers": pa.concat_arrays([raw["headers"], _MARK.cast(raw["headers"].type)]).take(
            pc.coalesce(put, len(places))
        ),
    }
    return raw | of_changes, raw | nothing


def _by_name(rows: pa.StructArray) -> dict[str, pa.Array[Any]]:
    return {kind.name: rows.field(place) for place, kind in enumerate(rows.type)}


def _with_null_headers(columns: Sequence[Any]) -> list[pa.Array[Any]]:
    *plain, headers, timestamp, absent = columns
    if pc.any(absent).as_py():
        headers = pa.ListArray.from_arrays(headers.offsets, headers.values, mask=absent)
    return [*plain, headers, timestamp]


class _Files:
    """Writes the files of one table: the first row begins a file, `_FILE_BYTES` end it."""

    def __init__(self, table: str, schema: pa.Schema, stats: str, now: dt.datetime) -> None:
        self._table = table
        self._schema = pa.schema([field for field in schema if field.name != _PARTITION])
        self._stats_columns = stats.split(",")
        self._date = now.date().isoformat()
        self._written: list[WrittenFile] = []
        self._begin()

    def _begin(self) -> None:
        self._sink = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        self._parts: list[pa.Table] = []

    def write(self, columns: Mapping[str, pa.Array[Any]], stamps: Mapping[str, Any], where: pa.Array[Any]) -> None:
        """Write the rows where an array is not NULL."""
        if where.null_count == len(where):
            return
        arrays = [_column(field, columns, stamps, len(where)) for field in self._schema]
        rows = pa.Table.from_arrays(arrays, schema=self._schema)
        if where.null_count:
            rows = rows.filter(where.is_valid())
        if self._writer is None:
            few = [name for name in _FEW_VALUES if name in self._schema.names]
            self._writer = pq.ParquetWriter(self._sink, self._schema, use_dictionary=few)  # type: ignore[arg-type] # names will do
        self._writer.write_table(rows)
        self._parts.append(rows.select(self._stats_columns))
        if self._sink.tell() >= _FILE_BYTES:
            self._end()

    def done(self) -> list[WrittenFile]:
        """End the last file and name all of them."""
        self._end()
        return self._written

    def _end(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        data = self._sink.getvalue()
        path = f"{_PARTITION}={self._date}/part-{uuid.uuid4()}.snappy.parquet"
        _put(self._table, path, data)
        self._written.append(WrittenFile(path, len(data), self._date, _stats(pa.concat_tables(self._parts))))
        self._begin()


def _column(
    column: pa.Field[Any], columns: Mapping[str, pa.Array[Any]], stamps: Mapping[str, Any], rows: int
) -> pa.Array[Any]:
    if column.name in columns:
        return columns[column.name].cast(column.type)
    repeated: pa.Array[Any] = pa.repeat(pa.scalar(stamps.get(column.name), column.type), rows)
    return repeated


def _put(table: str, path: str, data: bytes) -> None:
    system, folder = arrow_files(table)
    folder = f"{folder}/{path}"
    if isinstance(system, fs.LocalFileSystem):  # other stores have no folders to make
        system.create_dir(str(PurePosixPath(folder).parent))
    with system.open_output_stream(folder) as stream:
        stream.write(data)


def _stats(rows: pa.Table) -> str:
    """The file's statistics as the Delta log has them."""
    ends = {name: pc.min_max(rows[name]) for name in rows.column_names}
    known = {name: both for name, both in ends.items() if both["min"].is_valid}
    return json.dumps(
        {
            "numRecords": rows.num_rows,
            "minValues": {name: _stat(both["min"].as_py()) for name, both in known.items()},
            "maxValues": {name: _stat(both["max"].as_py()) for name, both in known.items()},
            "nullCount": {name: rows[name].null_count for name in rows.column_names},
        }
    )


def _stat(value: Any) -> Any:
    # Not strftime, which writes the year 1 as `1`.
    return (
        f"{value.replace(tzinfo=None).isoformat(timespec='microseconds')}Z" if isinstance(value, dt.datetime) else value
    )


def append(path: str, files: Sequence[WrittenFile], transaction: Mapping[str, str]) -> None:
    """Make written files part of a table, in one commit; the same transaction again adds nothing (I7)."""
    if files:
        commit(path, functools.partial(_add, files), transaction)


def _add(files: Sequence[WrittenFile], table: RustTable, **properties: Any) -> None:
    from deltalake.transaction import AddAction, RemoveAction

    now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(
            path=file.path,
            size=file.size,
            partition_values={_PARTITION: file.partition},
            modification_time=now,
            data_change=True,
            stats=file.stats,
        )
        for file in files
    ]
    table.create_write_transaction(actions, "append", table.schema(), partition_by=[_PARTITION], **properties)
