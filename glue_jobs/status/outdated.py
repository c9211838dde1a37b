"""Documents that were made by another document spec (template, chunking, language, metadata) than the configured one."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from embeddings import open_embedder
from embeddings.prices import Price, Usage, price_of
from schemas.errors import UnavailableError
from transforms.documents.planning import DocumentSpec, made_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glue_jobs.config.pipeline import PipelineConfig
    from sinks.protocol import StoreAudit

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outdated:
    """Outdated documents of a store, which a row's next change or `ragstream rebuild` makes anew."""

    documents: int
    of: int
    """All documents of the configured tables."""
    texts: int
    """An upper bound of the texts to embed: the chunks of the outdated documents, if every text changes."""
    usd: float | None
    """The price of that many texts of the greatest length; None for a model without a known price."""

    def sentence(self, config: str, store: str) -> str:
        """A sentence for people, with the command that makes the documents anew."""
        price = "at a price that is not known here" if self.usd is None else f"for about ${self.usd:.4f}"
        return (
            f"{self.documents} of {self.of} documents were made by another template, chunking, language or metadata: `ragstream"
            f" rebuild {config} {store}` makes them anew; where every text changes, it embeds about {self.texts} texts {price};"
            " `--plan` counts them"
        )


def outdated(config: PipelineConfig, sink: StoreAudit) -> Outdated | None:
    """Count a store's outdated documents; None where there are none."""
    return outdated_of(config, sink, sink.documents_by_spec())


def outdated_of(config: PipelineConfig, sink: StoreAudit, counted: Mapping[tuple[str, str], int]) -> Outdated | None:
    """The same from counts of documents by table and spec."""
    specs = specs_of(config)
    if all(table not in specs or made_by(spec) == specs[table].digest for table, spec in counted):
        return None
    summary = sink.summary()
    chunks_a_document = max(1.0, summary.chunks / max(1, summary.documents))
    return of_counts(specs, counted, chunks_a_document, price_of(getattr(config.embedding, "model", "")))


def specs_of(config: PipelineConfig) -> dict[str, DocumentSpec]:
    """The document spec of each table, for the configured model."""
    specs = filter(None, map(DocumentSpec.of, config.tables))
    if config.embedding is None:
        return {spec.table: spec for spec in specs}
    most = open_embedder(config.embedding).max_tokens
    return {spec.table: spec.within(most) for spec in specs}


def chunk_notes(config: PipelineConfig) -> list[str]:
    """A sentence for each table whose `max_tokens` is more than the model takes."""
    configured = {table.table: table.document.chunk.max_tokens for table in config.tables if table.document}
    cut_to = {table: spec.document.chunk.max_tokens for table, spec in specs_of(config).items()}
    return [
        f"table {table}: document.chunk.max_tokens is {configured[table]}, and the embedding model takes {most} tokens "
        f"of a text: chunks are cut to {most}"
        for table, most in cut_to.items()
        if most < configured[table]
    ]


def warn_of_outdated(config: PipelineConfig, sinks: Sequence[StoreAudit]) -> None:
    """Log the outdated documents of stores: a job makes anew only documents whose row changes."""
    for note in chunk_notes(config):
        _LOG.warning("chunks are longer than the model takes", extra={"context": {"note": note}})
    for sink in sinks:
        with contextlib.suppress(UnavailableError):  # `status` reports it once the store answers
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
    price: Price | None,
) -> Outdated:
    """Add up the documents of each table; tables that no longer make documents do not count."""
    total = documents = tokens = texts = 0
    for (table, digest), number in counted.items():
        if (spec := specs.get(table)) is None:
            continue
        total += number
        if made_by(digest) != spec.digest:
            chunks = math.ceil(number * chunks_a_document)
            documents, texts, tokens = (
                documents + number,
                texts + chunks,
                tokens + chunks * spec.document.chunk.max_tokens,
            )
    return Outdated(documents, total, texts, None if price is None else round(price.of(Usage(tokens), 0), 6))
