"""The breaker of a source's landing, with its counts in the query's checkpoint."""

from __future__ import annotations

from functools import partial

from glue_jobs.runtime import JobContext
from glue_jobs.storage import files
from lake.landing.breaker import Breaker, Kept
from transforms.documents.planning import digest


def breaker_of(context: JobContext, source: str) -> Breaker:
    """The breaker; a run that accepts rejects has none of its limits. Other tables, sources or epochs begin its counts anew."""
    place = f"{context.checkpoint(f'land_{source}')}/reject_counts.json"
    settings = digest(context.config.model_dump_json(include={"tables", "sources", "epochs"}))
    limits = None if context.accept_rejects else context.config.rejects
    return Breaker(source, settings, limits, Kept(partial(files.read, place), partial(files.write, place)))
