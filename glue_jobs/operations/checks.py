"""`check()` of every part at once, before anything is written."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

from embeddings import Embedder, open_embedder
from generation import open_generator
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.continuous.backfills import Backfills
from glue_jobs.operations import capture_checks
from glue_jobs.operations.ownership import owner_of
from glue_jobs.runtime.extras import not_installed
from glue_jobs.storage import lake_mark, s3_check
from lake.identity import lake_id
from memory import MemoryConfig, open_store
from reranking import open_reranker
from retrieval import ExtractiveConfig
from retrieval.access import Access
from schemas.errors import ConfigurationError, PipelineError, UnavailableError
from schemas.ownership import Owner
from service.config import ServeConfig
from sinks import SinkConfig, open_sink
from sources import check as check_source

type Check = Callable[[], object]

NEEDS = {
    "land": ("source", "lake"), "merge": ("lake",), "index": ("source", "lake", "embedding", "sink"),
    "load": ("lake", "warehouse"),
}  # fmt: skip
"""The parts that each job writes to or reads from."""


def parts(config: PipelineConfig, jobs: Iterable[str] | None = None) -> dict[str, Check]:
    """The checks of the parts that these jobs need, by display name; all parts when no jobs are named."""
    kinds = {kind for job in jobs for kind in NEEDS[job]} if jobs is not None else None
    part_checks: dict[str, Check] = {}
    for source in config.sources:
        part_checks[f"source {source.name}"] = partial(check_source, source)
    part_checks["lake"] = partial(_lake, config)
    part_checks["checkpoint"] = partial(check_writable, config.checkpoint, "checkpoint")
    owner = cache(partial(_owner, config))
    if config.embedding is not None:
        embedder = open_embedder(config.embedding)
        part_checks["embedding"] = embedder.check
        # Of several stores that were filled before, one outage must not keep a driver from starting; preparing them
        # raises when all are down.
        existing = Backfills(config.checkpoint).known() if jobs is not None and len(config.sinks) > 1 else ()
        for sink in config.sinks:
            check = partial(_sink, sink, embedder, owner)
            part_checks[f"sink {sink.name}"] = partial(_tolerating_outage, check) if sink.name in existing else check
    for capture in config.capture:
        part_checks[f"capture {config.source(capture.source).name}"] = partial(capture_checks.check, config, capture)
    if config.warehouse is not None:
        part_checks["warehouse"] = partial(_warehouse, config, owner)
    part_checks |= _assistant_parts(config)
    return {
        name: check for name, check in part_checks.items() if kinds is None or name.split()[0] in {*kinds, "checkpoint"}
    }


def _assistant_parts(config: PipelineConfig) -> dict[str, Check]:
    """The checks of the parts that searches and answers need, which no job does."""
    part_checks: dict[str, Check] = {}
    if config.access is not None:
        part_checks["access"] = partial(_access, config)
    if config.reranking is not None:
        part_checks["reranking"] = open_reranker(config.reranking).check
    if config.facts is not None:
        part_checks["facts"] = partial(_facts, config)
    if config.generation is not None and not isinstance(config.generation, ExtractiveConfig):
        part_checks["generation"] = open_generator(config.generation).check
    if config.memory is not None:
        part_checks["memory"] = partial(_memory, config.memory)
    if config.serve is not None:
        part_checks["serve"] = partial(_serve, config.serve)
    return part_checks


def run(checks: dict[str, Check]) -> dict[str, PipelineError | None]:
    """Run checks concurrently; returns each part's error, None for a part that is right."""
    with ThreadPoolExecutor(max_workers=max(1, len(checks))) as pool:
        waiting = {name: pool.submit(_checked, check) for name, check in checks.items()}
        return {name: future.result() for name, future in waiting.items()}


def require(config: PipelineConfig, *names: str) -> None:
    """Check these parts alone; raises as `refuse` does."""
    part_checks = parts(config)
    refuse(run({name: part_checks[name] for name in names}))


