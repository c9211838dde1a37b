"""Indexers of a command: they write records to every store as the live job does."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from embeddings import open_embedder
from embeddings.registry import embedder_of
from glue_jobs.operations.ownership import owner_of
from indexing.indexer import Indexer
from sinks import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from transforms.context import DecodeContext


@contextmanager
def indexers(config: PipelineConfig, embedding: EmbeddingConfig) -> Iterator[Callable[[DecodeContext], Indexer]]:
    """Prepare all stores, which are closed at the end; yields a function from a source's context to its indexer.

    Raises:
        PipelineError: a store does not answer, or is another pipeline's.
    """
    embedder = open_embedder(embedding)
    with ExitStack() as stack:
        opened = [open_sink(sink, embedder.fingerprint, embedder.dimensions) for sink in config.sinks]
        sinks = [stack.enter_context(closing(sink)) for sink in opened]
        for sink in sinks:
            sink.prepare(owner_of(config))
        yield partial(
            Indexer, specs=config.document_specs, sinks=sinks, embedder=embedder, texts_at_once=embedder.max_items,
            embedders=partial(embedder_of, own=embedding),
        )  # fmt: skip
