"""Documents that were made by another template, chunking or metadata than the configuration has now."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from embeddings import open_embedder
from glue_jobs.operations.prices import price_of
from schemas.errors import UnavailableError
from transforms.documents.planning import DocumentSpec, made_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glue_jobs.config.pipeline import PipelineConfig
    from sinks.protocol import StoreAudit

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outdated:
    """What a store holds that the next change of a row, or `ragstream rebuild`, makes anew."""

    documents: int
    of: int
    """Documents of the tables that make them now."""
    texts: int
    """About as many as are embedded where every text changes: as many chunks a document as now. Other texts cost nothing."""
    usd: float | None
    """For that many texts of the greatest length; None for a model whose price is not known here."""

    def sentence(self, config: str, store: str) -> str:
        """Say it to a person, with the command that brings the documents over."""
        price = "at a price that is not known here" if self.usd is None else f"for about ${self.usd:.4f}"
        return (
            f"{self.documents} of {self.of} documents were made by another template, chunking or metadata: `ragstream rebuild"
            f" {config} {store}` makes them anew; where every text changes, it embeds about {self.texts} texts {price}"
        )


def outdated(config: PipelineConfig, sink: StoreAudit) -> Outdated | None:
    """Count them in a store; None where every document is as the configuration wants it."""
    return outdated_of(config, sink, sink.documents_by_spec())


def outdated_of(config: PipelineConfig, sink: StoreAudit, counted: Mapping[tuple[str, str], int]) -> Outdated | None:
    """The same of documents that were counted by their specs."""
    specs = specs_of(config)
    if all(table not in specs or made_by(spec) == specs[table].fingerprint for table, spec in counted):
        return None
    summary = sink.summary()
    chunks_a_document = max(1.0, summary.chunks / max(1, summary.documents))
    return of_counts(specs, counted, chunks_a_document, price_of(getattr(config.embedding, "model", "")))


def specs_of(config: PipelineConfig) -> dict[str, DocumentSpec]:
    """How the rows of each table become documents, for the model that the configuration names."""
    specs = filter(None, map(DocumentSpec.of, config.tables))
    if config.embedding is None:
        return {spec.table: spec for spec in specs}
    most = open_embedder(config.embedding).max_tokens
    return {spec.table: spec.within(most) for spec in specs}


def cut_notes(config: PipelineConfig) -> list[str]:
    """Say of each table whose chunks are longer than the model takes that they are cut to that."""
    configured = {table.table: table.document.chunk.max_tokens for table in config.tables if table.document}
    cut_to = {table: spec.document.chunk.max_tokens for table, spec in specs_of(config).items()}
    return [
        f"table {table}: document.chunk.max_tokens is {configured[table]}, and the embedding model takes {most} tokens "
        f"of a text: chunks are cut to {most}"
        for table, most in cut_to.items()
        if most < configured[table]
    ]


def warn_of_outdated(config: PipelineConfig, sinks: Sequence[StoreAudit]) -> None:
    """Log what stores hold of another template, chunking or metadata: a job makes anew only what changes."""
    for note in cut_notes(config):
        _LOG.warning("chunks are longer than the model takes", extra={"context": {"note": note}})
    for sink in sinks:
        with contextlib.suppress(UnavailableError):  # it is away; `status` says it when it is back
            if outdated_documents := outdated(config, sink):
                context = {
                    "store": sink.name,
                    **asdict(outdated_documents),
                    "command": f"ragstream rebuild CONFIG {sink.name}",
                }
                _LOG.warning("documents were made by another template", extra={"context": context})


def of_counts(
    specs: Mapping[str, DocumentSpec],
    counted: Mapping[tuple[str, str], int],
    chunks_a_document: float,
    price: float | None,
) -> Outdated:
    """Add up the documents of each table; those of a table that makes none any more do not count."""
    total = documents = tokens = texts = 0
    for (table, fingerprint), number in counted.items():
        if (spec := specs.get(table)) is None:
            continue
        total += number
        if made_by(fingerprint) != spec.fingerprint:
            chunks = math.ceil(number * chunks_a_document)
            documents, texts, tokens = (
                documents + number,
                texts + chunks,
                tokens + chunks * spec.document.chunk.max_tokens,
            )
    return Outdated(documents, total, texts, None if price is None else round(tokens / 1000 * price, 6))