def refuse(results: dict[str, PipelineError | None]) -> None:
    """Raise one ConfigurationError that names every part that is wrong."""
    wrong = {name: error for name, error in results.items() if error is not None}
    if not wrong:
        return
    lines = "\n".join(f"  {name}: {str(error).replace('\n', '\n      ')}" for name, error in wrong.items())
    subject = "1 part is" if len(wrong) == 1 else f"{len(wrong)} parts are"
    raise ConfigurationError(f"{subject} wrong; nothing was written.\n{lines}", condition="PART_WRONG")


def _checked(check: Check) -> PipelineError | None:
    try:
        check()
    except PipelineError as error:
        return error
    except ModuleNotFoundError as error:
        if (missing := not_installed(error)) is None:
            raise
        return missing
    return None


def _owner(config: PipelineConfig) -> Owner | None:
    """The owner of this pipeline's parts; None without the package that reads the lake, which the part `lake` reports."""
    try:
        return owner_of(config)
    except ModuleNotFoundError:
        return None


def _sink(config: SinkConfig, embedder: Embedder, owner: Callable[[], Owner | None]) -> None:
    """Check a store and that this pipeline owns it."""
    with contextlib.closing(open_sink(config, embedder.fingerprint, embedder.dimensions)) as sink:
        sink.check(owner())


def _access(config: PipelineConfig) -> None:
    """Check that every rule of access can let somebody find rows."""
    if problems := Access(config.access, config.tables).problems():
        raise ConfigurationError(
            f"access: {'; '.join(problems)}",
            condition="ACCESS_FINDS_NOTHING",
            hint="add the column to `document.metadata` and run `ragstream rebuild`, or give the table a rule or `public`",
        )


def _memory(config: MemoryConfig) -> None:
    """Check a memory, and create what it needs."""
    with contextlib.closing(open_store(config)) as store:
        store.check()


def _serve(config: ServeConfig) -> None:
    """Check that the service can run, and that its callers' keys can be fetched."""
    from service.callers import open_callers
    from service.http.server import tls

    tls(config)
    open_callers(config.callers).check()


def _warehouse(config: PipelineConfig, owner: Callable[[], Owner | None]) -> None:
    """Check the warehouse and that this pipeline owns it."""
    from warehouse.checks import check

    assert config.warehouse is not None  # noqa: S101 - the caller looked
    check(config.warehouse, config.tables, owner())


def _facts(config: PipelineConfig) -> None:
    """Check each fact, that its login can only read, and that the text model takes tools if a fact needs them."""
    from retrieval.facts.notes import check_tools
    from warehouse.facts.reader import FactReader

    assert config.warehouse is not None and config.facts is not None  # noqa: S101, PT018 - the caller looked
    with contextlib.closing(FactReader(config.facts, config.warehouse, config.tables)) as reader:
        reader.check()
    if config.generation is not None and not isinstance(config.generation, ExtractiveConfig):
        check_tools(open_generator(config.generation), config.facts)


def _tolerating_outage(check: Check) -> None:
    """Check a store but ignore an outage: jobs run without it."""
    with contextlib.suppress(UnavailableError):
        check()


def _lake(config: PipelineConfig) -> None:
    """Check that the lake can be written and read, and that the checkpoint belongs to it."""
    lake_mark.check(config)
    check_writable(config.lake.path, "lake.path")
    lake_id(config.lake.path)


def check_writable(location: str, key: str) -> None:
    """Check that a folder or a bucket can be written."""
    if "://" in location:
        s3_check.check(location, key)
        return
    try:
        Path(location).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=location, prefix=".writable-"):
            pass  # of a name of its own: another driver may be checking the same folder
    except OSError as error:
        raise ConfigurationError(
            f"{key}: {location} cannot be written: {error.strerror}.",
            condition="LOCATION_NOT_WRITABLE",
            hint=f"Correct `{key}`, or give this user the right to write there.",
        ) from None
