"""PostgreSQL with pgvector (Aurora, RDS, or any other) as a vector store."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors, sql

from schemas.documents import BucketChecksum, DocumentWrite, HeldDocument, StoredChunk, StoredDocument
from schemas.errors import ConfigurationError, UnavailableError
from sinks.one_version import OneIndexVersion
from sinks.pgvector import audit as pgvector_contents
from sinks.pgvector import versions as pgvector_generations
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.connection import begin, connect, is_unverified
from sinks.pgvector.refusals import check_width, documents_refused
from sinks.pgvector.rows import head_row, stored_state
from sinks.pgvector.schema import INSERT_HEAD, READ_CHUNKS, READ_HEADS, READ_TRUNCATIONS, UPDATE_HEAD, VISIBLE, Names
from sinks.protocol import StoreSummary

if TYPE_CHECKING:
    import numpy as np
    from psycopg import Connection

    from schemas.ownership import Owner
    from sinks.versions import IndexVersions

_ENDED = (errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout)
"""Errors besides OperationalError that another connection mends: the server failed over, or ended what stood still too long."""
_TRIES = 5
"""How often a statement is tried that PostgreSQL gives up for another writer's sake."""


class PgvectorSink(OneIndexVersion[PgvectorConfig]):
    """A `Sink` over one PostgreSQL connection a process.

    Heads are guarded by revision and sequence, and written with their chunks in one transaction; vectors are kept by
    content, before. Replaying writes nothing, and a write planned on an older revision is refused.
    """

    def __init__(self, config: PgvectorConfig, fingerprint: str, dimensions: int) -> None:
        """Keep the configuration and the model's identity; nothing is opened yet."""
        super().__init__(config, fingerprint, dimensions)
        self._shared = Names(config.table)
        self._connection: Connection[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as configuration, without the connection."""
        return super().__getstate__() | {"_connection": None}

    def _check(self) -> None:
        with self._translated(), self._connected(vectors=False) as connection:
            row = connection.execute("SELECT max(version) FROM pg_available_extension_versions WHERE name = 'vector'")
            if not (found := row.fetchone()) or not found[0]:
                raise ConfigurationError(
                    f"sink {self.name}: the server has no pgvector", hint="install pgvector 0.8.4 or newer on it"
                )
            held = pgvector_generations.read(connection, self._shared)
            if held is not None:
                self._mine(held)
            self._check_rights(connection)

    def _create_missing(self) -> None:
        """Create the tables of the store, or of this index version, once, under a lock that concurrent drivers share."""
        with self._translated(), self._connected(vectors=False) as connection:
            pgvector_generations.lock(connection, self._shared)
            self._check_rights(connection)
            held = pgvector_generations.read(connection, self._shared)
            if held is None:
                pgvector_generations.create_store(
                    connection, self._shared, self._fingerprint, self._dimensions, self._config.language
                )
                return
            mine = self._mine(held)
            if mine.state == "creating":
                names = Names(self._config.table, mine.number)
                pgvector_generations.create(connection, names, self._dimensions, self._config.language)

    def owner(self) -> Owner | None:
        """Read it from the meta."""
        with self._translated(), self._connected(vectors=False) as connection:
            return pgvector_generations.owner(connection, self._shared)

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Write it by one statement, which waits for another's and then leaves that one's."""
        with self._translated(), self._connected(vectors=False) as connection:
            return pgvector_generations.claim(connection, self._shared, owner, instead_of)

    def index_versions(self) -> IndexVersions | None:
        """Read them from the meta, by one statement: writers ask after each piece of work."""
        with self._translated():
            try:
                return pgvector_generations.told(self._open(), self._shared)
            except errors.UndefinedTable:
                return None

    def change_index_versions(self, told: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Change them and the view in one transaction."""
        with self._translated(), self._connected(vectors=False) as connection:
            return pgvector_generations.change(connection, self._shared, told)

    def drop(self, number: int) -> None:
        """Drop its tables."""
        with self._translated(), self._connected(vectors=False) as connection:
            pgvector_generations.drop(connection, Names(self._config.table, number))

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table."""
        with self._translated(), self._session() as connection:
            return dict(connection.execute(self._names.compose(READ_TRUNCATIONS), prepare=True).fetchall())

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read heads, then chunk places: a set newer than its head only makes the write be refused."""
        return self.read_with_truncations(document_ids)[0]

    def read_with_truncations(self, document_ids: Sequence[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        """Read the marks behind the documents, in the same pipeline: a small write waits for one answer less."""
        ids = list(document_ids)
        with self._translated(), self._session() as connection:
            names = self._names  # may ask the store, which must not be done in a pipeline
            with connection.pipeline():
                heads = connection.execute(names.compose(READ_HEADS), (ids,), prepare=True, binary=True)
                chunks = connection.execute(names.compose(READ_CHUNKS), (ids,), prepare=True, binary=True)
                marks = connection.execute(names.compose(READ_TRUNCATIONS), prepare=True)
        places: dict[str, list[StoredChunk]] = {}
        for document, *place in chunks.fetchall():
            places.setdefault(document, []).append(StoredChunk(*place))
        documents = {
            document: StoredDocument(
                document, revision, stored_state(state, texts), recipe, tuple(places.get(document, ()))
            )
            for document, revision, state, texts, recipe in heads.fetchall()
        }
        return documents, dict(marks.fetchall())

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the vectors the store holds."""
        wanted = list(content_hashes)
        statement = self._names.compose("SELECT content_hash FROM {vectors} WHERE content_hash = ANY(%s)")
        with self._translated(), self._session() as connection:
            return set(wanted) - {h for (h,) in connection.execute(statement, (wanted,), prepare=True)}

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes."""
        statement = self._names.compose("SELECT content_hash, embedding FROM {vectors} WHERE content_hash = ANY(%s)")
        with self._translated(), self._session() as connection:
            return dict(connection.execute(statement, (list(content_hashes),), binary=True).fetchall())

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Insert vectors, in the order of their hashes so that two writers never wait for each other in a ring."""
        statement = self._names.compose(
            "INSERT INTO {vectors} (content_hash, embedding) VALUES (%s, %b) ON CONFLICT {conflict}",
            conflict=sql.SQL(_REPLACE if replace else "DO NOTHING"),
        )
        rows = sorted(vectors.items())
        self._done(lambda connection: connection.cursor().executemany(statement, rows))

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write heads under their guard and, in the same transaction, the chunks of those that were accepted."""
        ordered = sorted(writes, key=lambda w: w.document_id)
        try:
            with self._translated(), documents_refused(self.name), self._transaction() as connection:
                accepted = self._write_heads(connection, ordered)
                self._write_chunks(connection, [w for w in ordered if w.document_id in accepted])
        except (errors.ForeignKeyViolation, errors.DeadlockDetected, errors.SerializationFailure):
            return {w.document_id for w in ordered}
        return {w.document_id for w in ordered} - accepted

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark (readers obey it at once), then remove what it covers."""
        mark = """INSERT INTO {tables} AS t VALUES (%s, %s) ON CONFLICT (table_name) DO UPDATE
                  SET truncated_sequence = excluded.truncated_sequence
                  WHERE t.truncated_sequence < excluded.truncated_sequence"""
        raised = self._names.compose(mark)
        self._done(lambda connection: connection.execute(raised, (table, sequence)))
        self._sweep_truncated()

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise `indexed_as_of` in the meta table."""
        statement = """INSERT INTO {meta} AS m VALUES ('indexed_as_of', %s) ON CONFLICT (name) DO UPDATE
                       SET value = excluded.value WHERE m.value::bigint NOT BETWEEN excluded.value::bigint AND %s"""
        with self._translated(), self._session() as connection:
            told = (str(indexed_as_of_us), time.time_ns() // 1000)
            connection.execute(self._names.compose(statement), told)

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Stream vectors by the time they were kept."""
        statement = self._names.compose("SELECT content_hash, embedding FROM {vectors} WHERE created_at >= %s")
        moment = dt.datetime.fromtimestamp(moment_us / 1e6, dt.UTC)
        with self._translated(), self._connected() as connection, connection.cursor("vectors_since") as cursor:
            cursor.execute(statement, (moment,))
            yield from cursor

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Let PostgreSQL add up."""
        with self._translated(), self._connected() as connection:
            return pgvector_contents.checksums(connection, self._names, width, vectors=vectors)

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[HeldDocument]:
        """Read one range of the primary key."""
        with self._translated(), self._connected() as connection:
            yield from pgvector_contents.documents_in(connection, self._names, bucket, width, vectors=vectors)

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Let PostgreSQL count heads; no chunk is read."""
        statement = """SELECT table_name, recipe, count(*) FROM {documents} d LEFT JOIN {tables} t USING (table_name)
                       WHERE d.live AND d.sequence > coalesce(t.truncated_sequence, '') GROUP BY 1, 2"""
        with self._translated(), self._connected() as connection:
            rows = connection.execute(self._names.compose(statement)).fetchall()
        return {(table, recipe): count for table, recipe, count in rows}

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete heads under their revision, and with them their chunks."""
        statement = self._names.compose("DELETE FROM {documents} WHERE document_id = %s AND revision = %s")
        rows = sorted(revisions.items())
        self._done(lambda connection: connection.cursor().executemany(statement, rows))

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for ten minutes."""
        self._sweep_truncated()
        statement = """DELETE FROM {vectors} v WHERE created_at < clock_timestamp() - interval '10 minutes'
                       AND NOT EXISTS (SELECT FROM {chunks} c WHERE c.content_hash = v.content_hash)"""
        unused = self._names.compose(statement)
        try:
            self._done(lambda connection: connection.execute(unused))
        except errors.ForeignKeyViolation:
            return  # a writer took one of them up meanwhile; the next sweep sees it

    def summary(self) -> StoreSummary:
        """Count documents, chunks and pending columns."""
        seen = self._names.compose(VISIBLE)
        count = self._names.compose("SELECT count(DISTINCT document_id), count(*) FROM ({seen}) v", seen=seen)
        pending = "SELECT table_name, count(*) FROM {documents} WHERE live AND pending <> '{{}}' GROUP BY 1"
        with self._translated(), self._connected() as connection:
            documents, chunks = connection.execute(count).fetchone() or (0, 0)
            holes = dict(connection.execute(self._names.compose(pending)).fetchall())
            statement = self._names.compose("SELECT value::bigint FROM {meta} WHERE name = 'indexed_as_of'")
            row = connection.execute(statement).fetchone()
        return StoreSummary(documents, chunks, holes, row[0] if row else None)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        super().close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write_heads(self, connection: Connection[Any], writes: Sequence[DocumentWrite]) -> set[str]:
        """First those that are new, then the others, each in the order of their names, so that no two writers wait in a ring."""
        accepted: set[str] = set()
        for statement, is_new in ((INSERT_HEAD, True), (UPDATE_HEAD, False)):
            rows = [head_row(write) for write in writes if is_new is not bool(write.base_revision)]
            check_width(self.name, rows)
            if rows:
                cursor = connection.cursor()
                cursor.executemany(self._names.compose(statement), rows, returning=True)
                accepted |= {row[0] for result in cursor.results() if (row := result.fetchone())}
        return accepted

    def _write_chunks(self, connection: Connection[Any], writes: Sequence[DocumentWrite]) -> None:
        dropped = [chunk for write in writes for chunk in write.dropped]
        moved = [(chunk.chunk_index, chunk.chunk_id) for write in writes for chunk in write.moved]
        added = [
            (c.chunk_id, write.document_id, c.chunk_index, c.content_hash, c.chunk_text)
            for write in writes
            for c in write.added
        ]
        if dropped:
            connection.execute(self._names.compose("DELETE FROM {chunks} WHERE chunk_id = ANY(%s)"), (dropped,))
        if moved:
            statement = "UPDATE {chunks} SET chunk_index = %s WHERE chunk_id = %s"
            connection.cursor().executemany(self._names.compose(statement), moved)
        if added:
            statement = """INSERT INTO {chunks} (chunk_id, document_id, chunk_index, content_hash, chunk_text)
                           VALUES (%s, %s, %s, %s, %s)"""
            connection.cursor().executemany(self._names.compose(statement), added)

    def _sweep_truncated(self) -> None:
        statement = """DELETE FROM {documents} d USING {tables} t
                       WHERE d.table_name = t.table_name AND d.sequence <= t.truncated_sequence"""
        covered = self._names.compose(statement)
        self._done(lambda connection: connection.execute(covered))

    def _done(self, work: Callable[[Connection[Any]], object]) -> None:
        """Do what may be done again, and again where PostgreSQL gave it up for another writer's sake."""
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
        if not may_create and not pgvector_generations.exists(connection, self._shared["meta"]):
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
        """The process's connection for one statement, or one pipeline of them: each is a transaction of its own."""
        connection = self._open()
        self._version_number()  # before anything is sent in a pipeline
        if not connection.adapters.types.get("vector"):
            register_vector(connection)
        try:
            yield connection
        except errors.PipelineAborted as error:  # only says that statements behind the one that failed were not run
            first = error.__context__
            raise first if isinstance(first, psycopg.Error) else error from None

    @contextmanager
    def _transaction(self) -> Iterator[Connection[Any]]:
        """A transaction whose statements wait for an answer only where one is looked at, its begin and its end for none."""
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
        """The process's connection; a broken one is dropped, so that the next call reconnects."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._config)
        return self._connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the driver's errors into ours; their text is left out, it may quote a row (I14)."""
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
            if is_unverified(error):
                raise self._config.unverified() from None
            refused = isinstance(
                error, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName)
            )
            raise (ConfigurationError if refused else UnavailableError)(
                f"sink {self.name}: PostgreSQL does not answer ({error.sqlstate or type(error).__name__})",
                hint=f"check the dsn of sink {self.name}, the server and the network route to it",
            ) from None
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


_REPLACE = "(content_hash) DO UPDATE SET embedding = excluded.embedding"
