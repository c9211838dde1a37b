"""`ragstream search` and `ragstream ask`: answers as JSON objects, from a pipeline's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import memory
from retrieval.access import EVERYTHING, Scope
from retrieval.conversation.turns import Session
from retrieval.parts import Parts, Pipeline, memory_of
from retrieval.questions import lines_of
from retrieval.ranking.active_index import ActiveIndex
from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from memory import Memory

_MEMORY = "MEMORY_"
"""How the conditions of a memory's errors begin."""


class Query(NamedTuple):
    """One line of a file of queries."""

    query_id: str | None
    text: str


def search(
    config: Pipeline, queries: Sequence[Query], k: int, store: str | None = None, scope: Scope = EVERYTHING
) -> Iterator[dict[str, Any]]:
    """Search for each query in turn, in what the scope's caller may see; yields one JSON object each."""
    with _parts(config, store) as parts:
        for query in queries:
            yield parts.search(query.text, k, scope, store=store, query_id=query.query_id)


def ask(
    config: Pipeline, question: str, session: Session | None = None, store: str | None = None, scope: Scope = EVERYTHING
) -> dict[str, Any]:
    """Answer a question from what the scope's caller may see, in a session of that caller; returns one JSON object."""
    if session is not None:
        memory_of(config)
    with _parts(config, store) as parts, _as_part(_MEMORY):
        return parts.ask(question, scope, session, store=store)


@contextmanager
def remembering(config: Pipeline) -> Iterator[Memory]:
    """The pipeline's memory; one that does not answer is an error of a part, as nothing was written."""
    with _as_part(_MEMORY), memory.opened(memory_of(config)) as opened_memory:
        yield opened_memory


def unmeasured(config: Pipeline) -> Iterator[str]:
    """Notes on stores whose model nobody measured, so that no question is answered from them."""
    if config.embedding is None or config.retrieval.min_similarity is not None:
        return
    for sink in config.sinks:
        index = ActiveIndex(sink, config.embedding)
        try:
            measured = index.searcher().tuning.is_measured
        except (ConfigurationError, UnavailableError):  # reported as a part that is wrong
            continue
        finally:
            index.close()
        if not measured:
            yield (
                f"sink {sink.name}: nobody measured from which similarity on rows answer with {index.model}, so `ask` abstains."
                " Label questions and run `ragstream evaluate CONFIG GOLDEN.jsonl --calibrate`, or set `retrieval.min_similarity`"
            )


def read_queries(path: str) -> list[Query]:
    """Read a JSONL file of objects with `query_id` and `query`; other fields are ignored."""
    return [_query(line, where) for where, line in lines_of(path, "queries", "QUERIES_UNREADABLE")]


def _query(line: str, where: str) -> Query:
    try:
        parsed = json.loads(line)
        query_id = parsed.get("query_id")
        if isinstance(parsed["query"], str):
            return Query(None if query_id is None else str(query_id), parsed["query"])
    except (ValueError, AttributeError, KeyError):
        pass
    raise ConfigurationError(
        f"{where}: no query", condition="QUERIES_INVALID", hint='each line is {"query_id": "…", "query": "…"}'
    )


@contextmanager
def opened(config: Pipeline, store: str | None) -> Iterator[ActiveIndex]:
    """Open a configured store and check it against the model, before the first question."""
    with _parts(config, store) as parts:
        yield parts.index(store)


@contextmanager
def _parts(config: Pipeline, store: str | None) -> Iterator[Parts]:
    """The parts of a pipeline for one question at a time; a store that does not answer is an error of a part."""
    with closing(Parts(config)) as parts:
        with _as_part():
            parts.index(store).searcher().index.check()
        yield parts


@contextmanager
def _as_part(prefix: str = "") -> Iterator[None]:
    """Turn an UnavailableError into a ConfigurationError, the error of a part, where its condition begins with `prefix`."""
    try:
        yield
    except UnavailableError as error:
        if not error.condition.startswith(prefix):
            raise
        raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from None
