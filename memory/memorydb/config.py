"""The configuration of a memory in MemoryDB; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from memory.config import MemorySettings
from schemas.transport import EncryptedPart, is_this_machine, weakness

_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
"""Of an address, and whether it is encrypted."""


class MemoryDBConfig(MemorySettings, EncryptedPart):
    """Conversations and profiles in a cluster of Amazon MemoryDB (Valkey)."""

    type: Literal["memorydb"]
    url: SecretStr
    """`rediss://USER:PASSWORD@CLUSTER-ENDPOINT:6379`: the cluster's endpoint, and a user of its access control list."""
    prefix: str = Field(default="ragstream", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """What the names of all keys start with; the user may be restricted to `~PREFIX:*`."""
    tls_ca_file: str | None = None
    """File of the certificate authorities to trust, where the system does not know the server's (Amazon Trust Services)."""

    @model_validator(mode="after")
    def _is_url(self) -> Self:
        try:
            parts = urlsplit(self.url.get_secret_value())
            valid = (
                parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0 and parts.path in {"", "/"}
            )
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("url is rediss://USER:PASSWORD@HOST:PORT, special characters escaped, without a database")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether the address asks for TLS."""
        return _SCHEMES[urlsplit(self.url.get_secret_value()).scheme]

    def weaknesses(self) -> Iterator[str]:
        """Tell an address of another machine without TLS, or with options that could turn verification off."""
        try:
            parts = urlsplit(self.url.get_secret_value())
            host, scheme = parts.hostname or "", parts.scheme
        except ValueError:
            return  # refused elsewhere
        if not is_this_machine(host) and not _SCHEMES.get(scheme, True):
            yield weakness("url", "use rediss://")
        if parts.query or parts.fragment:
            yield weakness("url", "leave options out of it")
