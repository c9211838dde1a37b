"""The parts of a pipeline's configuration that searches, answers and evaluations read."""

from __future__ import annotations

from dataclasses import dataclass, field

from embeddings import EmbeddingConfig
from memory import MemoryConfig
from reranking import RerankingConfig
from retrieval import AccessConfig, GenerationConfig, RetrievalConfig
from schemas.tables import TableConfig
from sinks import SinkConfig
from warehouse.config import RedshiftConfig
from warehouse.facts.config import FactsConfig


@dataclass(frozen=True)
class Pipeline:
    """See `retrieval.parts.Pipeline`."""

    embedding: EmbeddingConfig
    sinks: tuple[SinkConfig, ...]
    generation: GenerationConfig | None
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    tables: tuple[TableConfig, ...] = ()
    access: AccessConfig | None = None
    reranking: RerankingConfig | None = None
    memory: MemoryConfig | None = None
    warehouse: RedshiftConfig | None = None
    facts: FactsConfig | None = None
