"""Names of users and sessions, and the digests by which stores know them.

A digest has one length and no special characters, so that no name can be a separator, a pattern or a hash tag; and no request
to a store, nor a log of requests, shows a name in its key.
"""

from __future__ import annotations

import hashlib

from memory.protocol import Place
from schemas.errors import ConfigurationError

MOST_CHARACTERS = 256
"""Of a name. A subject of OpenID Connect has at most 255 (OpenID Connect Core 1.0, section 2)."""
ANYONE = "anyone"
"""The owner of conversations of callers without a user: no digest, so nobody's."""


def owner_of(user: str | None) -> str:
    """The digest of a user; `ANYONE` for a caller without one."""
    return ANYONE if user is None else _digest("user", named("user", user))


def place_of(user: str | None, session: str) -> Place:
    """Where a user's session is."""
    return Place(owner_of(user), _digest("session", named("session", session)))


def turn_id_of(turn_id: str) -> str:
    """The digest of a turn id."""
    return _digest("turn", named("turn id", turn_id))


def named(kind: str, name: str) -> str:
    """The name, if it can be one; raises ConfigurationError, which does not quote it."""
    if 0 < len(name) <= MOST_CHARACTERS and name.isprintable() and not name.isspace():
        return name
    raise ConfigurationError(
        f"the {kind} is no usable name",
        condition="NAME_INVALID",
        hint=f"a {kind} has 1 to {MOST_CHARACTERS} printable characters",
    )


def _digest(kind: str, name: str) -> str:
    return hashlib.sha256(f"{kind}\0{name}".encode()).hexdigest()[:32]
