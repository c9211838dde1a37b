"""PostgreSQL with pgvector (Aurora, RDS, or any other) as a vector store."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors

from schemas.documents import ActualDocument, BucketChecksum, DocumentWrite, StoredChunk, StoredDocument
from schemas.errors import ConfigurationError, UnavailableError
from sinks.one_version import UNUSED_MS, OneIndexVersion
from sinks.pgvector import audit, schema, vector_index, versions
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.connection import begin, connect, connection_error, limit_time
from sinks.pgvector.refusals import documents_refused
from sinks.pgvector.rows import stored_state
from sinks.pgvector.schema import VISIBLE, Names
from sinks.pgvector.writing import COPY_FROM, copy_vectors, insert_vectors, write_chunks, write_documents
from sinks.protocol import StoreSummary
from transforms.documents.languages import TablesOf

if TYPE_CHECKING:
    import numpy as np
    from psycopg import Connection

    from schemas.ownership import Owner
    from sinks.bulk_loads import Build
    from sinks.versions import IndexVersions

_ENDED = (errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout)
"""Errors besides OperationalError after which a new connection works: a failover, or a transaction that was idle too long."""
_TRIES = 5
"""Tries of a statement that PostgreSQL aborts as a deadlock or a serialization failure."""


class PgvectorSink(OneIndexVersion[PgvectorConfig]):
    """A `Sink` over one PostgreSQL connection a process.

    Replaying a write changes nothing, and a write planned on an older revision is refused: document rows are guarded by
    revision and sequence, and written with their chunks in one transaction. Vectors are stored first, by content hash.
    """

    least_indexed = vector_index.LEAST_INDEXED

    def __init__(self, config: PgvectorConfig, fingerprint: str, dimensions: int) -> None:
        """Connects on first use."""
        super().__init__(config, fingerprint, dimensions)
        self.most_compared = vector_index.most_compared(dimensions)
        self._shared = Names(config.table)
        self._connection: Connection[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the connection."""
        return super().__getstate__() | {"_connection": None}

    def _check(self) -> None:
        with self._translated(), self._connected(vectors=False) as connection:
            row = connection.execute("SELECT max(version) FROM pg_available_extension_versions WHERE name = 'vector'")
            if not any(row.fetchone() or ()):
                raise ConfigurationError(
                    f"sink {self.name}: the server has no pgvector", hint="install pgvector 0.8.4 or newer on it"
                )
            index_versions = versions.read(connection, self._shared)
            if index_versions is not None:
                self._own(index_versions)
            self._check_rights(connection)

    def _create_missing(self) -> None:
        """Create the tables of the store, or of this index version, under a lock that concurrent drivers share."""
        with self._translated(), self._connected(vectors=False) as connection:
            versions.lock(connection, self._shared)
            self._check_rights(connection)
            index_versions = versions.read(connection, self._shared)
            if index_versions is None:
                versions.create_store(
                    connection, self._shared, self._fingerprint, self._dimensions, self._config.language
                )
            elif (own := self._own(index_versions)).state == "creating":
                names = Names(self._config.table, own.number)
                versions.create(connection, names, self._dimensions, self._config.language)
            for version in index_versions.every if index_versions else ():
                versions.add_missing(connection, Names(self._config.table, version.number))

    def owner(self) -> Owner | None:
        """Read the owner from the meta."""
        with self._translated(), self._connected(vectors=False) as connection:
            return versions.owner(connection, self._shared)

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Compare-and-set the owner by one statement, which waits for a concurrent one."""
        with self._translated(), self._connected(vectors=False) as connection:
            return versions.claim(connection, self._shared, owner, instead_of)

    def index_versions(self) -> IndexVersions | None:
        """Read the index versions from the meta by one statement, as writers ask after each work unit."""
        with self._translated():
            try:
                return versions.stored(self._open(), self._shared)
            except errors.UndefinedTable:
                return None

    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Change the index versions and the view in one transaction, under a lock."""
        with self._translated(), self._connected(vectors=False) as connection:
            return versions.change(connection, self._shared, change)

    def drop(self, number: int) -> None:
        """Drop the tables of an index version. Idempotent."""
        with self._translated(), self._connected(vectors=False) as connection:
            versions.drop(connection, Names(self._config.table, number))

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table."""
        with self._translated(), self._session() as connection:
            return dict(connection.execute(self._names.compose(schema.READ_TRUNCATIONS), prepare=True).fetchall())

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read document rows, then chunk places: if the places are newer than the row, the guard refuses the write."""
        return self.read_with_truncations(document_ids)[0]

    def read_with_truncations(self, document_ids: Sequence[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        """Read documents, then truncations, in one pipeline: one round trip less for a small write."""
        ids = list(document_ids)
        with self._translated(), self._session() as connection:
            names = self._names  # may query, which is not allowed within a pipeline
            with connection.pipeline():
                rows = connection.execute(names.compose(schema.READ_DOCUMENTS), (ids,), prepare=True, binary=True)
                chunks = connection.execute(names.compose(schema.READ_CHUNKS), (ids,), prepare=True, binary=True)
                marks = connection.execute(names.compose(schema.READ_TRUNCATIONS), prepare=True)
        places: dict[str, list[StoredChunk]] = {}
        for document, *place in chunks.fetchall():
            places.setdefault(document, []).append(StoredChunk(*place))
        documents = {
            document: StoredDocument(
                document, revision, stored_state(state, texts), spec_digest, tuple(places.get(document, ()))
            )
            for document, revision, state, texts, spec_digest in rows.fetchall()
        }
        return documents, dict(marks.fetchall())

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the stored hashes."""
        hashes = list(content_hashes)
        statement = self._names.compose("SELECT content_hash FROM {vectors} WHERE content_hash = ANY(%s)")
        with self._translated(), self._session() as connection:
            return set(hashes) - {h for (h,) in connection.execute(statement, (hashes,), prepare=True)}

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes."""
        statement = self._names.compose("SELECT content_hash, embedding FROM {vectors} WHERE content_hash = ANY(%s)")
        with self._translated(), self._session() as connection:
            return dict(connection.execute(statement, (list(content_hashes),), binary=True).fetchall())

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Copy many new vectors; insert few, or where another writer was first with one of them."""
        if len(vectors) >= COPY_FROM and not replace:
            with self._translated(), suppress(errors.UniqueViolation), self._session() as connection:
                copy_vectors(connection, self._names, vectors)
                return
        self._retrying(lambda connection: insert_vectors(connection, self._names, vectors, replace=replace))

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write document rows under their guard and, in the same transaction, the chunks of the accepted ones."""
        ordered = sorted(writes, key=lambda w: w.document_id)
        try:
            with self._translated(), documents_refused(self.name), self._learning(ordered) as languages:
                self._learn(languages)
                accepted = self._write(ordered)
        except (errors.ForeignKeyViolation, errors.DeadlockDetected, errors.SerializationFailure):
            return {w.document_id for w in ordered}
        return {w.document_id for w in ordered} - accepted

    def _write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write in one transaction; many new rows by COPY, unless another writer was first with one of them."""
        if sum(not write.base_revision for write in writes) >= COPY_FROM:
            with suppress(errors.UniqueViolation), self._connected() as connection:
                limit_time(connection)
                accepted = write_documents(connection, self._names, self.name, writes, copied=True)
                self._write_chunks(connection, [w for w in writes if w.document_id in accepted])
                return accepted
        with self._transaction() as connection:
            accepted = write_documents(connection, self._names, self.name, writes, copied=False)
            self._write_chunks(connection, [w for w in writes if w.document_id in accepted])
        return accepted

    def _write_chunks(self, connection: Connection[Any], writes: Sequence[DocumentWrite]) -> None:
        write_chunks(connection, self._names, writes, self._language_of)

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark, which readers obey at once, then delete the rows it covers."""
        mark = """INSERT INTO {tables} AS t VALUES (%s, %s) ON CONFLICT (table_name) DO UPDATE
                  SET truncated_sequence = excluded.truncated_sequence
                  WHERE t.truncated_sequence < excluded.truncated_sequence"""
        statement = self._names.compose(mark)
        self._retrying(lambda connection: connection.execute(statement, (table, sequence)))
        self._sweep_truncated()

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise `indexed_as_of` in the meta table; a stored time in the future is replaced."""
        statement = """INSERT INTO {meta} AS m VALUES ('indexed_as_of', %s) ON CONFLICT (name) DO UPDATE
                       SET value = excluded.value WHERE m.value::bigint NOT BETWEEN excluded.value::bigint AND %s"""
        with self._translated(), self._session() as connection:
            connection.execute(self._names.compose(statement), (str(indexed_as_of_us), time.time_ns() // 1000))

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Stream vectors by the time they were stored (the store's clock)."""
        statement = self._names.compose("SELECT content_hash, embedding FROM {vectors} WHERE created_at >= %s")
        moment = dt.datetime.fromtimestamp(moment_us / 1e6, dt.UTC)
        with self._translated(), self._connected() as connection, connection.cursor("vectors_since") as cursor:
            cursor.execute(statement, (moment,))
            yield from cursor

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Sum in PostgreSQL; no row is transferred."""
        with self._translated(), self._connected() as connection:
            return audit.checksums(connection, self._names, width, vectors=vectors)

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[ActualDocument]:
        """Read a range of the primary key."""
        with self._translated(), self._connected() as connection:
            yield from audit.documents_in(connection, self._names, bucket, width, vectors=vectors)

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Count document rows in PostgreSQL."""
        visible = self._names.compose(schema.VISIBLE_DOCUMENTS)
        statement = self._names.compose("SELECT table_name, recipe, count(*) {visible} GROUP BY 1, 2", visible=visible)
        with self._translated(), self._connected() as connection:
            rows = connection.execute(statement).fetchall()
        return {(table, spec_digest): count for table, spec_digest, count in rows}

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete document rows under their revision; their chunks follow by foreign key."""
        statement = self._names.compose("DELETE FROM {documents} WHERE document_id = %s AND revision = %s")
        rows = sorted(revisions.items())
        self._retrying(lambda connection: connection.cursor().executemany(statement, rows))

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for ten minutes."""
        self._sweep_truncated()
        statement = """DELETE FROM {vectors} v WHERE created_at < clock_timestamp() - %s * interval '1 ms'
                       AND NOT EXISTS (SELECT FROM {chunks} c WHERE c.content_hash = v.content_hash)"""
        unused = self._names.compose(statement)
        try:
            self._retrying(lambda connection: connection.execute(unused, (UNUSED_MS,)))
        except errors.ForeignKeyViolation:
            return  # a writer took one of them up meanwhile; the next sweep sees it

    def summary(self) -> StoreSummary:
        """Count documents, chunks and unresolved columns."""
        visible = self._names.compose(VISIBLE)
        count = self._names.compose("SELECT count(DISTINCT document_id), count(*) FROM ({visible}) v", visible=visible)
        pending = "SELECT table_name, count(*) FROM {documents} WHERE live AND pending <> '{{}}' GROUP BY 1"
        with self._translated(), self._connected() as connection:
            documents, chunks = connection.execute(count).fetchone() or (0, 0)
            unresolved = dict(connection.execute(self._names.compose(pending)).fetchall())
            statement = self._names.compose("SELECT value::bigint FROM {meta} WHERE name = 'indexed_as_of'")
            row = connection.execute(statement).fetchone()
        return StoreSummary(documents, chunks, unresolved, row[0] if row else None)

    def stored_vectors(self) -> int:
        """Estimate by the table's size; count where there are few."""
        with self._translated(), self._session() as connection:
            return vector_index.estimated(connection, self._names, self._dimensions)

    def _drop_index(self) -> None:
        with self._translated(), self._session() as connection:
            vector_index.drop(connection, self._names)

    def _build_index(self, on_progress: Callable[[Build], object]) -> bool:
        with self._translated():
            return vector_index.build(self._config, self._names, self._dimensions, on_progress)

    def _is_indexed(self) -> bool:
        with self._translated(), self._session() as connection:
            return vector_index.is_valid(connection, self._names)

    def _building(self) -> Build | None:
        with self._translated(), self._session() as connection:
            return vector_index.progress(connection, self._names, self._dimensions)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        super().close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _learn(self, languages: TablesOf) -> None:
        """Note languages in the meta, in a transaction of its own."""
        if languages:
            with self._connected(vectors=False) as connection:
                versions.learn(connection, self._names, self._config.language, languages)

    def _sweep_truncated(self) -> None:
        statement = """DELETE FROM {documents} d USING {tables} t
                       WHERE d.table_name = t.table_name AND d.sequence <= t.truncated_sequence"""
        covered = self._names.compose(statement)
        self._retrying(lambda connection: connection.execute(covered))

    def _retrying(self, work: Callable[[Connection[Any]], object]) -> None:
        """Run idempotent work, again after a deadlock or a serialization failure."""
        for _ in range(_TRIES):
            with suppress(errors.DeadlockDetected, errors.SerializationFailure):
                with self._translated(), self._session() as connection:
                    work(connection)
                return
        raise UnavailableError(
            f"sink {self.name}: PostgreSQL gave up a statement {_TRIES} times for other writers' sake",
            hint="something else locks rows of the store's tables in another order; end it, or wait until it is done",
        )

    @property
    def _names(self) -> Names:
        return Names(self._config.table, self._version_number())

    def _check_rights(self, connection: Connection[Any]) -> None:
        row = connection.execute(
            "SELECT has_schema_privilege(current_schema(), 'CREATE'), to_regtype('vector') IS NOT NULL"
        ).fetchone()
        may_create, has_vector = row or (False, False)
        if not may_create and not versions.exists(connection, self._shared["meta"]):
            raise ConfigurationError(
                f"sink {self.name}: the user may not create tables", condition="MISSING_RIGHTS",
                hint="grant CREATE on the schema, or let an administrator run `ragstream run` once",
            )  # fmt: skip
        if not has_vector:
            with connection.transaction(force_rollback=True):
                connection.execute("CREATE EXTENSION vector")

    @contextmanager
    def _connected(self, *, vectors: bool = True) -> Iterator[Connection[Any]]:
        """A transaction on the process's connection."""
        with self._session() if vectors else nullcontext(self._open()) as connection, connection.transaction():
            yield connection

    @contextmanager
    def _session(self) -> Iterator[Connection[Any]]:
        """The process's connection for one statement, or one pipeline of them, each its own transaction."""
        connection = self._open()
        self._version_number()  # may query, which is not allowed within a pipeline
        if not connection.adapters.types.get("vector"):
            register_vector(connection)
        try:
            yield connection
        except errors.PipelineAborted as error:  # of the statements behind the one that failed
            first = error.__context__
            raise first if isinstance(first, psycopg.Error) else error from None

    @contextmanager
    def _transaction(self) -> Iterator[Connection[Any]]:
        """A pipelined transaction: BEGIN and COMMIT cost no round trip, a statement one only if its result is read."""
        with self._session() as connection:
            try:
                with connection.pipeline():
                    begin(connection)
                    yield connection
                    connection.execute("COMMIT")
            except BaseException:
                if not connection.closed:
                    connection.rollback()
                raise

    def _open(self) -> Connection[Any]:
        """The process's connection, opened anew where it was closed."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._config)
        return self._connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the driver's errors into ours, without their text, which may quote a row (I14)."""
        try:
            yield
        except (errors.ForeignKeyViolation, errors.DeadlockDetected, errors.SerializationFailure):
            raise
        except errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"sink {self.name}: PostgreSQL refuses a right ({error.sqlstate})", condition="MISSING_RIGHTS",
                hint="the user needs CREATE on the schema, or SELECT, INSERT, UPDATE, DELETE on the store's tables",
            ) from None  # fmt: skip
        except (psycopg.OperationalError, *_ENDED) as error:
            self.close()
            raise connection_error(self._config, error) from None
        except (errors.UndefinedTable, errors.UndefinedColumn) as error:
            raise ConfigurationError(
                f"sink {self.name}: the store {self._config.table} lacks a table ({error.sqlstate})",
                hint="run `ragstream run` or `ragstream rebuild` to create it",
            ) from None
        except psycopg.Error as error:
            raise ConfigurationError(
                f"sink {self.name}: PostgreSQL refuses a statement ({error.sqlstate}, {type(error).__name__})",
                condition="STORE_REFUSES",
                hint="look the SQLSTATE up; the store's schema may have been changed by hand",
            ) from None
