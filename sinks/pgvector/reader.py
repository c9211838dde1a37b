"""Search in PostgreSQL with pgvector: nearest vectors (HNSW), and full text weighed by idf."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import Connection, errors, sql
from psycopg.rows import kwargs_row
from psycopg.types.json import set_json_loads

from schemas.errors import ConfigurationError
from sinks.idf import COMMON_AT, MOST_COUNTED, Remembered, WeighedWords, weighed_by_language
from sinks.pgvector import versions
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.connection import connect, connection_error
from sinks.pgvector.filtering import Filtering
from sinks.pgvector.schema import VISIBLE, VISIBLE_DOCUMENTS, Names
from sinks.search import ANYTHING, Filters, Freshness, Hit, Question, VisibleDocument, version_of
from sinks.versions import FIRST, IndexVersions
from transforms.documents.languages import OWN, languages_of, mark_of, marked, text_by_language
from transforms.values import exact_json

SPARE = 4
"""Chunks fetched for each document asked for, since a document may have several near ones."""

SETTINGS = """
SET default_transaction_read_only = on; SET statement_timeout = '30s';
SET hnsw.iterative_scan = strict_order; SET hnsw.ef_search = 200"""
"""Iterative: the scan of the graph goes on until enough chunks match, or it has seen 20,000 (`hnsw.max_scan_tuples`)."""

LEAST_COMPARED = 1_000
"""Documents that a filter lets through which are always compared exactly with the question."""

WORDS = "SELECT lexeme FROM unnest(to_tsvector(%s::regconfig, %s)) ORDER BY positions[1], lexeme LIMIT %s"

VECTORS = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = %s::regclass"
"""How many vectors there are, by PostgreSQL's own estimate."""

FEW = "SELECT document_id FROM {documents} AS d WHERE d.live AND {filters} LIMIT %(most)s"

COUNTS = """
SELECT word, (SELECT count(*) FROM (SELECT FROM {chunks} WHERE chunk_words @@ word::tsquery LIMIT %(most)s) AS counted)
FROM unnest(%(words)s::text[]) AS word"""

OF_A_LANGUAGE = """
SELECT count(*) FROM (SELECT FROM {chunks} WHERE chunk_words @@ %(mark)s::tsquery LIMIT %(most)s) AS counted"""

