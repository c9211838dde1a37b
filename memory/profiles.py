"""Profiles: declared fields of a user, typed, validated, and written by compare-and-set."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from memory import keys
from memory.config import MemorySettings, ProfileField
from memory.protocol import MemoryStore
from schemas.errors import ConfigurationError, UnavailableError

type Value = str | int | float | bool
"""The value of a field."""

_LARGEST = 2**53
"""Of numbers: every JSON reader takes those up to here exactly (RFC 8259, section 6)."""
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Profile:
    """What is kept of a user."""

    version: int
    """0 if nothing was ever kept."""
    values: Mapping[str, Value]


class Profiles:
    """The profiles of one memory. Every method raises the store's errors."""

    def __init__(self, store: MemoryStore, settings: MemorySettings) -> None:
        self._store = store
        self._fields = settings.profile

    def of(self, user: str) -> Profile:
        """The profile of a user; values that the configuration no longer declares, or refuses, are left out."""
        stored = self._store.profile(keys.owner_of(user))
        if stored is None:
            return Profile(0, {})
        values: dict[str, Value] = json.loads(stored.body)
        return Profile(
            stored.version, {name: value for name, value in values.items() if self._fault(name, value) is None}
        )

    def put(self, user: str, values: Mapping[str, object], version: int) -> Profile:
        """Replace the profile of a user; `version` is the one that the new values were made from, 0 for none.

        Raises:
            ConfigurationError: a field is not declared, or its value is not of its type or bounds; nothing was written.
            UnavailableError: the profile has another version now.
        """
        faults = [fault for name, value in sorted(values.items()) if (fault := self._fault(name, value))]
        if faults:
            raise ConfigurationError(
                f"profile: {'; '.join(faults)}",
                condition="PROFILE_INVALID",
                hint="memory.profile declares the fields and their bounds",
            )
        body = json.dumps(dict(values), ensure_ascii=False, sort_keys=True)
        if not self._store.put_profile(keys.owner_of(user), body, version):
            raise UnavailableError(
                f"profile: it is not of version {version} any more; nothing was written",
                condition="PROFILE_CHANGED",
                hint="read it again, and write with its version",
            )
        return Profile(version + 1, {name: self._typed(value) for name, value in values.items()})

    def parsed(self, name: str, text: str) -> Value:
        """The value that a text of a command line means in a field; a text that means none is refused by `put`."""
        kind = self._fields[name].type if name in self._fields else "text"
        try:
            match kind:
                case "integer":
                    return int(text)
                case "number":
                    return float(text)
                case "boolean":
                    return _TRUTHS[text]
                case _:
                    return text
        except (ValueError, KeyError):
            return text

    @staticmethod
    def _typed(value: object) -> Value:
        assert isinstance(value, str | int | float)  # noqa: S101 - `_fault` looked
        return value

    def _fault(self, name: str, value: object) -> str | None:
        """What is wrong with a value, without the value."""
        field = self._fields.get(name)
        if field is None:
            return f"there is no field {name!r}" if name.isidentifier() else "there is no such field"
        return _fault(name, field, value)


def _fault(name: str, field: ProfileField, value: object) -> str | None:
    match field.type:
        case "text":
            return _text_fault(name, field, value)
        case "boolean":
            return None if isinstance(value, bool) else f"{name} is true or false"
        case "integer" | "number":
            return _number_fault(name, field, value)


def _text_fault(name: str, field: ProfileField, value: object) -> str | None:
    if not isinstance(value, str):
        return f"{name} is a text"
    if field.choices and value not in field.choices:
        return f"{name} is one of {', '.join(field.choices)}"
    if len(value) > field.max_length:
        return f"{name} has at most {field.max_length} characters"
    return None if all(c.isprintable() or c in "\n\t" for c in value) else f"{name} has no control characters"


def _number_fault(name: str, field: ProfileField, value: object) -> str | None:
    whole = field.type == "integer"
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or abs(value) > _LARGEST:
        return f"{name} is a whole number" if whole else f"{name} is a number"
    if field.minimum is not None and value < field.minimum:
        return f"{name} is at least {field.minimum:g}"
    return f"{name} is at most {field.maximum:g}" if field.maximum is not None and value > field.maximum else None
