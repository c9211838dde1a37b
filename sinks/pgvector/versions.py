"""The index versions of a pgvector store: listed in its meta table, the active one shown by the view; and the store's owner."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from psycopg import Connection, sql
from psycopg.errors import UndefinedTable

from schemas import ownership
from schemas.ownership import Owner
from sinks.pgvector.schema import (
    ADD_TERMS,
    CONFIGURATION,
    CREATE,
    CREATE_INDEX_VERSION,
    GENERATES_WORDS,
    LAYOUT,
    TAKE_WORDS,
    VISIBLE,
    Names,
)  # fmt: skip
from sinks.versions import IndexVersions, from_json, of_facts, to_json
from transforms.documents.languages import TablesOf, united

_INDEXES = (
    ("documents", "table"), ("documents", "terms"),
    ("vectors", "distance"), ("chunks", "document"), ("chunks", "content"), ("chunks", "words"),
)  # fmt: skip
_GRANTS = """
SELECT grantee, privilege_type FROM information_schema.role_table_grants
WHERE table_schema = current_schema() AND table_name = %s AND grantee <> grantor"""


_FACTS = "SELECT name, value FROM {meta} WHERE name IN ('generations', 'fingerprint', 'dimensions')"


def read(connection: Connection[Any], names: Names) -> IndexVersions | None:
    """The index versions; None without a store. Works within any transaction."""
    return stored(connection, names) if exists(connection, names["meta"]) else None


def stored(connection: Connection[Any], names: Names) -> IndexVersions:
    """The index versions, by one statement; raises psycopg's UndefinedTable without a store."""
    return of_meta(dict(connection.execute(names.compose(_FACTS), prepare=True).fetchall()))


def of_meta(facts: Mapping[str, str]) -> IndexVersions:
    """The index versions, from the rows of the meta table."""
    return from_json(json.loads(facts["generations"])) if "generations" in facts else of_facts(facts)


def change(
    connection: Connection[Any], names: Names, becomes: Callable[[IndexVersions], IndexVersions]
) -> IndexVersions:
    """Change the list and, for another active one, the view, within the caller's transaction; `becomes` is called once."""
    lock(connection, names)
    before = read(connection, names)
    if before is None:
        raise UndefinedTable
    after = becomes(before)
    if after != before:
        statement = """INSERT INTO {meta} VALUES ('generations', %s)
                       ON CONFLICT (name) DO UPDATE SET value = excluded.value"""
        connection.execute(names.compose(statement), (json.dumps(to_json(after)),))
    if after.active_number != before.active_number:
        _show(connection, Names(names.table, before.active_number), Names(names.table, after.active_number))
    return after


def create_store(connection: Connection[Any], names: Names, fingerprint: str, dimensions: int, language: str) -> None:
    """Create a store with one index version, and write the model's facts."""
    connection.execute(names.compose(CREATE))
    create(connection, names, dimensions, language)
    connection.execute(names.compose("CREATE OR REPLACE VIEW {view} AS {visible}", visible=names.compose(VISIBLE)))
    facts = {"fingerprint": fingerprint, "dimensions": str(dimensions), "layout": LAYOUT}
    connection.cursor().executemany(names.compose("INSERT INTO {meta} VALUES (%s, %s)"), list(facts.items()))


def owner(connection: Connection[Any], names: Names) -> Owner | None:
    """The owner; None without a store, or where nobody claimed it."""
    if not exists(connection, names["meta"]):
        return None
    row = connection.execute(names.compose("SELECT value FROM {meta} WHERE name = 'owner'")).fetchone()
    return ownership.from_json(row[0]) if row else None


def claim(connection: Connection[Any], names: Names, claimant: Owner, instead_of: Owner | None) -> Owner:
    """Compare-and-set the owner from none, or `instead_of`; the owner then."""
    statement = """INSERT INTO {meta} AS m VALUES ('owner', %s)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE m.value = %s"""
    before = ownership.to_json(instead_of) if instead_of else ""
    connection.execute(names.compose(statement), (ownership.to_json(claimant), before))
    return owner(connection, names) or claimant


