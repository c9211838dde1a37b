"""`ragstream search` and `ragstream ask`: answers as JSON objects, from a pipeline's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import memory
from generation import open_generator
from memory import Memory
from retrieval import EXTRACTIVE, ExtractiveConfig
from retrieval.access import EVERYTHING, Access, Scope
from retrieval.ask import Answer, Assistant
from retrieval.conversation import Conversation, ExtractiveRewriter, Rewriter
from retrieval.drafts import Answerer
from retrieval.extractive import ExtractiveAnswerer
from retrieval.facts import Facts
from retrieval.generative import GenerativeAnswerer
from retrieval.questions import lines_of
from retrieval.rewriting import GenerativeRewriter
from retrieval.search import search_answer
from retrieval.serving import ActiveIndex
from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embeddings import EmbeddingConfig
    from memory import MemoryConfig
    from reranking import RerankingConfig
    from retrieval import AccessConfig, GenerationConfig, RetrievalConfig
    from retrieval.search import Searcher, SearchResult
    from schemas.tables import TableConfig
    from sinks import SinkConfig
    from sinks.search import Filters
    from warehouse.config import RedshiftConfig
    from warehouse.facts.config import FactsConfig
    from warehouse.facts.reader import FactReader


class Pipeline(Protocol):
    """The parts of a pipeline's configuration that search and answers need."""

    @property
    def embedding(self) -> EmbeddingConfig | None:
        """The model that filled the stores."""

    @property
    def sinks(self) -> Sequence[SinkConfig]:
        """The stores; the first one is searched unless another is named."""

    @property
    def tables(self) -> Sequence[TableConfig]:
        """The tables, whose metadata can be filtered."""

    @property
    def access(self) -> AccessConfig | None:
        """The rules of access."""

    @property
    def retrieval(self) -> RetrievalConfig:
        """The thresholds of answers."""

    @property
    def reranking(self) -> RerankingConfig | None:
        """The reranker of the hits."""

    @property
    def warehouse(self) -> RedshiftConfig | None:
        """The warehouse that facts are read from."""

    @property
    def facts(self) -> FactsConfig | None:
        """The facts of answers."""

    @property
    def generation(self) -> GenerationConfig | None:
        """The answerer."""

    @property
    def memory(self) -> MemoryConfig | None:
        """The memory of conversations."""


class Query(NamedTuple):
    """One line of a file of queries."""

    query_id: str | None
    text: str


def search(
    config: Pipeline, queries: Sequence[Query], k: int, store: str | None = None, scope: Scope = EVERYTHING
) -> Iterator[dict[str, Any]]:
    """Search for each query in turn, in what the scope's caller may see; yields one JSON object each."""
    access = Access(config.access, config.tables)
    allowed = access.applied(access.filters(scope), scope.caller)
    with opened(config, store) as index:
        for query in queries:
            yield search_answer(query.query_id, index.run(partial(_search, query.text, k, allowed)))


class Session(NamedTuple):
    """The conversation that a question belongs to."""

    name: str
    turn_id: str | None = None
    """The caller's own name of the turn: the same one gives the same turn."""


def ask(
    config: Pipeline, question: str, session: Session | None = None, store: str | None = None, scope: Scope = EVERYTHING
) -> dict[str, Any]:
    """Answer a question from what the scope's caller may see, in a session of that caller; returns one JSON object."""
    if session is not None:
        _memory_of(config)
    access = Access(config.access, config.tables)
    filters = access.filters(scope)
    with opened(config, store) as index, _fact_reader(config) as reader:

        def asked(text: str, searcher: Searcher) -> Answer:
            facts = None if reader is None else Facts(reader, searcher.index, searcher.embedder, searcher.tuning)
            assistant = Assistant(searcher, answerer(config, searcher, index.model), access, facts)
            return assistant.ask(text, filters, scope.caller)

        def answer(text: str) -> Answer:
            return index.run(partial(asked, text))

        if session is None:
            return answer(question).as_json()
        with remembering(config) as kept:
            conversation = Conversation(kept.conversations, kept.profiles, _rewriter(config))
            return conversation.ask(question, session.name, scope.caller, answer, turn_id=session.turn_id)


@contextmanager
def remembering(config: Pipeline) -> Iterator[Memory]:
    """The pipeline's memory; that it is away is an error of a part, as nothing was written."""
    try:
        with memory.opened(_memory_of(config)) as opened_memory:
            yield opened_memory
    except UnavailableError as error:
        if not error.condition.startswith("MEMORY_"):
            raise
        raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from None


def _memory_of(config: Pipeline) -> MemoryConfig:
    if config.memory is None:
        raise ConfigurationError(
            "this pipeline keeps no memory of conversations",
            condition="NO_MEMORY",
            hint="give the configuration a `memory`, or ask without --session: each question is answered on its own",
        )
    return config.memory


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
def _fact_reader(config: Pipeline) -> Iterator[FactReader | None]:
    """The reader of the pipeline's facts, which connects when one is read; None without any."""
    if config.facts is None or config.warehouse is None:
        yield None
        return
    from warehouse.facts.reader import FactReader

    with closing(FactReader(config.facts, config.warehouse, config.tables)) as reader:
        yield reader


@contextmanager
def opened(config: Pipeline, store: str | None) -> Iterator[ActiveIndex]:
    """Open a configured store and check it against the model, before the first question."""
    if config.embedding is None or not config.sinks:
        raise ConfigurationError(
            "this pipeline fills no vector store, so there is nothing to search",
            condition="NO_STORE",
            hint="give the configuration an `embedding` and a sink",
        )
    index = ActiveIndex(_store(config, store), config.embedding, config.retrieval.min_similarity, config.reranking)
    try:
        try:
            index.searcher().index.check()
        except UnavailableError as error:
            raise ConfigurationError(error.message, condition=error.condition, hint=error.hint) from None
        yield index
    finally:
        index.close()


def _store(config: Pipeline, name: str | None) -> SinkConfig:
    """The store of that name; the first one without a name."""
    names = [sink.name for sink in config.sinks]
    if name is None:
        return config.sinks[0]
    if name not in names:
        raise ConfigurationError(
            f"--store {name}: this pipeline fills no store of that name",
            condition="NO_STORE",
            hint=f"its stores: {', '.join(names)}",
        )
    return config.sinks[names.index(name)]


def _search(text: str, k: int, allowed: Filters, searcher: Searcher) -> SearchResult:
    return searcher.search(text, k, allowed)


def answerer(config: Pipeline, searcher: Searcher, model: str) -> Answerer:
    """Who answers, by the configuration."""
    generation = config.generation or EXTRACTIVE
    if isinstance(generation, ExtractiveConfig):
        return ExtractiveAnswerer(searcher.index, searcher.embedder, model, generation.sentences)
    return GenerativeAnswerer(open_generator(generation), generation.unsupported)


def _rewriter(config: Pipeline) -> Rewriter:
    generation = config.generation or EXTRACTIVE
    if isinstance(generation, ExtractiveConfig) or config.memory is None:
        return ExtractiveRewriter()
    return GenerativeRewriter(open_generator(generation), config.memory.history_tokens, config.memory.profile)
