"""What every capture's configuration has: the captured database, and the rule on encryption for it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from pydantic import SecretStr

from schemas.transport import EncryptedPart, postgres_settings
from sources.capture.engines import ENGINES
from sources.capture.engines.postgresql import host_and_options
from sources.capture.target import Database


class CapturePart(EncryptedPart):
    """The captured database, which `check` and `--apply` connect to."""

    dsn: SecretStr
    """URI of the source database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE. Others begin with mysql://, mariadb://,
    sqlserver:// or oracle:// (docs/engines.md)."""
    database: str
    """The source's kind."""

    @property
    def address(self) -> Database:
        """The database's address; raises ConfigurationError, without the URI, when it is none of the engine's."""
        return ENGINES[self.database].address(self.dsn.get_secret_value())

    def weaknesses(self) -> Iterator[str]:
        """A URI that turns off encryption or verification, or leaves it to a client that does not encrypt by itself."""
        return ENGINES[self.database].weaknesses(self.dsn.get_secret_value())

    @property
    def conninfo(self) -> str:
        """PostgreSQL's URI, with the options that it lacks to be encrypted and verified beyond this machine."""
        dsn = self.dsn.get_secret_value()
        lacking = None if self.allow_plaintext else postgres_settings(host_and_options(dsn), {})
        return f"{dsn}{'&' if '?' in dsn else '?'}{urlencode(lacking)}" if lacking else dsn
