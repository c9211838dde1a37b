"""The breakers of landing and indexing, with their counts in the checkpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from glue_jobs.runtime import JobContext
from glue_jobs.storage import files
from lake.landing.breaker import Breaker, CountsFile, Example, Watched
from lake.landing.decoding import Tally
from transforms.documents.planning import digest

_DECIDING = {"tables", "sources", "epochs", "embedding", "sinks"}
"""Sections that decide what is a reject: with others, the counts begin anew."""


def breaker_of(context: JobContext, name: str, watched: Watched) -> Breaker:
    """The breaker of a query, or of several that report together; a run that accepts rejects has none of its limits."""
    place = f"{context.checkpoint(name)}/reject_counts.json"
    settings = digest(context.config.model_dump_json(include=_DECIDING))
    limits = None if context.accept_rejects else context.config.rejects
    return Breaker(watched, settings, limits, CountsFile(partial(files.read, place), partial(files.write, place)))


def admit_indexed(
    breaker: Breaker, rejects: Iterable[Mapping[str, Any]], summaries: Iterable[Mapping[str, Any]]
) -> None:
    """Count what workers report of documents; raises StoppedError as `Breaker.admit`."""
    tally = Tally()
    for reject in rejects:
        name = (reject["table"] or "", reject["condition"])
        tally.rejected[name[0]] += 1
        tally.rejected_as[name] += 1
        tally.examples.setdefault(
            name, Example(reject["stream"], reject["partition"], reject["position"], reject["message"])
        )
    for summary in summaries:
        tally.landed.update(summary["changes"])
    tally.landed = Counter({table: max(0, number - tally.rejected[table]) for table, number in tally.landed.items()})
    breaker.admit(time.time_ns(), tally)
