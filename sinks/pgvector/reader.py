"""Search in PostgreSQL with pgvector: nearest vectors (HNSW), and full text weighed by idf."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import Connection, Cursor, errors, sql
from psycopg.rows import args_row, kwargs_row
from psycopg.types.json import set_json_loads

from schemas.errors import ConfigurationError
from sinks.bulk_loads import still_filling
from sinks.idf import Remembered, WeighedWords
from sinks.pgvector import vector_index, versions
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.connection import connect, connection_error
from sinks.pgvector.filtering import Filtering, filtering_of
from sinks.pgvector.preparing import Preparation, Prepared, quoted
from sinks.pgvector.schema import VISIBLE, VISIBLE_DOCUMENTS, Names
from sinks.search import ANYTHING, Candidates, Filters, Freshness, Hit, Question, VisibleDocument, version_of
from sinks.versions import FIRST, IndexVersions
from transforms.documents.languages import TablesOf, languages_of
from transforms.values import exact_json

SPARE = 4
"""Chunks fetched for each document asked for, since a document may have several near ones."""

SETTINGS = """
SET default_transaction_read_only = on; SET statement_timeout = '30s';
SET hnsw.iterative_scan = strict_order; SET hnsw.ef_search = 200"""
"""Iterative: the scan of the graph goes on until enough chunks match, or it has seen 20,000 (`hnsw.max_scan_tuples`)."""

SHARE = """(SELECT coalesce(sum(w.weight), 0)
  FROM unnest(%(words)s::text[], %(weights)s::float8[]) AS w(word, weight)
  WHERE w.word = ANY (tsvector_to_array({vector})))"""
"""Coverage of one tsvector, for `{coverage}` below."""

DENSE = """
SELECT document_id, table_name AS "table", key, chunk_id, chunk_index, chunk_text, metadata, similarity, coverage, sequence
FROM (SELECT DISTINCT ON (document_id) near.*, {coverage} AS coverage
      FROM (SELECT v.*, 1 - (embedding <=> %(vector)s) AS similarity FROM ({visible}) AS v
            ORDER BY embedding <=> %(vector)s LIMIT %(chunks)s) AS near
      JOIN {chunks} AS c USING (chunk_id)
      ORDER BY document_id, similarity DESC, chunk_index) AS best
ORDER BY similarity DESC, document_id LIMIT %(k)s"""

EXACT = """
WITH allowed AS MATERIALIZED (
    SELECT document_id, chunk_id, chunk_index, 1 - (embedding <=> %(vector)s) AS similarity FROM ({visible}) AS v),
best AS MATERIALIZED (
    SELECT DISTINCT ON (document_id) * FROM allowed ORDER BY document_id, similarity DESC, chunk_index)
SELECT document_id, d.table_name AS "table", d.key, chunk_id, c.chunk_index, c.chunk_text, d.metadata, similarity,
       {coverage} AS coverage, d.sequence
FROM (SELECT * FROM best ORDER BY similarity DESC, document_id LIMIT %(k)s) AS nearest
JOIN {chunks} AS c USING (document_id, chunk_id) JOIN {documents} AS d USING (document_id)
ORDER BY similarity DESC, document_id"""
"""Materialized, or the planner would scan the graph for the order."""

LEXICAL = """
SELECT document_id, table_name AS "table", key, chunk_id, chunk_index, chunk_text, metadata, similarity, coverage, sequence
FROM (SELECT DISTINCT ON (document_id) v.*, 1 - (embedding <=> %(vector)s) AS similarity, coverage
      FROM (SELECT chunk_id, {coverage} AS coverage FROM {chunks} AS c
            WHERE c.chunk_words @@ %(query)s::tsquery) AS matching
      JOIN ({visible}) AS v USING (chunk_id)
      ORDER BY document_id, coverage DESC, similarity DESC, chunk_index) AS best
