"""Making the lake's Delta tables, and reading them without Spark."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lake.layout import rust_uri
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import CommitProperties
    from deltalake import DeltaTable as RustTable
    from pyarrow.fs import FileSystem
    from pyspark.sql import DataFrame, SparkSession

COLUMN_MAPPING = {
    "delta.columnMapping.mode": "name",
    "delta.minReaderVersion": "2",
    "delta.minWriterVersion": "5",
}
"""Lets a column have any name. The deltalake package reads such a table through its QueryBuilder only, so it is set
where a name needs it and nowhere else."""


LOG_RETENTION = {"delta.logRetentionDuration": "interval 7 days"}
"""As long as replaced files stay (`maintenance.KEEP_HOURS`): a job that follows a table may be down for so long."""


def create(
    path: str,
    schema: pa.Schema,
    *,
    stats: str,
    partition_by: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
) -> None:
    """Create a Delta table where there is none; safe to call by several drivers at once, and any number of times.

    A table that an earlier version made gets the columns that it lacks.
    """
    from deltalake import DeltaTable
    from deltalake import Schema as DeltaSchema

    table = open_table(path)
    if table is not None:
        present = {field.name for field in table.schema().fields}
        lacking = [field for field in DeltaSchema.from_arrow(schema).fields if field.name not in present]
        if lacking:
            table.alter.add_columns(lacking)
    else:
        configuration = {"delta.dataSkippingStatsColumns": stats, **LOG_RETENTION, **(properties or {})}
        DeltaTable.create(
            rust_uri(path), schema, mode="ignore", partition_by=list(partition_by), configuration=configuration
        )


def append_rows(path: str, rows: pa.Table, transaction: Mapping[str, str] | None = None) -> None:
    """Append a few rows in one commit, without a Spark job; the same transaction again appends nothing (I7)."""
    from deltalake import write_deltalake

    def append(table: RustTable, **properties: Any) -> None:
        write_deltalake(table, rows, mode="append", **properties)

    commit(path, append, transaction)


def commit(path: str, write: Callable[..., object], transaction: Mapping[str, str] | None = None) -> None:
    """Make one commit without Spark; the same transaction again is not made (I7).

    `write` gets the table and what the commit must carry. The table stays open for the next commit, so that one reads
    the commits since the last instead of the log since its checkpoint: on S3 that is ten requests instead of a hundred.
    Raises UnavailableError until some job has created the table, and while the lake's storage does not answer.
    """
    from deltalake import PostCommitHookProperties

    try:
        opened = _take(path)
        properties = opened.once(transaction) if transaction else None
        if properties is not None or not transaction:
            # What is over age is deleted by maintenance: here each checkpoint would list the whole log for it.
            hooks = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
            write(opened.table, commit_properties=properties, post_commithook_properties=hooks)
            opened.expected += 1
    except OSError as error:
        raise UnavailableError(
            f"the table at {path} cannot be written ({type(error).__name__})",
            hint="check the network to the lake's storage, its free space, and the rights to read and write under `lake.path`",
        ) from None
    if len(_open_tables) > _MOST_OPEN:
        _open_tables.clear()
    _open_tables.setdefault(path, []).append(opened)  # after an error it is opened anew


@dataclass
class _OpenTable:
    """A table that stays open between the commits of this process; each is used by one thread at a time."""

    table: RustTable
    expected: int
    """Its version unless another process has committed since."""
    done: dict[str, int] = field(default_factory=dict)
    """The newest version of each transaction, as long as nobody else commits."""

    def follow(self) -> None:
        """See what was committed since."""
        self.table.update_incremental()
        if self.table.version() != self.expected:
            self.done.clear()
            self.expected = self.table.version()

    def once(self, transaction: Mapping[str, str]) -> CommitProperties | None:
        """What a commit must carry to be made once; None when it was made already."""
        from deltalake import CommitProperties, Transaction

        identity, version = transaction["txnAppId"], int(transaction["txnVersion"])
        done = self.done.get(identity)
        if done is None:
            done = self.table.transaction_version(identity)
        if done is not None and done >= version:
            return None
        self.done[identity] = version
        return CommitProperties(app_transactions=[Transaction(identity, version)])


_MOST_OPEN = 64
"""Tables; a driver writes to fewer than ten."""
_open_tables: dict[str, list[_OpenTable]] = {}


def _take(path: str) -> _OpenTable:
    if _open_tables.get(path):
        opened = _open_tables[path].pop()
        with contextlib.suppress(Exception):  # whatever it is, opening the table anew raises it again
            opened.follow()
            return opened
    table = standing_table(path)
    return _OpenTable(table, table.version())


def exists(spark: SparkSession, path: str) -> bool:
    """Whether there is a Delta table at a path."""
    from delta import DeltaTable

    return bool(DeltaTable.isDeltaTable(spark, path))


def append(frame: DataFrame, path: str, transaction: Mapping[str, str] | None = None) -> None:
    """Append; the same transaction again leaves the table as it is (I7)."""
    frame.write.format("delta").mode("append").options(**(transaction or {})).save(path)


@contextlib.contextmanager
def kept(frame: DataFrame) -> Iterator[DataFrame]:
    """Evaluate a frame once for all that is done with it in the block.

    Not by `persist`: whoever commits to a table makes Spark evaluate every persisted plan anew that reads that table, and
    Delta refuses a MERGE that sees it happen (DELTA_MERGE_SOURCE_CACHED_DURING_EXECUTION). An executor that is lost with
    its part fails the batch, which is run again.
    """
    once = frame.localCheckpoint(eager=False)
    try:
        yield once
    finally:
        once._jdf.queryExecution().analyzed().rdd().unpersist(False)  # noqa: FBT003, SLF001 - PySpark has no name for it


def open_table(path: str) -> RustTable | None:
    """Open a table without Spark; None where there is none yet."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(rust_uri(path))
    except TableNotFoundError:
        return None


