"""What a search in PostgreSQL has to know before it looks for chunks, read by one statement.

The index versions, the freshness, the languages, the frequency of each word of the question, and the documents that pass a filter
where those are few.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from sinks.idf import COMMON_AT, MOST_COUNTED, WeighedWords, weighed_by_language
from sinks.pgvector import versions
from sinks.pgvector.filtering import filtering_of
from sinks.pgvector.recent import recent_of
from sinks.pgvector.schema import Names
from sinks.search import Filters, Freshness
from sinks.versions import IndexVersions
from transforms.documents.languages import OWN, TablesOf, mark_of, marked, text_by_language
from transforms.values import exact_json

if TYPE_CHECKING:
    from sinks.pgvector.config import PgvectorConfig
    from sinks.pgvector.filtering import Filtering

LEAST_COMPARED = 1_000
"""Documents that a filter lets through which are always compared exactly with the question."""

_MOST_CHUNKS = COMMON_AT * 10

PREPARE = r"""
SELECT (SELECT jsonb_object_agg(name, value) FROM {meta}
        WHERE name IN ('generations', 'fingerprint', 'dimensions', 'indexed_as_of', 'languages')) AS facts,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us, {few} AS few,
       CASE WHEN sizes.chunks >= %(most_chunks)s THEN sizes.chunks
            ELSE greatest(sizes.chunks, (SELECT count(*) FROM (SELECT FROM {chunks} LIMIT %(most_chunks)s) AS counted))
       END AS chunks,
       (SELECT json_agg(json_build_array(
            CASE WHEN asked.prefix <> '' THEN
                (SELECT count(*) FROM (SELECT FROM {chunks} WHERE chunk_words @@ asked.mark::tsquery
                                       LIMIT %(most_chunks)s) AS counted) END,
            (SELECT coalesce(json_agg(json_build_array(lexeme, coalesce(
                (SELECT known.count FROM unnest(%(known)s::text[], %(counts)s::bigint[]) AS known (word, count)
                 WHERE known.word = words.quoted),
                (SELECT count(*) FROM (SELECT FROM {chunks} WHERE chunk_words @@ words.quoted::tsquery
                                       LIMIT %(most)s) AS counted))) ORDER BY place, lexeme), '[]')
             FROM (SELECT lexeme, positions[1] AS place,
                          '''' || replace(replace(asked.prefix || lexeme, '\', '\\'), '''', '''''') || '''' AS quoted
                   FROM unnest(to_tsvector(asked.language::regconfig, asked.text))
                   ORDER BY positions[1], lexeme LIMIT %(most_words)s) AS words)) ORDER BY asked.at)
        FROM unnest(%(languages)s::text[], %(prefixes)s::text[], %(marks)s::text[], %(texts)s::text[])
             WITH ORDINALITY AS asked (language, prefix, mark, text, at)) AS counts
FROM (SELECT greatest(c.reltuples, 0)::bigint AS chunks,
             greatest({least}, floor(sqrt(%(near)s::float8 * greatest(v.reltuples, 0))))::bigint AS compared
      FROM pg_class AS c, pg_class AS v WHERE c.oid = {chunks_name}::regclass AND v.oid = {vectors_name}::regclass) AS sizes"""
"""Sizes are PostgreSQL's own estimates; chunks are counted while those are few."""

FEW = """
(SELECT CASE WHEN count(*) <= sizes.compared THEN coalesce(array_agg(document_id), ARRAY[]::text[]) END
 FROM (SELECT d.document_id FROM {documents} AS d WHERE d.live AND {filters} LIMIT sizes.compared + 1) AS passing)"""
"""The documents that pass, if comparing them all is cheaper than the graph; NULL if they are more.

Of n vectors the graph is scanned for about chunks * n / m before it has given `chunks` of the m that pass: for more
than m where m is below the root of chunks * n.
"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one statement read."""

    versions: IndexVersions
    freshness: Freshness
    tables_of: TablesOf
    weighed: dict[str, WeighedWords]
    """By language."""
    words: WeighedWords
    """Those of all languages."""
    few: list[str] | None
    """The documents that pass the filter; None where they are many, or there is no filter."""


class Preparation:
    """Prepares the searches of one reader."""

    def __init__(self, config: PgvectorConfig, names: Names) -> None:
        self._names, self._own = names, config.language
        self._recent = recent_of(config, names.index_version)

    def read(
        self, connection: Connection[Any], text: str, languages: Sequence[str], filtering: Filtering, chunks: int
    ) -> Prepared:
        """Read what a search of so many chunks through a filter needs, for a text in languages."""
        texts, known = text_by_language(exact_json.printable(text), languages, self._own), self._recent.counts()
        looks = not filtering.is_empty and not self._recent.is_many(filtering.filters, chunks)
        values = {
            "languages": [language or self._own for language in languages],
            "prefixes": [mark_of(language) for language in languages],
            "marks": [quoted(mark_of(language)) for language in languages],
            "texts": [texts.get(language, "") for language in languages],
            "known": list(known), "counts": list(known.values()),
            "most": COMMON_AT, "most_chunks": _MOST_CHUNKS, "most_words": MOST_COUNTED, "near": chunks, **filtering.values,
        }  # fmt: skip
        statement = _text_of(self._names, PREPARE, LEAST_COMPARED, filtering.filters if looks else None)
        row = connection.execute(statement, values).fetchone()
        assert row is not None  # noqa: S101 - both tables are there, or it raised
        facts, now_us, few, whole, counted = row
        if looks and few is None:
            self._recent.note_many(filtering.filters, chunks)
        by_language = {language: dict(words) for language, (_, words) in zip(languages, counted, strict=True)}
        self._note(by_language, known)
        others = _sizes_of_others(languages, counted, whole)
        return _read(
            facts or {}, now_us, few, weighed_by_language({name: by_language[name] for name in texts}, whole, others)
        )

    def _note(self, by_language: Mapping[str, Mapping[str, int]], known: Mapping[str, int]) -> None:
        counts = {
            quoted(marked(word, language)): count
            for language, words in by_language.items()
            for word, count in words.items()
        }
        self._recent.note_counts({word: count for word, count in counts.items() if word not in known})


@functools.lru_cache(maxsize=1024)
def _text_of(names: Names, statement: str, least: int, filters: Filters | None) -> bytes:
    """The text of `PREPARE`; None looks for no documents that pass a filter."""
    named = {f"{part}_name": sql.Literal(names[part].as_string()) for part in ("chunks", "vectors")}
    few: sql.Composable = sql.SQL("NULL::text[]")
    if filters is not None:
        few = names.compose(FEW, filters=filtering_of(filters).condition)
    return names.compose(statement, few=few, least=sql.Literal(least), **named).as_bytes()


def quoted(word: str) -> str:
    """A word as a tsquery that matches it verbatim."""
    doubled = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def _sizes_of_others(languages: Sequence[str], counted: Sequence[Any], whole: int) -> dict[str, int]:
    """The chunks of each language but the store's own: as many as all, where they are too many to count."""
    sizes = {language: chunks for language, (chunks, _) in zip(languages, counted, strict=True) if language != OWN}
    return {language: whole if chunks == _MOST_CHUNKS else chunks for language, chunks in sizes.items()}


def _read(facts: Mapping[str, str], now_us: int, few: list[str] | None, weighed: dict[str, WeighedWords]) -> Prepared:
    progress = facts.get("indexed_as_of")
    return Prepared(
        versions.of_meta(facts),
        Freshness(None if progress is None else int(progress), now_us),
        json.loads(facts.get("languages", "{}")),
        weighed,
        WeighedWords.joined(weighed),
        few,
    )