TOTAL = """
SELECT greatest((SELECT count(*) FROM (SELECT FROM {chunks} LIMIT %s) AS counted),
                (SELECT reltuples::bigint FROM pg_class WHERE oid = {chunks_name}::regclass))"""

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
        self._visible = self._names.compose(VISIBLE)
        self._connection: Connection[Any] | None = None
        self.weigh = Remembered(self._weigh)

    def check(self) -> None:
        """Connect, and compare the store's model with the one that asks."""
        self._config.place.check_model_of(self.index_versions(), self._names.index_version, self._fingerprint)

    def index_versions(self) -> IndexVersions:
        """Read the index versions from the meta."""
        with self._reading(at_once=True) as connection:
            return versions.stored(connection, self._names)

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Scan the HNSW index until enough chunks match; compare all that a selective filter lets through.

        So it is where the scan ends early: it sees no more than `hnsw.max_scan_tuples`, wherever the matching ones are.
        """
        self.weigh.forget(question.text)
        words, filtering = self._words(question.text, filters), Filtering(filters)
        values = {"vector": question.vector, "chunks": k * SPARE, "k": k}
        if filtering.is_empty:
            return self._hits(DENSE, words, values, filtering)
        few = self._few(filtering, k * SPARE)
        if few is not None:
            return self._hits(EXACT, words, values, filtering.among(few))
        hits = self._hits(DENSE, words, values, filtering)
        return hits if len(hits) >= k else self._hits(EXACT, words, values, filtering)

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Rank the chunks that contain any of the rarer words by coverage; similarity breaks ties."""
        words = self._words(question.text, filters)
        if not words.searched:
            return []
        query = " | ".join(map(_quoted, words.searched))
        return self._hits(LEXICAL, words, {"vector": question.vector, "query": query, "k": k}, Filtering(filters))

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Parse texts as the store does, in each of its languages, and weigh the words they share with the question."""
        share = sql.SQL(SHARE).format(vector=sql.SQL("to_tsvector(%(language)s::regconfig, t)"))
        statement = sql.SQL(COVERAGE).format(coverage=share)
        printable = [exact_json.printable(text) for text in texts]
        covered = [0.0] * len(texts)
        weighed = self.weigh(question, self._languages())
        with self._reading() as connection:
            for language, words in weighed.items():
                weights = {"words": list(words.shares), "weights": list(words.shares.values())}
                values = {**weights, "language": language or self._config.language, "texts": printable}
                shares = [share for (share,) in connection.execute(statement, values)]
                covered = list(map(max, covered, shares))
        return covered

    def live(self, chunk_ids: Sequence[str], filters: Filters = ANYTHING) -> set[str]:
        """Look chunks up by the filter of every search."""
        filtering = Filtering(filters)
        live = self._names.compose(LIVE, visible=self._seen_by(filtering))
        with self._reading(at_once=True) as connection:
            rows = connection.execute(live, {"chunk_ids": list(chunk_ids), **filtering.values})
            return {chunk for (chunk,) in rows}

    def versions(self, document_ids: Sequence[str], filters: Filters = ANYTHING) -> dict[str, str]:
        """Look document rows up by their primary key."""
        named = Filtering(filters).among(list(document_ids))
        with self._reading(at_once=True) as connection:
            rows = connection.execute(self._of_documents(VERSIONS, named), named.values)
            return {document: version_of(sequence) for document, sequence in rows}

    def document(self, document_id: str, filters: Filters = ANYTHING) -> VisibleDocument | None:
        """Read a document row and its chunks by one statement, so never two versions of it."""
        named = Filtering(filters).among([document_id])
        statement = self._of_documents(DOCUMENT, named)
        with self._reading(at_once=True) as connection, connection.cursor(row_factory=kwargs_row(_document)) as cursor:
            return cursor.execute(statement, named.values).fetchone()

    def freshness(self) -> Freshness:
        """Read the progress that the index job writes after each batch, and each second while the source is idle."""
        with self._reading(at_once=True) as connection:
            row = connection.execute(self._names.compose(FRESHNESS)).fetchone()
        return Freshness(*row) if row else Freshness(None, 0)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _languages(self, filters: Filters = ANYTHING) -> tuple[str, ...]:
        with self._reading(at_once=True) as connection:
            return languages_of(versions.tables_of_languages(connection, self._names), filters.tables)

    def _words(self, text: str, filters: Filters) -> WeighedWords:
        return WeighedWords.joined(self.weigh(text, self._languages(filters)))

    def _weigh(self, text: str, languages: tuple[str, ...]) -> dict[str, WeighedWords]:
        """Weigh a question's words in each language by the number of its chunks with each."""
        texts = text_by_language(exact_json.printable(text), languages, self._config.language)
        with self._reading() as connection:
            whole, others = self._totals(connection, languages)
            counts = {language: self._counts(connection, part, language) for language, part in texts.items()}
        return weighed_by_language(counts, whole, others)

    def _counts(self, connection: Connection[Any], text: str, language: str) -> dict[str, int]:
        """The number of chunks with each word of a text, counted no further than `COMMON_AT`."""
        parameters = (language or self._config.language, text, MOST_COUNTED)
        words = [word for (word,) in connection.execute(WORDS, parameters).fetchall()]
        by_quoted = {_quoted(marked(word, language)): word for word in words}
        if not words:
            return {}
        values = {"words": list(by_quoted), "most": COMMON_AT}
        counts = connection.execute(self._names.compose(COUNTS), values).fetchall()
        return {by_quoted[quoted]: count for quoted, count in counts}

    def _totals(self, connection: Connection[Any], languages: Sequence[str]) -> tuple[int, dict[str, int]]:
        """The number of all chunks, and of those in each other language: of all, where they are too many to count."""
        most = COMMON_AT * 10
        name = sql.Literal(self._names["chunks"].as_string(connection))
        row = connection.execute(self._names.compose(TOTAL, chunks_name=name), (most,)).fetchone()
        whole = int(row[0]) if row else 0
        others: dict[str, int] = {}
        for language in languages:
            values = {"mark": _quoted(mark_of(language)), "most": most}
            if language != OWN and (row := connection.execute(self._names.compose(OF_A_LANGUAGE), values).fetchone()):
                others[language] = whole if row[0] == most else row[0]
        return whole, others

    def _of_documents(self, statement: str, filtering: Filtering) -> sql.Composed:
        """A statement on the document rows that are visible and pass a filter."""
        visible = self._names.compose(VISIBLE_DOCUMENTS)
        return self._names.compose(statement, visible=visible, filters=filtering.condition)

    def _seen_by(self, filtering: Filtering) -> sql.Composed:
        """The chunks of documents that are visible and pass a filter."""
        return self._visible if filtering.is_empty else sql.SQL("{} AND {}").format(self._visible, filtering.condition)

    def _few(self, filtering: Filtering, chunks: int) -> list[str] | None:
        """The documents that pass, if comparing them all is cheaper than the graph; None if they are more.

        Of n vectors the graph is scanned for about chunks * n / m before it has given `chunks` of the m that pass: for more
        than m where m is below the root of chunks * n.
        """
        with self._reading() as connection:
            name = self._names["vectors"].as_string(connection)
            row = connection.execute(VECTORS, (name,)).fetchone()
            most = max(LEAST_COMPARED, math.isqrt(chunks * int(row[0] if row else 0)))
            statement = self._names.compose(FEW, filters=filtering.condition)
            rows = connection.execute(statement, {"most": most + 1, **filtering.values}).fetchall()
        return None if len(rows) > most else [document for (document,) in rows]

    def _hits(self, statement: str, words: WeighedWords, values: dict[str, Any], filtering: Filtering) -> list[Hit]:
        weights = {"words": list(words.shares), "weights": list(words.shares.values())}
        composed = self._names.compose(
            statement,
            visible=self._seen_by(filtering),
            coverage=sql.SQL(SHARE).format(vector=sql.Identifier("c", "chunk_words")),
        )
        with self._reading(at_once=True) as connection, connection.cursor(row_factory=kwargs_row(_hit)) as cursor:
            return cursor.execute(composed, {**values, **weights, **filtering.values}).fetchall()

    @contextmanager
    def _reading(self, *, at_once: bool = False) -> Iterator[Connection[Any]]:
        """A transaction, or one statement; the driver's errors become ours without their text, which may quote a row (I14)."""
        name = f"sink {self._config.name}"
        try:
            with nullcontext() if at_once else self._connected().transaction():
                yield self._connected()
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction):
            raise ConfigurationError(
                f"{name}: there is no store {self._config.table} yet",
                condition="STORE_EMPTY",
                hint="start the pipeline with `ragstream run`, or fill the store with `ragstream rebuild`",
            ) from None
        except psycopg.OperationalError as error:
            self.close()
            raise connection_error(self._config, error) from None
        except psycopg.Error as error:
            raise ConfigurationError(
                f"{name}: PostgreSQL refuses a statement ({error.sqlstate}, {type(error).__name__})",
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


def _hit(sequence: str, **columns: Any) -> Hit:
    return Hit(**columns, version=version_of(sequence))


def _document(sequence: str, chunk_texts: list[str], **columns: Any) -> VisibleDocument:
    return VisibleDocument(**columns, chunk_texts=tuple(chunk_texts), version=version_of(sequence))


def _quoted(word: str) -> str:
    """A word as a tsquery that matches it verbatim."""
    doubled = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
