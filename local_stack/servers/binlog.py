"""A database with a binary log as MySQL and MariaDB write it: what their local servers have in common."""

from __future__ import annotations

import os
import secrets
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from local_stack.certificates import self_signed
from local_stack.ports import HOST
from local_stack.service import Endpoint, Service

_SETTINGS = {
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "server-id": "1",
    "character-set-server": "utf8mb4",
    "skip-name-resolve": "1",  # 127.0.0.1 is any host, not localhost, whose root has no password
    "innodb-flush-log-at-trx-commit": "2",  # kill -9 of the server loses nothing; only a crash of the machine would
    # small machine
    "innodb-buffer-pool-size": "32M",
    "key-buffer-size": "1M",
}


class BinlogDatabase(Service):
    """One server, with a generated password of `root`. What was committed is there again after `kill` and `start`."""

    user: ClassVar[str] = "root"
    settings: ClassVar[Mapping[str, str]]
    """What its kind is set to, beside what all are."""
    stop_timeout: ClassVar[float] = 30.0

    @abstractmethod
    def program(self, data: Path) -> list[str]:
        """Return the command that runs it on a folder of data."""

    @abstractmethod
    def fill(self, data: Path) -> None:
        """Make its system tables in a new folder of data."""

    @property
    def endpoint(self) -> Endpoint:
        """`dsn`: a URI of the superuser, without a database."""
        return {"dsn": self.dsn("")}

    def dsn(self, database: str) -> str:
        """Return the URI of one of its databases, as `capture` takes it."""
        return f"{self.part}://{self.user}:{self.saved('password')}@{HOST}:{self.port}/{database}"

    def prepare(self) -> None:
        """Make a certificate and the system tables, once."""
        if not self._tls.exists():
            self._make_certificate()
        if self.data.exists():
            return
        self.save(password=secrets.token_hex(12))
        with self.new_data() as new:
            self.fill(new)

    def command(self) -> list[str]:
        """Run the server in the foreground."""
        settings = (f"--{name}={value}" for name, value in (_SETTINGS | dict(self.settings)).items())
        address = (f"--bind-address={HOST}", f"--port={self.port}", "--socket=socket")
        tls = (f"--ssl-cert={self._tls / 'localhost.crt'}", f"--ssl-key={self._tls / 'localhost.key'}")
        return [*self.program(self.data), *address, *tls, *settings]

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
        return pymysql.connect(
            host=HOST, port=self.port, user=self.user, password=password, database=database, **options
        )

    @property
    def _tls(self) -> Path:
        return self.directory / "tls"

    def _make_certificate(self) -> None:
        """Sign a key of its own: without one the server makes one of 4096 bits at each start, for up to a minute."""
        new = self.directory / f"tls.{os.getpid()}.new"
        shutil.rmtree(new, ignore_errors=True)
        self_signed(new, "localhost", HOST, days=3650)
        new.rename(self._tls)


def as_root() -> list[str]:
    """What lets a server run as root, where this process is root: it refuses to without."""
    return ["--user=root"] if os.geteuid() == 0 else []
