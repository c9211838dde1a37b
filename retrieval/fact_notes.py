"""What `check` says of facts that are left out of answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from retrieval.access import Access

if TYPE_CHECKING:
    from retrieval.commands import Pipeline


def left_out(config: Pipeline) -> Iterator[str]:
    """Notes on rules of access that the warehouse cannot be asked for."""
    if config.facts is None or all(fact.public for fact in config.facts.queries):
        return
    for rule in Access(config.access, config.tables).unreachable():
        yield (
            f"access: {rule} is a member that Redshift reads as another one, since it lower-cases the names in a path."
            " Facts of this table are left out of every answer unless they are `public`. Restrict by a member in lower-case"
            " letters or by a column"
        )
