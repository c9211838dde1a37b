"""MySQL with its binary log and GTIDs on, as `make test-mysql` fetches it from Debian sid: no version is pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from local_stack import cache
from local_stack.servers.binlog import BinlogDatabase, as_root


class MySQL(BinlogDatabase):
    """One server of MySQL, run by the loader and the libraries that came with it."""

    part = "mysql"
    settings: ClassVar[Mapping[str, str]] = {
        "gtid-mode": "ON",
        "enforce-gtid-consistency": "ON",
        "sync-binlog": "0",  # kill -9 of the server loses nothing
        "mysqlx": "OFF",
        "innodb-redo-log-capacity": "32M",
        "performance-schema": "OFF",
    }

    def program(self, data: Path) -> list[str]:
        """Its program, with its own share."""
        home = cache.mysql_home()
        (loader,) = home.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*")
        share = home / "usr/share/mysql"
        return [
            str(loader), "--library-path", str(loader.parent), str(home / "usr/sbin/mysqld"), "--no-defaults", *as_root(),
            f"--basedir={home / 'usr'}", f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}",
            f"--plugin-dir={home / 'usr/lib/mysql/plugin'}", "--secure-file-priv=NULL", f"--datadir={data}",
        ]  # fmt: skip

    def fill(self, data: Path) -> None:
        """Make the system tables, and one account that comes from anywhere."""
        account = self.directory / "account.sql"
        account.write_text(
            f"CREATE USER {self.user}@'%' IDENTIFIED BY '{self.saved('password')}';\n"
            f"GRANT ALL ON *.* TO {self.user}@'%' WITH GRANT OPTION;\n"
        )
        command = [*self.program(data), "--initialize-insecure", f"--init-file={account}"]
        self.run(command, "make its system tables")
        account.unlink()
