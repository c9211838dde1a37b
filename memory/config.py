"""The configuration that memories share: how long things are kept, what a turn may take, a profile's fields. Needs no client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.durations import Duration
from schemas.model import StrictModel

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_BOUNDS = {
    "text": {"choices", "max_length"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
}
_DEFAULT_LENGTH = 200


class ProfileField(StrictModel):
    """One field of a user's profile."""

    type: Literal["text", "integer", "number", "boolean"]
    """The type of its value."""
    description: str = ""
    """What it says of a user; a text model that words questions reads it."""
    choices: tuple[str, ...] = ()
    """The only values of a text, where there are only some."""
    max_length: int = Field(default=_DEFAULT_LENGTH, ge=1, le=4000)
    """Characters of a text at most."""
    minimum: float | None = None
    """The least number."""
    maximum: float | None = None
    """The greatest number."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        foreign = self.model_fields_set - {"type", "description"} - _BOUNDS[self.type]
        if foreign:
            raise ValueError(f"{', '.join(sorted(foreign))}: no bound of a field of type {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is not greater than maximum")
        return self


class MemorySettings(StrictModel):
    """What is kept of conversations and users, whichever store keeps it."""

    ttl: Duration = 30 * 24 * 3600.0
    """How long a message is kept; what is older is never shown, though a store may delete it later. Profiles stay."""
    turn_timeout: Duration = 60.0
    """How long a turn keeps its session. After that, as when its process was killed, the next question takes the session
    over."""
    busy_timeout: Duration = 10.0
    """How long a question waits for the turn before it, before it is refused as `SESSION_BUSY`."""
    history_tokens: int = Field(default=1000, ge=50, le=100_000)
    """Estimated tokens of earlier turns that a follow-up is understood from; older ones are summarised by a text model, else
    dropped."""
    profile: Mapping[str, ProfileField] = Field(default_factory=dict)
    """The fields of a user's profile, by name; without any, no profile is kept."""
    timeout_seconds: float = Field(default=5.0, gt=0)
    """Of one request to the store."""

    @model_validator(mode="after")
    def _fields_are_named(self) -> Self:
        for name in self.profile:
            if not _NAME.fullmatch(name):
                raise ValueError(f"profile.{name}: a name is small letters, digits and _, at most 40")
        return self
