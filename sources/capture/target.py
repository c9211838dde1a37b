"""Tables, a database's address and SQL quoting, for every kind of capture. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from schemas.errors import ConfigurationError

WITHHELD = "********"
"""In place of a secret in rendered output."""


class Table(NamedTuple):
    """A table to capture, as the source names it."""

    schema: str
    """Its database, of an engine whose databases have no schemas; of SQL Server the database, and `name` has the schema."""
    name: str

    @property
    def quoted(self) -> str:
        """The table as standard SQL names it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


class Scheme(NamedTuple):
    """How a database's URI begins, and what it is called."""

    title: str
    names: tuple[str, ...]
    port: int


class Database(NamedTuple):
    """The address of a database; `password` is a secret."""

    host: str
    port: int
    name: str
    user: str
    password: str
    options: Mapping[str, str]


def tables_named(names: Sequence[str]) -> list[Table]:
    """Split `schema.table` names; raises ConfigurationError for one without a schema."""
    tables = []
    for name in names:
        schema, _, table = name.partition(".")
        if not (schema and table):
            raise ConfigurationError(
                f"table {name!r} has no schema.",
                condition="CAPTURE_TABLE_NAME",
                hint="Name tables as the source does: public.tickets.",
            )
        tables.append(Table(schema, table))
    return tables


def database_at(dsn: str, scheme: Scheme, *, names_database: bool = True) -> Database:
    """Read a database's URI; `names_database` says whether one without a database is refused.

    Raises ConfigurationError, without the URI, when it is none.
    """
    try:
        parts = urlsplit(dsn)
        port = parts.port or scheme.port
    except ValueError:  # its message may hold the password
        parts, port = urlsplit(""), 0
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in scheme.names or not parts.hostname or (names_database and not name):
        raise ConfigurationError(
            f"`capture.dsn` is no URI of a {scheme.title} database.",
            condition="CAPTURE_DSN",
            hint=f"Write it as {scheme.names[0]}://USER:PASSWORD@HOST:PORT/DATABASE.",
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Database(parts.hostname, port, name, user, password, dict(parse_qsl(parts.query)))


def listed_pattern(name: str) -> str:
    """A name as a part of Debezium's lists of regular expressions, whose separators would end it."""
    return re.sub(r"[,:;]", lambda match: rf"\x{ord(match[0]):02x}", re.escape(name).replace("\\ ", " "))


def quoted(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
