"""Searching a store in PostgreSQL with pgvector: nearest vectors, and full text weighed by the rarity of its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import errors, sql
from psycopg.rows import class_row
from psycopg.types.json import set_json_loads

from schemas.errors import ConfigurationError, UnavailableError
from sinks.idf import COMMON_AT, MOST_COUNTED, shares, weighed, worth_searching
from sinks.pgvector import versions as pgvector_generations
from sinks.pgvector.connection import is_unverified
from sinks.pgvector.schema import VISIBLE, Names
from sinks.search import ANYTHING, Filters, Freshness, Hit, Question
from sinks.versions import FIRST
from transforms.values import exact_json

if TYPE_CHECKING:
    from psycopg import Connection

    from sinks.pgvector.config import PgvectorConfig
    from sinks.versions import IndexVersions

SPARE = 4
"""Chunks fetched for each document wanted, since a document may have several near ones."""

SETTINGS = """
SET default_transaction_read_only = on; SET statement_timeout = '30s';
SET hnsw.iterative_scan = strict_order; SET hnsw.ef_search = 200"""
"""Iterative: the walk over the graph goes on until enough chunks are found, however many a filter or a delete hides."""

WORDS = "SELECT lexeme FROM unnest(to_tsvector(%s::regconfig, %s)) ORDER BY positions[1], lexeme LIMIT %s"

COUNTS = """
SELECT word, (SELECT count(*) FROM (SELECT FROM {chunks} WHERE chunk_words @@ word::tsquery LIMIT %(most)s) AS found)
FROM unnest(%(words)s::text[]) AS word"""

TOTAL = """
SELECT greatest((SELECT count(*) FROM (SELECT FROM {chunks} LIMIT %s) AS counted),
                (SELECT reltuples::bigint FROM pg_class WHERE oid = {chunks_name}::regclass))"""

SHARE = """(SELECT coalesce(sum(w.weight), 0)
  FROM unnest(%(words)s::text[], %(weights)s::float8[]) AS w(word, weight)
  WHERE w.word = ANY (tsvector_to_array({vector})))"""
"""Coverage of one tsvector, for `{coverage}` below."""

DENSE = """
SELECT document_id, table_name AS "table", key, chunk_id, chunk_index, chunk_text, metadata, similarity, coverage
FROM (SELECT DISTINCT ON (document_id) near.*, {coverage} AS coverage
      FROM (SELECT v.*, 1 - (embedding <=> %(vector)s) AS similarity FROM ({visible}) AS v WHERE {filters}
            ORDER BY embedding <=> %(vector)s LIMIT %(chunks)s) AS near
      JOIN {chunks} AS c USING (chunk_id)
      ORDER BY document_id, similarity DESC, chunk_index) AS best
ORDER BY similarity DESC, document_id LIMIT %(k)s"""

LEXICAL = """
SELECT document_id, table_name AS "table", key, chunk_id, chunk_index, chunk_text, metadata, similarity, coverage
FROM (SELECT DISTINCT ON (document_id) v.*, 1 - (embedding <=> %(vector)s) AS similarity, coverage
      FROM (SELECT chunk_id, {coverage} AS coverage FROM {chunks} AS c
            WHERE c.chunk_words @@ %(query)s::tsquery) AS found
      JOIN ({visible}) AS v USING (chunk_id) WHERE {filters}
      ORDER BY document_id, coverage DESC, similarity DESC, chunk_index) AS best
ORDER BY coverage DESC, similarity DESC, document_id LIMIT %(k)s"""

COVERAGE = """
SELECT {coverage} FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS given(t, place) ORDER BY place"""

LIVE = "SELECT chunk_id FROM ({visible}) AS v WHERE chunk_id = ANY(%s)"

FRESHNESS = """
SELECT (SELECT value::bigint FROM {meta} WHERE name = 'indexed_as_of'),
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"""


@dataclass(frozen=True)
class WeighedWords:
    """A question's words as the store keeps them, and the share of its information each carries; shares sum to 1."""

    words: tuple[str, ...]
    weights: tuple[float, ...]
    query: str
    """A tsquery that any of the words worth searching for satisfies."""


