"""The tables of a pgvector store, their names, and the statements that read and write document rows.

A document is a row of `documents`, its `chunks` and, by content hash, their `vectors`. So a metadata change rewrites one narrow
row and no vector; a moved chunk, a renamed key or a repeated text needs no second vector and no model
call. Names carry the index version's number: another model is filled beside the active one, which readers use by the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from psycopg import sql

from sinks.versions import FIRST

LAYOUT = "1"


@dataclass(frozen=True)
class Names:
    """Identifiers of one index version, quoted by the driver."""

    table: str
    index_version: int = FIRST

    def __getitem__(self, part: str) -> sql.Identifier:
        """The table of a part: `documents`, `chunks`, `vectors`, or `tables` and `meta`, which index versions share."""
        if part in {"tables", "meta"}:
            return sql.Identifier(f"{self.table}_{part}")
        return sql.Identifier(f"{self.table}_g{self.index_version}_{part}")

    @property
    def view(self) -> sql.Identifier:
        """The view that users select from."""
        return sql.Identifier(self.table)

    def compose(self, statement: str, **parts: sql.Composable) -> sql.Composed:
        """Fill in a statement's identifiers; a statement without other parts is cached as one text."""
        if not parts:
            return _composed(self, statement)
        return self._filled(statement, parts)

    def _filled(self, statement: str, parts: Mapping[str, sql.Composable]) -> sql.Composed:
        named = {p: self[p] for p in ("documents", "chunks", "vectors", "tables", "meta")}
        return sql.SQL(statement).format(view=self.view, **named, **parts)


@lru_cache(maxsize=128)
def _composed(names: Names, statement: str) -> sql.Composed:
    text = names._filled(statement, {}).as_string()  # noqa: SLF001 - of this module
    return sql.Composed([sql.SQL(text)])  # its identifiers are quoted


