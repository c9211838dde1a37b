"""The parts of a pipeline that answer questions, opened on first use: stores, warehouse, memory and models, for many threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import memory
from generation import open_generator
from retrieval import EXTRACTIVE, ExtractiveConfig
from retrieval.access import EVERYTHING, Access, Scope
from retrieval.answering.ask import Answer, Assistant
from retrieval.answering.drafts import Answerer
from retrieval.answering.events import AnswerEvents, Started
from retrieval.answering.extractive import ExtractiveAnswerer
from retrieval.answering.generative import GenerativeAnswerer
from retrieval.conversation.rewriting import GenerativeRewriter
from retrieval.conversation.turns import Conversation, ExtractiveRewriter, Rewriter, Session
from retrieval.facts.relevant import Facts
from retrieval.ranking.active_index import ActiveIndex
from retrieval.ranking.search import Searcher, freshness_answer, search_answer
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from embeddings import EmbeddingConfig
    from memory import Memory, MemoryConfig
    from reranking import RerankingConfig
    from retrieval import AccessConfig, GenerationConfig, RetrievalConfig
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


class Parts:
    """What questions are answered with. Thread-safe, but for `close`.

    Stores and the warehouse have at most so many connections each, and a question waits for one a bounded time; models and the
    memory have clients for many threads. A connection is closed after an error, and the next question opens another.
    """

    def __init__(self, config: Pipeline, connections: int = 1) -> None:
        """Connects on first use; raises ConfigurationError for a pipeline without a vector store."""
        if config.embedding is None or not config.sinks:
            raise ConfigurationError(
                "this pipeline fills no vector store, so there is nothing to search",
                condition="NO_STORE",
                hint="give the configuration an `embedding` and a sink",
            )
        self.config = config
        self.access = Access(config.access, config.tables)
        self._connections = connections
        self._indexes = {
            sink.name: ActiveIndex(
                sink, config.embedding, config.retrieval.min_similarity, config.reranking, connections
            )
            for sink in config.sinks
        }
        self._opening = threading.Lock()
        self._closing = ExitStack()
        self._memory: Memory | None = None
        self._fact_reader: FactReader | None = None

    def index(self, store: str | None = None) -> ActiveIndex:
        """The store of that name; the first one without a name."""
        name = self.config.sinks[0].name if store is None else store
        if name not in self._indexes:
            raise ConfigurationError(
                f"--store {name}: this pipeline fills no store of that name",
                condition="NO_STORE",
                hint=f"its stores: {', '.join(self._indexes)}",
            )
        return self._indexes[name]

    def search(
        self, text: str, k: int, scope: Scope = EVERYTHING, *, store: str | None = None, query_id: str | None = None
    ) -> dict[str, Any]:
        """The JSON object of `ragstream search`: what is found in what the scope's caller may see."""
        allowed = self.allowed(scope)
        return search_answer(query_id, self.index(store).search(text, k, allowed))

    def ask(
        self,
        question: str,
        scope: Scope = EVERYTHING,
        session: Session | None = None,
        *,
        store: str | None = None,
        events: AnswerEvents | None = None,
    ) -> dict[str, Any]:
        """The JSON object of `ragstream ask`: an answer from what the scope's caller may see, in a session of that caller."""
        events = events or AnswerEvents()
        asking = _Asking(self, self.index(store), scope, events)
        if session is None:
            events.send(Started(question))
            reply = asking.answer(question).as_json()
        else:
            memory_parts = self.memory()
            conversation = Conversation(memory_parts.conversations, memory_parts.profiles, self._rewriter())
            reply = conversation.ask(question, session, scope.caller, asking, events)
        events.send_answer(reply)
        return reply

    def freshness(self, store: str | None = None) -> dict[str, Any]:
        """The freshness of a store, as answers have it."""
        return freshness_answer(self.index(store).run(lambda searcher: searcher.index.freshness()))

    def allowed(self, scope: Scope) -> Filters:
        """The filters of a scope, with what its caller may see."""
        return self.access.applied(self.access.filters(scope), scope.caller)

    def memory(self) -> Memory:
        """The memory; raises ConfigurationError for a pipeline without one."""
        config = memory_of(self.config)
        with self._opening:
            if self._memory is None:
                self._memory = self._closing.enter_context(memory.opened(config))
            return self._memory

    def facts(self, searcher: Searcher) -> Facts | None:
        """The pipeline's facts for questions of an index; None without any."""
        if self.config.facts is None or self.config.warehouse is None:
            return None
        from warehouse.facts.reader import FactReader

        with self._opening:
            if self._fact_reader is None:
                self._fact_reader = FactReader(
                    self.config.facts, self.config.warehouse, self.config.tables, self._connections
                )
                self._closing.callback(self._fact_reader.close)
            return Facts(self._fact_reader, searcher.index, searcher.embedder, searcher.tuning)

    def close(self) -> None:
        """Close every connection."""
        for index in self._indexes.values():
            index.close()
        with self._opening:
            self._closing.close()
            self._memory = self._fact_reader = None

    def _rewriter(self) -> Rewriter:
        generation, memory_config = self.config.generation or EXTRACTIVE, self.config.memory
        if isinstance(generation, ExtractiveConfig) or memory_config is None:
            return ExtractiveRewriter()
        return GenerativeRewriter(open_generator(generation), memory_config.history_tokens, memory_config.profile)


class _Asking:
    """Answers a caller's questions from one store (`retrieval.conversation.turns.Answers`)."""

    def __init__(self, parts: Parts, index: ActiveIndex, scope: Scope, events: AnswerEvents) -> None:
        self._parts, self._index, self._caller, self._events = parts, index, scope.caller, events
        self._filters = parts.access.filters(scope)

    def answer(self, question: str) -> Answer:
        return self._index.run(partial(self._answered, question))

    def are_live(self, chunk_ids: Sequence[str]) -> bool:
        allowed = self._parts.access.applied(self._filters, self._caller)
        return self._index.run(lambda searcher: searcher.index.live(chunk_ids, allowed) == set(chunk_ids))

    def _answered(self, question: str, searcher: Searcher) -> Answer:
        parts = self._parts
        chosen = answerer(parts.config, searcher, self._index.model)
        assistant = Assistant(searcher, chosen, parts.access, parts.facts(searcher))
        return assistant.ask(question, self._filters, self._caller, self._events)


def memory_of(config: Pipeline) -> MemoryConfig:
    """The memory of a pipeline; raises ConfigurationError without one."""
    if config.memory is None:
        raise ConfigurationError(
            "this pipeline keeps no memory of conversations",
            condition="NO_MEMORY",
            hint="give the configuration a `memory`, or ask without --session: each question is answered on its own",
        )
    return config.memory


def answerer(config: Pipeline, searcher: Searcher, model: str) -> Answerer:
    """Who answers, by the configuration."""
    generation = config.generation or EXTRACTIVE
    if isinstance(generation, ExtractiveConfig):
        return ExtractiveAnswerer(searcher.index, searcher.embedder, model, generation.sentences)
    return GenerativeAnswerer(open_generator(generation), generation.unsupported)