class PgvectorIndex:
    """An `Index` over one connection, read only. Not for use by several threads at once."""

    def __init__(self, config: PgvectorConfig, fingerprint: str, index_version: int = FIRST) -> None:
        """Keep the configuration, the model that asks and the number of its index version; nothing is opened yet."""
        self._config = config
        self._fingerprint = fingerprint
        self._names = Names(config.table, index_version)
        self._visible = self._names.compose(VISIBLE)
        self._connection: Connection[Any] | None = None
        self.weigh = lru_cache(maxsize=8)(self._weigh)

    def check(self) -> None:
        """Connect, and compare the store's model with ours."""
        self._config.place.check_active(self.index_versions(), self._names.index_version, self._fingerprint)

    def index_versions(self) -> IndexVersions:
        """Read them from the meta."""
        with self._reading() as connection:
            return pgvector_generations.told(connection, self._names)

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Walk the HNSW index until enough chunks of live documents are found."""
        words = self.weigh(question.text)
        values = {"vector": question.vector, "chunks": k * SPARE, "k": k}
        return self._hits(DENSE, words, values, filters)

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Rank the rows that hold any of the rarer words by coverage; nearness in meaning breaks ties."""
        words = self.weigh(question.text)
        if not words.query:
            return []
        return self._hits(LEXICAL, words, {"vector": question.vector, "query": words.query, "k": k}, filters)

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Analyse texts as the store does, and weigh the words they share with the question."""
        words = self.weigh(question)
        values = {
            "words": list(words.words),
            "weights": list(words.weights),
            "language": self._config.language,
            "texts": [exact_json.printable(text) for text in texts],
        }
        with self._reading() as connection:
            share = sql.SQL(SHARE).format(vector=sql.SQL("to_tsvector(%(language)s::regconfig, t)"))
            return [found for (found,) in connection.execute(sql.SQL(COVERAGE).format(coverage=share), values)]

    def live(self, chunk_ids: Sequence[str]) -> set[str]:
        """Look chunks up where every reader looks."""
        with self._reading() as connection:
            return {
                chunk
                for (chunk,) in connection.execute(self._names.compose(LIVE, visible=self._visible), (list(chunk_ids),))
            }

    def freshness(self) -> Freshness:
        """Read what the index job notes after each batch, and each second while the source is idle."""
        with self._reading() as connection:
            row = connection.execute(self._names.compose(FRESHNESS)).fetchone()
        return Freshness(*row) if row else Freshness(None, 0)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _weigh(self, text: str) -> WeighedWords:
        """Ask how rare the question's words are, counting chunks no further than `COMMON_AT`."""
        asked = exact_json.printable(text)
        with self._reading() as connection:
            found = connection.execute(WORDS, (self._config.language, asked, MOST_COUNTED)).fetchall()
            queries = {_quoted(word): word for (word,) in found}
            if not queries:
                return WeighedWords((), (), "")
            values = {"words": list(queries), "most": COMMON_AT}
            counts = weighed(dict(connection.execute(self._names.compose(COUNTS), values).fetchall()))
            name = sql.Literal(self._names["chunks"].as_string(connection))
            row = connection.execute(self._names.compose(TOTAL, chunks_name=name), (COMMON_AT * 10,)).fetchone()
        told = shares(counts, row[0] if row else 0)
        words = tuple(queries[query] for query in told)
        return WeighedWords(words, tuple(told.values()), " | ".join(worth_searching(counts)))

    def _hits(self, statement: str, words: WeighedWords, values: dict[str, Any], filters: Filters) -> list[Hit]:
        conditions = [sql.SQL("TRUE")]
        if filters.tables:
            conditions.append(sql.SQL("table_name = ANY(%(tables)s)"))
        if filters.metadata:
            conditions.append(sql.SQL("metadata @> %(metadata)s::jsonb"))
        values |= {
            "words": list(words.words),
            "weights": list(words.weights),
            "tables": list(filters.tables),
            "metadata": exact_json.dumps(dict(filters.metadata)),
        }
        composed = self._names.compose(
            statement,
            visible=self._visible,
            coverage=sql.SQL(SHARE).format(vector=sql.Identifier("c", "chunk_words")),
            filters=sql.SQL(" AND ").join(conditions),
        )
        with self._reading() as connection, connection.cursor(row_factory=class_row(Hit)) as cursor:
            return cursor.execute(composed, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[Connection[Any]]:
        """A transaction on the one connection, the driver's errors turned into ours; their text may quote a row (I14)."""
        name = f"sink {self._config.name}"
        try:
            with self._connected().transaction():
                yield self._connected()
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction):
            raise ConfigurationError(
                f"{name}: there is no store {self._config.table} yet",
                condition="STORE_EMPTY",
                hint="start the pipeline with `ragstream run`, or fill the store with `ragstream rebuild`",
            ) from None
        except psycopg.OperationalError as error:
            self.close()
            if is_unverified(error):
                raise self._config.unverified() from None
            raise UnavailableError(
                f"{name}: PostgreSQL does not answer ({error.sqlstate or type(error).__name__})",
                hint=f"check the dsn of {name}, the server and the network route to it",
            ) from None
        except psycopg.Error as error:
            raise ConfigurationError(
                f"{name}: PostgreSQL refuses a statement ({error.sqlstate}, {type(error).__name__})",
                condition="STORE_REFUSES",
                hint="the user needs SELECT on the store's tables; else look the SQLSTATE up",
            ) from None

    def _connected(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._config.conninfo,
                autocommit=True,
                connect_timeout=self._config.connect_timeout_seconds,
                application_name="ragstream search",
            )
            try:
                register_vector(self._connection)
            except psycopg.ProgrammingError:  # no extension yet, so no store either
                raise errors.UndefinedTable from None
            set_json_loads(exact_json.loads, self._connection)
            self._connection.execute(SETTINGS)
        return self._connection


def _quoted(word: str) -> str:
    """A word as a tsquery of itself, taken as it stands."""
    doubled = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
