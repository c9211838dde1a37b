"""The databases that can be captured: one module an engine, each behind `protocol.Engine`."""

from __future__ import annotations

from collections.abc import Mapping

from sources.capture.engines.mariadb import MariaDB
from sources.capture.engines.mysql import MySQL
from sources.capture.engines.oracle import Oracle
from sources.capture.engines.postgresql import PostgreSQL
from sources.capture.engines.protocol import Engine
from sources.capture.engines.sqlserver import SQLServer

ENGINES: Mapping[str, Engine] = {
    "postgresql": PostgreSQL(),
    "mysql": MySQL(),
    "mariadb": MariaDB(),
    "sqlserver": SQLServer(),
    "oracle": Oracle(),
}
"""By `database` of the configuration."""