ORDER BY coverage DESC, similarity DESC, document_id LIMIT %(k)s"""

COVERAGE = """
SELECT {coverage} FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS texts(t, place) ORDER BY place"""

LIVE = "SELECT chunk_id FROM ({visible}) AS v WHERE chunk_id = ANY(%(chunk_ids)s)"

VERSIONS = "SELECT d.document_id, d.sequence {visible} AND {filters}"

DOCUMENT = """
SELECT d.document_id, d.table_name AS "table", d.key, d.metadata, d.sequence,
       ARRAY(SELECT c.chunk_text FROM {chunks} AS c WHERE c.document_id = d.document_id ORDER BY c.chunk_index) AS chunk_texts,
       (extract(epoch FROM d.commit_time) * 1000000)::bigint AS commit_time_us,
       (extract(epoch FROM d.written_at) * 1000000)::bigint AS written_at_us
{visible} AND {filters}"""

FRESHNESS = """
SELECT (SELECT value::bigint FROM {meta} WHERE name = 'indexed_as_of'),
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"""


class PgvectorIndex:
    """An `Index` over one read-only connection; it never writes. Not thread-safe."""

    def __init__(self, config: PgvectorConfig, fingerprint: str, index_version: int = FIRST) -> None:
        """Connects on first use. `fingerprint` is the model that asks, `index_version` the number it reads."""
        self._config = config
        self._fingerprint = fingerprint
        self._names = Names(config.table, index_version)
        self._connection: Connection[Any] | None = None
        self._preparation = Preparation(config, self._names)
        self._tables_of: TablesOf = {}
        """As last read."""
        self.weigh = Remembered(self._weigh)

    def check(self) -> None:
        """Connect, and compare the store's model with the one that asks."""
        self._config.place.check_model_of(self.index_versions(), self._names.index_version, self._fingerprint)

    def index_versions(self) -> IndexVersions:
        """Read the index versions from the meta."""
        with self._reading() as connection:
            return versions.stored(connection, self._names)

    def search(self, question: Question, k: int, filters: Filters = ANYTHING) -> Candidates:
        """Two round trips, and a third one where a filter leaves the graph too few."""
        filtering = filtering_of(filters)
        with self._reading() as connection:
            prepared = self._prepared(question.text, k, filters, filtering)
            self._check_comparable(connection, prepared)
            with connection.pipeline():
                near = self._near(question, k, filtering, prepared)
                with_words = self._with_words(question, k, filtering, prepared)
            dense = self._enough(near.fetchall(), question, k, filtering, prepared)
            lexical = [] if with_words is None else with_words.fetchall()
        return Candidates(prepared.versions.active, prepared.freshness, dense, lexical)

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Scan the HNSW index until enough chunks match; compare all that a selective filter lets through.

        So it is where the scan ends early: it sees no more than `hnsw.max_scan_tuples`, wherever the matching ones are. A load
        has no index: all are compared.
        """
        filtering = filtering_of(filters)
        with self._reading() as connection:
            prepared = self._prepared(question.text, k, filters, filtering)
            self._check_comparable(connection, prepared)
            near = self._near(question, k, filtering, prepared)
            return self._enough(near.fetchall(), question, k, filtering, prepared)

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Rank the chunks that contain any of the rarer words by coverage; similarity breaks ties."""
        with self._reading():
            prepared = self._prepared(question.text, k, filters, filtering_of(ANYTHING))
            with_words = self._with_words(question, k, filtering_of(filters), prepared)
            return [] if with_words is None else with_words.fetchall()

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Parse texts as the store does, in each of its languages, and weigh the words they share with the question."""
        share = sql.SQL(SHARE).format(vector=sql.SQL("to_tsvector(%(language)s::regconfig, t)"))
        statement = sql.SQL(COVERAGE).format(coverage=share)
        printable = [exact_json.printable(text) for text in texts]
        covered = [0.0] * len(texts)
        with self._reading() as connection:
            languages = languages_of(versions.tables_of_languages(connection, self._names), ())
            weighed = self.weigh(question, languages)
            for language, words in weighed.items():
                weights = {"words": list(words.shares), "weights": list(words.shares.values())}
                values = {**weights, "language": language or self._config.language, "texts": printable}
                shares = [share for (share,) in connection.execute(statement, values)]
                covered = list(map(max, covered, shares))
        return covered

    def live(self, chunk_ids: Sequence[str], filters: Filters = ANYTHING) -> set[str]:
        """Look chunks up by the filter of every search."""
        filtering = filtering_of(filters)
        live = self._names.compose(LIVE, visible=_visible(self._names, filtering))
        with self._reading() as connection:
            rows = connection.execute(live, {"chunk_ids": list(chunk_ids), **filtering.values})
            return {chunk for (chunk,) in rows}

    def versions(self, document_ids: Sequence[str], filters: Filters = ANYTHING) -> dict[str, str]:
        """Look document rows up by their primary key."""
        named = filtering_of(filters).among(list(document_ids))
        with self._reading() as connection:
            rows = connection.execute(self._of_documents(VERSIONS, named), named.values)
            return {document: version_of(sequence) for document, sequence in rows}

    def document(self, document_id: str, filters: Filters = ANYTHING) -> VisibleDocument | None:
        """Read a document row and its chunks by one statement, so never two versions of it."""
        named = filtering_of(filters).among([document_id])
        statement = self._of_documents(DOCUMENT, named)
        with self._reading() as connection, connection.cursor(row_factory=kwargs_row(_document)) as cursor:
            return cursor.execute(statement, named.values).fetchone()

    def freshness(self) -> Freshness:
        """Read the progress that the index job writes after each batch, and each second while the source is idle."""
        with self._reading() as connection:
            row = connection.execute(self._names.compose(FRESHNESS)).fetchone()
        return Freshness(*row) if row else Freshness(None, 0)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _prepared(self, text: str, k: int, filters: Filters, filtering: Filtering) -> Prepared:
        """What a search has to know first, for the languages that the store has now."""
        while True:
            languages = languages_of(self._tables_of, filters.tables)
            prepared = self._prepared_in(languages, text, k, filtering)
            self._tables_of = prepared.tables_of
            if languages_of(prepared.tables_of, filters.tables) == languages:
                self.weigh.keep(text, languages, prepared.weighed)
                return prepared

    def _prepared_in(self, languages: tuple[str, ...], text: str, k: int, filtering: Filtering) -> Prepared:
        return self._preparation.read(self._connected(), text, languages, filtering, k * SPARE)

    def _weigh(self, text: str, languages: tuple[str, ...]) -> dict[str, WeighedWords]:
        with self._reading():
            return self._prepared_in(languages, text, 0, filtering_of(ANYTHING)).weighed

    def _near(self, question: Question, k: int, filtering: Filtering, prepared: Prepared) -> Cursor[Hit]:
        """Send for the nearest chunks: of the few documents that pass, or of those that the graph gives first."""
        values = {"vector": question.vector, "chunks": k * SPARE, "k": k}
        if prepared.few is None:
            return self._sent(EXACT if self._is_loading(prepared) else DENSE, prepared, values, filtering)
        return self._sent(EXACT, prepared, values, filtering.among(prepared.few))

    def _enough(
        self, hits: list[Hit], question: Question, k: int, filtering: Filtering, prepared: Prepared
    ) -> list[Hit]:
        """The nearest chunks; all that pass are compared where the scan of the graph ended before it had k documents."""
        if filtering.is_empty or prepared.few is not None or len(hits) >= k:
            return hits
        return self._sent(EXACT, prepared, {"vector": question.vector, "k": k}, filtering).fetchall()

    def _with_words(self, question: Question, k: int, filtering: Filtering, prepared: Prepared) -> Cursor[Hit] | None:
        """Send for the chunks with any of the rarer words; None where there is none to look for."""
        if not prepared.words.searched:
            return None
        query = " | ".join(map(quoted, prepared.words.searched))
        return self._sent(LEXICAL, prepared, {"vector": question.vector, "query": query, "k": k}, filtering)

    def _is_loading(self, prepared: Prepared) -> bool:
        return prepared.versions.bulk_load_of(self._names.index_version) is not None

    def _check_comparable(self, connection: Connection[Any], prepared: Prepared) -> None:
        """Raise UnavailableError in a load of more vectors than are compared one by one."""
        filling = vector_index.filling(connection, self._names) if self._is_loading(prepared) else ""
        if filling:
            raise still_filling(self._config.name, filling)

    def _of_documents(self, statement: str, filtering: Filtering) -> sql.Composed:
        """A statement on the document rows that are visible and pass a filter."""
        visible = self._names.compose(VISIBLE_DOCUMENTS)
        return self._names.compose(statement, visible=visible, filters=filtering.condition)

    def _sent(self, statement: str, prepared: Prepared, values: dict[str, Any], filtering: Filtering) -> Cursor[Hit]:
        """Send a statement for hits."""
        weights = {"words": list(prepared.words.shares), "weights": list(prepared.words.shares.values())}
        text = _text_of(self._names, statement, filtering.filters, is_among=filtering.is_among)
        cursor = self._connected().cursor(row_factory=args_row(_hit))
        return cursor.execute(text, {**values, **weights, **filtering.values})

    @contextmanager
    def _reading(self) -> Iterator[Connection[Any]]:
        """The driver's errors become ours without their text, which may quote a row (I14)."""
        try:
            yield self._connected()
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction):
            raise self._config.place.no_store() from None
        except psycopg.OperationalError as error:
            self.close()
            raise connection_error(self._config, error) from None
        except psycopg.Error as error:
            raise ConfigurationError(
                f"sink {self._config.name}: PostgreSQL refuses a statement ({error.sqlstate}, {type(error).__name__})",
                condition="STORE_REFUSES",
                hint="the user needs SELECT on the store's tables; else look the SQLSTATE up",
            ) from None

    def _connected(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._config, "ragstream search")
            try:
                register_vector(self._connection)
            except psycopg.ProgrammingError:  # no extension yet, so no store either
                raise errors.UndefinedTable from None
            set_json_loads(exact_json.loads, self._connection)
            self._connection.execute(SETTINGS)
        return self._connection


@functools.lru_cache(maxsize=1024)
def _text_of(names: Names, statement: str, filters: Filters, *, is_among: bool) -> bytes:
    """The text of a statement for hits; its values are bound, so that it is made once for the same filters."""
    filtering = filtering_of(filters).among([]) if is_among else filtering_of(filters)
    coverage = sql.SQL(SHARE).format(vector=sql.Identifier("c", "chunk_words"))
    return names.compose(statement, visible=_visible(names, filtering), coverage=coverage).as_bytes()


def _visible(names: Names, filtering: Filtering) -> sql.Composed:
    """The chunks of documents that are visible and pass a filter."""
    visible = names.compose(VISIBLE)
    return visible if filtering.is_empty else sql.SQL("{} AND {}").format(visible, filtering.condition)


def _hit(*columns: Any) -> Hit:
    """The columns of `DENSE`, `EXACT` and `LEXICAL`: the members of a hit in their order, with the sequence for its version."""
    members: list[Any] = [*columns[:-1], version_of(columns[-1])]
    return Hit(*members)


def _document(sequence: str, chunk_texts: list[str], **columns: Any) -> VisibleDocument:
    return VisibleDocument(**columns, chunk_texts=tuple(chunk_texts), version=version_of(sequence))
