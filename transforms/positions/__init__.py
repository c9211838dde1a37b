"""Where a change stands in its source's own log: one module an engine, and the sequence made of it (I1). Pure.

Fields of `source` are those of Debezium's `*SourceInfoStructMaker` classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from transforms.positions import mariadb, mysql, oracle, postgresql, sqlserver
from transforms.positions.sequence import NoPositionError

_POSITIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "postgresql": postgresql.source_position,
    "mysql": mysql.source_position,
    "mariadb": mariadb.source_position,
    "sqlserver": sqlserver.source_position,
    "oracle": oracle.source_position,
}
"""By Debezium's name of the connector."""
_NAME = re.compile(r"[a-z0-9_-]{1,40}")


def source_position(source: Mapping[str, Any]) -> str:
    """Read the position in a Debezium record's `source`, by its connector; without one it is PostgreSQL's.

    Raises NoPositionError for a connector without a function here, ValueError for a missing or malformed position.
    """
    connector = source.get("connector", "postgresql")
    position = _POSITIONS.get(connector) if isinstance(connector, str) else None
    if position is None:
        name = connector if isinstance(connector, str) and _NAME.fullmatch(connector) else "unknown"
        raise NoPositionError(
            f"connector {name} has an order that is not known here; {', '.join(sorted(_POSITIONS))} have one"
        )
    return position(source)
