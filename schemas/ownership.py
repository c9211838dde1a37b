"""Whose a store is: one pipeline with one lake writes it, and another is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Owner:
    """A pipeline as a store remembers it."""

    pipeline: str
    """The name in its configuration."""
    lake: str
    """The id of the lake's Delta table `changes`, which a copy or a move of the lake keeps; empty where there is none yet."""

    def refuse_other(self, held: Owner | None, place: str, part: str, instead: str) -> None:
        """Raise ConfigurationError where a store belongs to another pipeline; one that belongs to nobody is free.

        `place` says where the store is, `part` is its name in commands, `instead` what else the configuration could name.
        """
        if held is None or held == self:
            return
        whose = (
            f"pipeline {held.pipeline}" if held.pipeline != self.pipeline else "another lake of this pipeline's name"
        )
        mine = f"lake {self.lake}" if self.lake else "no lake yet"
        raise ConfigurationError(
            f"{place} belongs to {whose} (lake {held.lake}); this is pipeline {self.pipeline} with {mine}",
            condition="OTHER_PIPELINE",
            hint=f"name another {instead}; or, where that pipeline has ended or this lake takes the place of its lake, run "
            f"`ragstream adopt CONFIG {part}` once",
        )


def to_json(owner: Owner) -> str:
    """As JSON, the same text for the same owner."""
    return json.dumps(asdict(owner), sort_keys=True)


def from_json(text: str) -> Owner:
    """What `plain` gave."""
    told = json.loads(text)
    return Owner(told["pipeline"], told["lake"])