def standing_table(path: str) -> RustTable:
    """Open a table that some job creates at its start; raises UnavailableError until it has."""
    table = open_table(path)
    if table is None:
        raise UnavailableError(f"there is no table at {path} yet")
    return table


def compact(path: str, at_files: int, keep_hours: int) -> None:
    """Rewrite a table's small files as large ones without Spark, once it has so many files.

    Replaced files stay for `keep_hours`, for readers that began before; older ones are deleted.
    """
    table = open_table(path)
    if table is not None and len(table.file_uris()) >= at_files:
        table.optimize.compact()
        table.vacuum(retention_hours=keep_hours, dry_run=False, enforce_retention_duration=False)
        table.create_checkpoint()
        table.cleanup_metadata()


def scan(path: str, columns: Sequence[str], condition: ds.Expression | None = None) -> Iterator[pa.RecordBatch]:
    """Read a table's rows without Spark, batch by batch; none where there is no table yet."""
    from pyarrow import fs

    table = open_table(path)
    if table is None:
        return
    # Arrow's own file system: deltalake's calls back into Python from Arrow's threads, and a process
    # that ends while one of them still does dies of SIGABRT.
    system, folder = arrow_files(path)
    under = fs.SubTreeFileSystem(folder, system)
    dataset = table.to_pyarrow_dataset(filesystem=under)
    present = set(dataset.schema.names)  # a table of an earlier version has fewer columns until a job starts
    yield from dataset.to_batches(columns=[name for name in columns if name in present], filter=condition)


def arrow_files(path: str) -> tuple[FileSystem, str]:
    """Arrow's file system of a folder or an s3a:// path, and the path in it.

    On S3 its credentials come from AWS's own chain, and are fetched again before they expire.
    """
    from pyarrow import fs

    if "://" not in path:
        return fs.LocalFileSystem(), path
    if not rust_uri(path).startswith("s3://"):
        return tuple(fs.FileSystem.from_uri(path))  # type: ignore[return-value] # it is a pair
    bucket, _, key = rust_uri(path).removeprefix("s3://").partition("/")
    return _bucket_files(bucket), f"{bucket}/{key}".rstrip("/")


@functools.cache
def _bucket_files(bucket: str) -> FileSystem:
    from pyarrow import fs

    # A small file is one put then, not three requests.
    system: FileSystem = fs.FileSystem.from_uri(f"s3://{bucket}?allow_delayed_open=true")[0]
    return system


def rows_of(path: str, columns: Sequence[str], condition: ds.Expression | None = None) -> list[dict[str, Any]]:
    """The rows of a small table, without Spark; none where there is no table yet."""
    return [row for batch in scan(path, columns, condition) for row in batch.to_pylist()]
