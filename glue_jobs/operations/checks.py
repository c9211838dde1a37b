"""`check()` of every part at once, before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from embeddings import open_embedder
from glue_jobs.continuous.backfills import Backfills
from glue_jobs.operations import captured
from glue_jobs.operations.ownership import owner_of
from glue_jobs.runtime.extras import not_installed
from glue_jobs.storage import lake_mark, s3_check
from lake.identity import lake_id
from retrieval import BedrockGenerationConfig
from retrieval.generate import BedrockGenerator
from schemas.errors import ConfigurationError, PipelineError, UnavailableError
from sinks import open_sink
from sources import check as check_source

if TYPE_CHECKING:
    from embeddings import Embedder
    from glue_jobs.config.pipeline import PipelineConfig
    from schemas.ownership import Owner
    from sinks import SinkConfig

type Check = Callable[[], object]

NEEDS = {
    "land": ("source", "lake"), "merge": ("lake",), "index": ("source", "lake", "embedding", "sink"),
    "load": ("lake", "warehouse"),
}  # fmt: skip
"""The parts that each job writes to or reads from."""


def parts(config: PipelineConfig, jobs: Iterable[str] | None = None) -> dict[str, Check]:
    """The checks of the parts that these jobs need, by a name for people; all parts when no jobs are named."""
    wanted = {kind for job in jobs for kind in NEEDS[job]} if jobs is not None else None
    found: dict[str, Check] = {}
    for source in config.sources:
        found[f"source {source.name}"] = partial(check_source, source)
    found["lake"] = partial(_lake, config)
    found["checkpoint"] = partial(_writable, config.checkpoint, "checkpoint")
    owner = cache(partial(_owner, config))
    if config.embedding is not None:
        embedder = open_embedder(config.embedding)
        found["embedding"] = embedder.check
        # One of several that the pipeline had before holds up no driver; of all being away, preparing them tells.
        known = Backfills(config.checkpoint).known() if jobs is not None and len(config.sinks) > 1 else ()
        for sink in config.sinks:
            check = partial(_sink, sink, embedder, owner)
            found[f"sink {sink.name}"] = partial(_unless_away, check) if sink.name in known else check
    for capture in config.capture:
        found[f"capture {capture.source or config.sources[0].name}"] = partial(captured.check, config, capture)
    if config.warehouse is not None:
        found["warehouse"] = partial(_warehouse, config, owner)
    if isinstance(config.generation, BedrockGenerationConfig):
        found["generation"] = BedrockGenerator(config.generation).check
    return {
        name: check for name, check in found.items() if wanted is None or name.split()[0] in {*wanted, "checkpoint"}
    }


def run(checks: dict[str, Check]) -> dict[str, PipelineError | None]:
    """Run checks side by side; gives each part's error, None for a part that is right."""
    with ThreadPoolExecutor(max_workers=max(1, len(checks))) as pool:
        waiting = {name: pool.submit(_checked, check) for name, check in checks.items()}
        return {name: future.result() for name, future in waiting.items()}


def refuse(found: dict[str, PipelineError | None]) -> None:
    """Raise one ConfigurationError that tells every part that is wrong."""
    wrong = {name: error for name, error in found.items() if error is not None}
    if not wrong:
        return
    told = "\n".join(f"  {name}: {_indented(str(error))}" for name, error in wrong.items())
    what = "1 part is" if len(wrong) == 1 else f"{len(wrong)} parts are"
    raise ConfigurationError(f"{what} wrong; nothing was written.\n{told}", condition="PART_WRONG")


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
    """The owner of this pipeline's parts; None without the package that reads its lake, of which the part `lake` tells."""
    try:
        return owner_of(config)
    except ModuleNotFoundError:
        return None


def _sink(config: SinkConfig, embedder: Embedder, owner: Callable[[], Owner | None]) -> None:
    """Check a store, which must be this pipeline's."""
    open_sink(config, embedder.fingerprint, embedder.dimensions).check(owner())


def _warehouse(config: PipelineConfig, owner: Callable[[], Owner | None]) -> None:
    """Check a warehouse, which must be this pipeline's."""
    from warehouse.checks import check

    assert config.warehouse is not None  # noqa: S101 - the caller looked
    check(config.warehouse, config.tables, owner())


def _unless_away(check: Check) -> None:
    """Check a store that may be away: jobs go on without it."""
    with contextlib.suppress(UnavailableError):
        check()


def _indented(text: str) -> str:
    return text.replace("\n", "\n      ")


def _lake(config: PipelineConfig) -> None:
    """The lake can be written and read, and is the one that the checkpoint belongs to."""
    lake_mark.confirm(config)
    _writable(config.lake.path, "lake.path")
    lake_id(config.lake.path)


def _writable(location: str, key: str) -> None:
    """Try to make a folder of this machine, or to put into a bucket."""
    if "://" in location:
        s3_check.check(location, key)
        return
    try:
        Path(location).mkdir(parents=True, exist_ok=True)
        probe = Path(location) / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"{key}: {location} cannot be written: {error.strerror}.",
            condition="LOCATION_NOT_WRITABLE",
            hint=f"Correct `{key}`, or give this user the right to write there.",
        ) from None
