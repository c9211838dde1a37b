"""What `check` says of facts that are left out of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from generation import Message
from generation.errors import GenerationRejectedError, GenerationUnavailableError
from retrieval.access import Access
from retrieval.facts.calls import tool_of
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from generation import Generator
    from retrieval.parts import Pipeline
    from warehouse.facts.config import FactsConfig


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


def check_tools(generator: Generator, facts: FactsConfig) -> None:
    """Offer the text model a tool where facts have parameters of its own; raises ConfigurationError where it refuses them.

    One that does not answer is reported by its own check.
    """
    tools = [tool_of(fact) for fact in facts.queries if fact.asked][:1]
    if not tools:
        return
    try:
        with generator.stream([Message("user", "Hello")], max_tokens=1, tools=tools) as stream:
            _ = stream.answer
    except GenerationUnavailableError:
        return
    except GenerationRejectedError:
        raise ConfigurationError(
            f"facts: the text model {generator.model!r} takes no tools, so nobody fills in `model` parameters",
            condition="MODEL_TAKES_NO_TOOLS",
            hint="name a model that can use tools while it streams, or take the values from cited rows or claims",
        ) from None
