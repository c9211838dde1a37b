"""Beyond this machine, encrypted and verified: one rule for every client. Pure.

Loopback addresses and sockets of files are this machine; a name other than `localhost` is not, wherever it leads. What is
sent elsewhere is rows, questions, keys and passwords, so a part whose configuration would send it unencrypted, or to whoever
answers, is refused unless it says `allow_plaintext: true`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import model_validator

from schemas.model import StrictModel

_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d+)?(/[^\\@]*)?", re.IGNORECASE)
_VERIFIED = "verify-full"
_ENCRYPTED_KAFKA = frozenset({"SSL", "SASL_SSL"})
_UNVERIFIED_MONGO = frozenset({"tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames"})


class EncryptedPart(StrictModel):
    """A part of a pipeline that is reached over a network."""

    allow_plaintext: bool = False
    """Let rows, questions and passwords travel to another machine unencrypted, or to a server that is not verified."""

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if not self.allow_plaintext:
            for weakness in self.weaknesses():
                raise ValueError(weakness)
        return self

    def weaknesses(self) -> Iterator[str]:
        """What of this part would travel to another machine unencrypted or unverified: key, and what mends it."""
        raise NotImplementedError


def is_this_machine(host: str) -> bool:
    """Whether a host, as a client is given it, is a loopback address, `localhost`, or the path of a socket."""
    if host.lower().startswith(("/", "@", "%2f")) or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def weak_url(key: str, url: str | None) -> Iterator[str]:
    """Tell an http:// address of another machine, or one that clients may read in different ways."""
    if not url:
        return
    found = _URL.fullmatch(url)
    if found is None or (found[1].lower() == "http" and not is_this_machine(found[2])):
        yield weakness(key, "use https://")


def weak_brokers(key: str, servers: str, options: Mapping[str, str]) -> Iterator[str]:
    """Tell brokers of another machine that are spoken to without TLS, or whose names are not looked at (Kafka's client)."""
    told = {name.lower(): value for name, value in options.items()}
    hosts = (_without_port(server.strip().rpartition("/")[2]) for server in servers.split(","))
    if all(map(is_this_machine, hosts)):
        return
    if told.get("kafka.security.protocol", "PLAINTEXT").upper() not in _ENCRYPTED_KAFKA:
        yield weakness(key, "set the option `kafka.security.protocol` to SSL or SASL_SSL")
    if not told.get("kafka.ssl.endpoint.identification.algorithm", "https"):
        yield weakness(key, "leave the option `kafka.ssl.endpoint.identification.algorithm` out")


def weak_mongo(key: str, uri: str, *, tls: bool) -> Iterator[str]:
    """Tell a cluster of another machine that is spoken to without TLS, or unverified (MongoDB, "Connection String Options")."""
    if not uri.startswith("mongodb://"):
        return  # no uri that a client is given
    place, _, query = uri.partition("://")[2].partition("?")
    hosts = place.partition("/")[0].rpartition("@")[2].split(",")
    if all(is_this_machine(_without_port(host)) for host in hosts):
        return
    pairs = (pair.partition("=") for pair in re.split("[&;]", query))
    options = {name.lower(): value.lower() for name, _, value in pairs}
    if not tls and options.get("tls", options.get("ssl")) != "true":
        yield weakness(key, "set `tls_ca_file`, or tls=true in the uri")
    if any(options.get(name, "false") != "false" for name in _UNVERIFIED_MONGO):
        yield weakness(key, "leave tlsInsecure and tlsAllowInvalid… out of the uri")


def postgres_settings(told: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str] | None:
    """The settings that a libpq connection lacks to be encrypted and verified; None where what it says is too weak.

    `told` is what the connection string says, `defaults` what libpq takes from its environment. Of another machine libpq itself
    verifies nothing unless it is told to (PostgreSQL, "SSL Support").
    """
    both = {**defaults, **told}
    hosts = [host for name in ("host", "hostaddr") for host in str(both.get(name) or "").split(",") if host]
    if all(map(is_this_machine, hosts)) and not both.get("service"):
        return {}
    if "sslmode" in told:
        return {} if told["sslmode"] == _VERIFIED else None
    return {"sslmode": _VERIFIED} | ({} if both.get("sslrootcert") else {"sslrootcert": "system"})


def weak_postgres(key: str, told: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[str]:
    """Tell a connection string that turns encryption or verification down."""
    if postgres_settings(told, defaults) is None:
        yield weakness(
            key, "say sslmode=verify-full (and sslrootcert=FILE for an authority that the system does not know)"
        )


def weakness(key: str, mend: str) -> str:
    """Say of a key that what it reaches is not safe, and what mends it; its value may be a secret."""
    return f"`{key}` reaches another machine unencrypted or unverified: {mend}, or set `allow_plaintext: true` on this part"


def _without_port(host: str) -> str:
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