def create(connection: Connection[Any], names: Names, dimensions: int, language: str) -> None:
    """Create the tables of an index version, if missing."""
    indexes = {f"{t}_by_{c}": names[f"{t}_by_{c}"] for t, c in _INDEXES}
    settings = {"dimensions": sql.Literal(dimensions), "language": sql.SQL(language)}
    connection.execute(names.compose(CREATE_INDEX_VERSION, **settings, **indexes))


def add_missing(connection: Connection[Any], names: Names) -> None:
    """Add what the tables of an earlier release lack. Looked up first: an ALTER TABLE would wait for every writer."""
    statement = "SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'metadata_terms'"
    has_terms = connection.execute(statement, (names["documents"].as_string(connection),)).fetchone() is not None
    if not has_terms and exists(connection, names["documents"]):
        connection.execute(names.compose(ADD_TERMS, documents_by_terms=names["documents_by_terms"]))


def tables_of_languages(connection: Connection[Any], names: Names) -> TablesOf:
    """The tables that have documents in other languages than the store's, by language."""
    row = connection.execute(
        names.compose("SELECT value FROM {meta} WHERE name = 'languages'"), prepare=True
    ).fetchone()
    return json.loads(row[0]) if row else {}


def learn(connection: Connection[Any], names: Names, own: str, tables_of: TablesOf) -> None:
    """Note documents of other languages than `own`, the store's, and let writers provide the words of these. Idempotent."""
    lock(connection, names)
    chunks = names["chunks"].as_string(connection)
    if (row := connection.execute(GENERATES_WORDS, (chunks,)).fetchone()) and row[0]:
        (configuration,) = connection.execute(CONFIGURATION, (own,)).fetchone() or (own,)
        connection.execute(names.compose(TAKE_WORDS, configuration=sql.Literal(configuration)))
    noted = tables_of_languages(connection, names)
    after = united(noted, tables_of)
    statement = "INSERT INTO {meta} VALUES ('languages', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    if after != noted:
        connection.execute(names.compose(statement), (json.dumps(after),))


def drop(connection: Connection[Any], names: Names) -> None:
    """Drop the tables of an index version that is not active. Idempotent."""
    connection.execute(names.compose("DROP TABLE IF EXISTS {chunks}, {documents}, {vectors}"))


def lock(connection: Connection[Any], names: Names) -> None:
    """Serialise changes of a store until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"ragstream:{names.table}",))


def exists(connection: Connection[Any], table: sql.Identifier) -> bool:
    """Whether there is a table of that name."""
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table.as_string(connection),)).fetchone()
    return bool(row and row[0])


def _show(connection: Connection[Any], old: Names, new: Names) -> None:
    """Recreate the view, as vectors of another length are another type, and carry the grants over."""
    for part in ("documents", "chunks", "vectors"):
        _grant(connection, _granted(connection, f"{old.table}_g{old.index_version}_{part}"), new[part])
    granted = _granted(connection, new.table)
    connection.execute(new.compose("DROP VIEW IF EXISTS {view}"))
    connection.execute(new.compose("CREATE VIEW {view} AS {visible}", visible=new.compose(VISIBLE)))
    _grant(connection, granted, new.view)


def _granted(connection: Connection[Any], table: str) -> list[tuple[str, str]]:
    return connection.execute(_GRANTS, (table,)).fetchall()


def _grant(connection: Connection[Any], granted: list[tuple[str, str]], table: sql.Identifier) -> None:
    for grantee, right in granted:
        whom = sql.SQL("PUBLIC") if grantee == "PUBLIC" else sql.Identifier(grantee)
        statement = sql.SQL("GRANT {right} ON {table} TO {whom}")
        connection.execute(statement.format(right=sql.SQL(right), table=table, whom=whom))
