"""libpq's connection strings and environment variables, as far as encryption depends on them. Pure.

Source: PostgreSQL, "Connection Strings" and "Environment Variables", and `conninfo_uri_parse_options` and `conninfo_parse` of
libpq's fe-connect.c. A string that cannot be parsed here counts as another machine, so it needs encryption.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlencode

_URI = re.compile(r"postgres(?:ql)?://")
_USER = re.compile(r"[^@/]*@")
_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:@]*))(?::[^\[\]:@]*)?")
_PAIR = re.compile(
    r"\s*([^\s=]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\']|\\.)(?:[^\s\\]|\\.)*)?)", re.ASCII | re.DOTALL
)
_UNREADABLE = {"host": "?"}
_VARIABLES = ("host", "hostaddr", "service", "sslrootcert")


def options_of(dsn: str) -> dict[str, str]:
    """The options that a connection string sets."""
    uri = _URI.match(dsn)
    return _of_uri(dsn[uri.end() :]) if uri else _of_pairs(dsn)


def environment() -> dict[str, str]:
    """The options that libpq reads from its environment variables."""
    variables = {name: os.environ.get(f"PG{name.upper()}") for name in _VARIABLES}  # noqa: TID251 - libpq reads them in any case
    return {name: value for name, value in variables.items() if value}


def with_options(dsn: str, options: Mapping[str, str]) -> str:
    """The connection string with further options."""
    if not options:
        return dsn
    if _URI.match(dsn):
        return f"{dsn}{'&' if '?' in dsn else '?'}{urlencode(options)}"
    return " ".join([dsn, *(f"{name}={value}" for name, value in options.items())])


def _of_uri(rest: str) -> dict[str, str]:
    user = _USER.match(rest)
    place = rest[user.end() :] if user else rest
    hosts = [_HOST.fullmatch(host) for host in re.split(r"[/?]", place, maxsplit=1)[0].split(",")]
    if None in hosts or re.search(r"\s", rest):
        return _UNREADABLE
    named = ",".join(unquote(host[1] or host[2] or "") for host in hosts if host)
    return ({"host": named} if named else {}) | dict(parse_qsl(place.partition("?")[2], keep_blank_values=True))


def _of_pairs(dsn: str) -> dict[str, str]:
    options: dict[str, str] = {}
    at, end = 0, len(dsn.rstrip(" \t\n\r\f\v"))
    while at < end:
        pair = _PAIR.match(dsn, at)
        if pair is None:
            return _UNREADABLE
        options[pair[1]] = re.sub(r"\\(.)", r"\1", pair[2] if pair[2] is not None else pair[3] or "", flags=re.DOTALL)
        at = pair.end()
    return options