CREATE = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS {meta} (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE IF NOT EXISTS {tables} (
    table_name text PRIMARY KEY, truncated_sequence text COLLATE "C" NOT NULL);"""
"""The tables that index versions share."""

CREATE_INDEX_VERSION = """
CREATE TABLE IF NOT EXISTS {documents} (
    document_id text COLLATE "C" PRIMARY KEY, table_name text NOT NULL, key jsonb NOT NULL,
    sequence text COLLATE "C" NOT NULL, revision bigint NOT NULL, live boolean NOT NULL,
    metadata jsonb NOT NULL, metadata_terms text[] COLLATE "C", state text NOT NULL, texts text, recipe text NOT NULL,
    pending text[] NOT NULL, commit_time timestamptz, written_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS {documents_by_table} ON {documents} (table_name);
CREATE INDEX IF NOT EXISTS {documents_by_terms} ON {documents} USING gin (metadata_terms) WITH (gin_pending_list_limit = 256);
CREATE TABLE IF NOT EXISTS {vectors} (
    content_hash text COLLATE "C" PRIMARY KEY, embedding vector({dimensions}) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp());
ALTER TABLE {vectors} ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX IF NOT EXISTS {vectors_by_distance} ON {vectors} USING hnsw (embedding vector_cosine_ops);
CREATE TABLE IF NOT EXISTS {chunks} (
    chunk_id text COLLATE "C" PRIMARY KEY,
    document_id text COLLATE "C" NOT NULL REFERENCES {documents} ON DELETE CASCADE,
    chunk_index int NOT NULL, content_hash text COLLATE "C" NOT NULL REFERENCES {vectors},
    chunk_text text NOT NULL,
    chunk_words tsvector GENERATED ALWAYS AS (to_tsvector('{language}', chunk_text)) STORED
) WITH (fillfactor = 85);
CREATE INDEX IF NOT EXISTS {chunks_by_document} ON {chunks} (document_id);
CREATE INDEX IF NOT EXISTS {chunks_by_content} ON {chunks} (content_hash);
CREATE INDEX IF NOT EXISTS {chunks_by_words} ON {chunks} USING gin (chunk_words);
"""

GENERATES_WORDS = (
    "SELECT attgenerated <> '' FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'chunk_words'"
)

CONFIGURATION = """
SELECT quote_ident(nspname) || '.' || quote_ident(cfgname)
FROM pg_ts_config JOIN pg_namespace AS n ON n.oid = cfgnamespace WHERE pg_ts_config.oid = %s::regconfig"""

TAKE_WORDS = """
ALTER TABLE {chunks} ALTER COLUMN chunk_words DROP EXPRESSION;
CREATE TRIGGER words_of_the_store BEFORE INSERT ON {chunks} FOR EACH ROW WHEN (NEW.chunk_words IS NULL)
EXECUTE FUNCTION tsvector_update_trigger('chunk_words', {configuration}, 'chunk_text');"""
"""Lets a writer give the words of a chunk in another language than the store's; PostgreSQL still makes those of all other chunks,
whichever release writes them. It rewrites no row."""

INSERT_CHUNK = """
INSERT INTO {chunks} (chunk_id, document_id, chunk_index, content_hash, chunk_text)
VALUES (%(chunk_id)s, %(document_id)s, %(chunk_index)s, %(content_hash)s, %(chunk_text)s)"""

INSERT_CHUNK_IN_LANGUAGE = """
INSERT INTO {chunks} (chunk_id, document_id, chunk_index, content_hash, chunk_text, chunk_words)
VALUES (%(chunk_id)s, %(document_id)s, %(chunk_index)s, %(content_hash)s, %(chunk_text)s, array_to_tsvector(array(
    SELECT %(mark)s::text || lexeme FROM unnest(to_tsvector(%(language)s::regconfig, %(chunk_text)s)) WHERE length(lexeme) < 500)
    || %(mark)s::text))"""
"""Each lexeme has the language before it (`transforms.documents.languages`); a lexeme takes at most 2,046 bytes."""

ADD_TERMS = """
ALTER TABLE {documents} ADD COLUMN IF NOT EXISTS metadata_terms text[] COLLATE "C";
CREATE INDEX IF NOT EXISTS {documents_by_terms} ON {documents} USING gin (metadata_terms) WITH (gin_pending_list_limit = 256);"""
"""What a store of an earlier release lacks for filters; no document has terms until it is written again.

Each search reads the whole list of terms that wait for the index: 256 kB of them is a millisecond, the default's 4 MB 15.
"""

VISIBLE_DOCUMENTS = """FROM {documents} AS d LEFT JOIN {tables} AS t USING (table_name)
WHERE d.live AND d.sequence > coalesce(t.truncated_sequence, '')"""
"""The document rows that readers of one index version may see."""

VISIBLE = """
SELECT d.document_id, d.table_name, d.key, c.chunk_id, c.chunk_index, c.chunk_text, c.content_hash,
       d.metadata, v.embedding, d.sequence, d.commit_time
FROM {documents} d
JOIN {chunks} c USING (document_id)
JOIN {vectors} v USING (content_hash)
LEFT JOIN {tables} t USING (table_name)
WHERE d.live AND d.sequence > coalesce(t.truncated_sequence, '')"""
"""The chunks that readers of one index version may see; of the active one, by the view."""

READ_DOCUMENTS = """
SELECT document_id, revision, state, texts, recipe FROM {documents} WHERE document_id = ANY(%s)"""

READ_CHUNKS = """
SELECT document_id, chunk_id, chunk_index, content_hash FROM {chunks}
WHERE document_id = ANY(%s) ORDER BY document_id, chunk_index"""

READ_TRUNCATIONS = "SELECT table_name, truncated_sequence FROM {tables}"

INSERT_DOCUMENT = """
INSERT INTO {documents} (document_id, table_name, key, sequence, revision, live, metadata, metadata_terms, state,
                         texts, recipe, pending, commit_time)
VALUES (%(document_id)s, %(table)s, %(key)s::jsonb, %(sequence)s, %(revision)s, %(live)s, %(metadata)s::jsonb,
        %(metadata_terms)s::text[], %(state)s, %(texts)s, %(recipe)s, %(pending)s, %(commit_time)s)
ON CONFLICT (document_id) DO NOTHING RETURNING document_id"""

UPDATE_DOCUMENT = """
UPDATE {documents} SET sequence = %(sequence)s, revision = revision + 1, live = %(live)s,
       metadata = %(metadata)s::jsonb, metadata_terms = %(metadata_terms)s::text[], state = %(state)s, recipe = %(recipe)s,
       texts = CASE WHEN %(texts_changed)s THEN %(texts)s ELSE texts END, pending = %(pending)s,
       commit_time = %(commit_time)s, written_at = clock_timestamp()
WHERE document_id = %(document_id)s AND revision = %(revision)s AND sequence <= %(sequence)s
RETURNING document_id"""
"""Texts that did not change are not sent: PostgreSQL leaves a large unchanged column in place."""
