"""The rule on encryption: connections to other machines are encrypted and verified, for every client. Pure.

Loopback addresses and Unix sockets are this machine; a host name other than `localhost` is not, wherever it resolves to. Rows,
questions, keys and passwords travel over these connections, so a configuration that would send them unencrypted, or to an
unverified server, is refused unless it says `allow_plaintext: true`.
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
    """The configuration of a part that is reached over a network."""

    allow_plaintext: bool = False
    """Let rows, questions and passwords travel to another machine unencrypted, or to a server that is not verified."""

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if not self.allow_plaintext:
            for weakness in self.weaknesses():
                raise ValueError(weakness)
        return self

    def weaknesses(self) -> Iterator[str]:
        """Sentences on each key that reaches another machine unencrypted or unverified, and how to mend it."""
        raise NotImplementedError


def is_this_machine(host: str) -> bool:
    """Whether a host, as clients take it, is a loopback address, `localhost`, or the path of a socket."""
    if host.lower().startswith(("/", "@", "%2f")) or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def weak_url(key: str, url: str | None) -> Iterator[str]:
    """The weakness of an http:// address of another machine, or of one that clients may parse differently."""
    if not url:
        return
    match = _URL.fullmatch(url)
    if match is None or (match[1].lower() == "http" and not is_this_machine(match[2])):
        yield weakness(key, "use https://")


def weak_brokers(key: str, servers: str, options: Mapping[str, str]) -> Iterator[str]:
    """The weaknesses of brokers of another machine: no TLS, or host names that are not verified (options of Kafka's client)."""
    by_name = {name.lower(): value for name, value in options.items()}
    hosts = (_without_port(server.strip().rpartition("/")[2]) for server in servers.split(","))
    if all(map(is_this_machine, hosts)):
        return
    if by_name.get("kafka.security.protocol", "PLAINTEXT").upper() not in _ENCRYPTED_KAFKA:
        yield weakness(key, "set the option `kafka.security.protocol` to SSL or SASL_SSL")
    if not by_name.get("kafka.ssl.endpoint.identification.algorithm", "https"):
        yield weakness(key, "leave the option `kafka.ssl.endpoint.identification.algorithm` out")


def weak_mongo(key: str, uri: str, *, tls: bool) -> Iterator[str]:
    """The weaknesses of a cluster of another machine: no TLS, or unverified (MongoDB, "Connection String Options")."""
    if not uri.startswith("mongodb://"):
        return  # refused elsewhere
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


def postgres_settings(options: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str] | None:
    """The options that a libpq connection lacks to be encrypted and verified; None if its own options are too weak.

    `options` are those of the connection string, `defaults` those of libpq's environment variables. By default libpq does not
    verify servers (PostgreSQL, "SSL Support").
    """
    both = {**defaults, **options}
    hosts = [host for name in ("host", "hostaddr") for host in str(both.get(name) or "").split(",") if host]
    if all(map(is_this_machine, hosts)) and not both.get("service"):
        return {}
    if "sslmode" in options:
        return {} if options["sslmode"] == _VERIFIED else None
    return {"sslmode": _VERIFIED} | ({} if both.get("sslrootcert") else {"sslrootcert": "system"})


def weak_postgres(key: str, options: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[str]:
    """The weakness of a connection string whose options turn encryption or verification off."""
    if postgres_settings(options, defaults) is None:
        yield weakness(
            key, "say sslmode=verify-full (and sslrootcert=FILE for an authority that the system does not know)"
        )


def weakness(key: str, mend: str) -> str:
    """The sentence on a key and how to mend it, without its value, which may be a secret."""
    return f"`{key}` reaches another machine unencrypted or unverified: {mend}, or set `allow_plaintext: true` on this part"


def _without_port(host: str) -> str:
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
