"""The owner of a store: one pipeline with one lake writes it, and others are refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Owner:
    """A pipeline, as it is stored in its stores."""

    pipeline: str
    """The name in its configuration."""
    lake: str
    """The id of the lake's Delta table `changes`, which a copy or a move keeps; empty before the table exists."""

    def refuse_other(self, stored: Owner | None, place: str, part: str, instead: str) -> None:
        """Raise ConfigurationError if the stored owner is another pipeline.

        `place` says where the store is, `part` is its name in commands, `instead` what else the configuration could name.
        """
        if stored is None or stored == self:
            return
        other = "another lake of this pipeline's name"
        if stored.pipeline != self.pipeline:
            other = f"pipeline {stored.pipeline}"
        lake = f"lake {self.lake}" if self.lake else "no lake yet"
        raise ConfigurationError(
            f"{place} belongs to {other} (lake {stored.lake}); this is pipeline {self.pipeline} with {lake}",
            condition="OTHER_PIPELINE",
            hint=f"name another {instead}; or, where that pipeline has ended or this lake takes the place of its lake, run "
            f"`ragstream adopt CONFIG {part}` once",
        )


def to_json(owner: Owner) -> str:
    """The stored JSON text; equal owners have equal texts, so that it can be compared and set."""
    return json.dumps(asdict(owner), sort_keys=True)


def from_json(text: str) -> Owner:
    """The inverse of `to_json`."""
    return Owner(**json.loads(text))
