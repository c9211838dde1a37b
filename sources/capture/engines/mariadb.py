"""MariaDB 10.11 and later."""

from __future__ import annotations

from sources.capture.engines.binlog import SSL_MODES, Binlog
from sources.capture.target import Scheme


class MariaDB(Binlog):
    """MariaDB through its binary log. Its connector encrypts always or never: PREFERRED is always."""

    scheme = Scheme("MariaDB", ("mariadb", "mysql"), 3306)
    connector_class = "io.debezium.connector.mariadb.MariaDbConnector"
    ssl_modes = dict(zip(SSL_MODES, ("disable", "trust", "trust", "verify-ca", "verify-full"), strict=True))  # noqa: RUF012 - a constant
