"""What the captured database says of its tables: asked by `ragstream check`, never by a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import UnavailableError
from sources.capture_target import tables_named

if TYPE_CHECKING:
    from sources.capture import CaptureConfig

_COLUMNS = """
SELECT wanted.name, array_agg(a.attname::text ORDER BY a.attnum)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, quoted)
JOIN pg_attribute a ON a.attrelid = to_regclass(wanted.quoted) AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY 1"""


def columns_of(config: CaptureConfig, tables: Sequence[str]) -> dict[str, list[str]]:
    """Ask PostgreSQL for the columns of tables (`schema.table`); a table that it does not have is left out.

    Reads the catalogue alone, and changes nothing. Raises UnavailableError when the database does not answer, or refuses.
    """
    import psycopg

    quoted = [table.quoted for table in tables_named(tables)]
    try:
        with psycopg.connect(config.dsn.get_secret_value(), connect_timeout=5) as connection:
            return dict(connection.execute(_COLUMNS, (list(tables), quoted)).fetchall())
    except psycopg.Error as error:
        told = error.sqlstate or type(error).__name__
        raise UnavailableError(
            f"capture: the source's PostgreSQL does not answer ({told}), so no column could be compared",
            hint="check `capture.dsn`, and the network route from here to the database",
        ) from None
