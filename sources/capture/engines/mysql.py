"""MySQL 8 and 9."""

from __future__ import annotations

from sources.capture.engines.binlog import SSL_MODES, Binlog
from sources.capture.target import Scheme


class MySQL(Binlog):
    """MySQL through its binary log."""

    scheme = Scheme("MySQL", ("mysql",), 3306)
    connector_class = "io.debezium.connector.mysql.MySqlConnector"
    ssl_modes = {mode: mode.lower() for mode in SSL_MODES}  # noqa: RUF012 - a constant
