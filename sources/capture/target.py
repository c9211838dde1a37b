"""Tables, the database's address and SQL quoting, for both kinds of capture. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from pydantic import SecretStr

from schemas.errors import ConfigurationError
from schemas.transport import EncryptedPart, postgres_settings, weak_postgres

WITHHELD = "********"
"""In place of a secret in rendered output."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:,@\[\]]*)(?::\d*)?")


class Table(NamedTuple):
    """A table to capture, as the source names it."""

    schema: str
    name: str

    @property
    def quoted(self) -> str:
        """The table as SQL names it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


class Database(NamedTuple):
    """The address of a PostgreSQL database; `password` is a secret."""

    host: str
    port: int
    name: str
    user: str
    password: str
    ssl_mode: str | None


def tables_named(names: Sequence[str]) -> list[Table]:
    """Split `schema.table` names; raises ConfigurationError for one without a schema."""
    tables = []
    for name in names:
        schema, dot, table = name.partition(".")
        if not (schema and dot and table):
            raise ConfigurationError(
                f"table {name!r} has no schema.",
                condition="CAPTURE_TABLE_NAME",
                hint="Name tables as the source does: public.tickets.",
            )
        tables.append(Table(schema, table))
    return tables


class CapturePart(EncryptedPart):
    """The part of every capture: the captured database, which `check` and `--apply` connect to."""

    dsn: SecretStr
    """URI of the source database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE."""

    def weaknesses(self) -> Iterator[str]:
        """A URI that turns off encryption or verification."""
        return weak_postgres("dsn", *self._host_and_options())

    @property
    def conninfo(self) -> str:
        """The URI, with the options that it lacks to be encrypted and verified beyond this machine."""
        lacking = None if self.allow_plaintext else postgres_settings(*self._host_and_options())
        dsn = self.dsn.get_secret_value()
        return f"{dsn}{'&' if '?' in dsn else '?'}{urlencode(lacking)}" if lacking else dsn

    def _host_and_options(self) -> tuple[dict[str, str], dict[str, str]]:
        """The URI's host and options, and no defaults of an environment; a connector takes no URI with several hosts."""
        _, is_uri, rest = self.dsn.get_secret_value().partition("://")
        place, _, query = rest.partition("?")
        place = place.partition("/")[0]
        host = (
            _HOST.fullmatch(place.partition("@")[2] if "@" in place else place) if is_uri and "@" not in query else None
        )
        return {"host": host[1] if host else "?"} | dict(parse_qsl(query)), {}


def database_at(dsn: str) -> Database:
    """Read a libpq URI; raises ConfigurationError, without the URI, when it is none."""
    parts = urlsplit(dsn)
    try:
        port = parts.port or 5432
    except ValueError:
        port = 0
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname or not port or not name:
        raise ConfigurationError(
            "`capture.dsn` is no URI of a PostgreSQL database.",
            condition="CAPTURE_DSN",
            hint="Write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE.",
        )
    ssl_mode = parse_qs(parts.query).get("sslmode", [None])[0]
    return Database(parts.hostname, port, name, unquote(parts.username or ""), unquote(parts.password or ""), ssl_mode)


def quoted(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
