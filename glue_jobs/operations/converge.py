"""`ragstream converge`: recorded events in histories of every kind, into each configured store, beside what stands there."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from converge import report
from converge.histories import History, Recorded
from converge.in_memory import OpenInMemory
from converge.recording import recording
from converge.run import Lane, OpenLane, Outcome, Settings, planned, run
from converge.scratch import beside, remove, schema_beside
from converge.vector_store import VectorStore
from converge.watched import HashEmbedder
from glue_jobs.config.pipeline import PipelineConfig, decode_context
from schemas.errors import ConfigurationError
from schemas.records import Record
from schemas.tables import TableConfig
from sinks import SinkConfig, open_sink
from sources.files.config import FilesSourceConfig
from sources.files.recorded import Format, parse_line
from transforms.documents.planning import DocumentSpec
from warehouse.config import RedshiftConfig

type OnDone = Callable[[str, int], None]
"""Called with a lane's name and the number of histories that are done there."""


def recordings_of(config: PipelineConfig, events: Sequence[str]) -> dict[str, Recorded]:
    """The recorded events by source, from files; `SOURCE=FILE` where the pipeline has several sources.

    Raises:
        ConfigurationError: a file cannot be read, names no source, or has no event of a configured table.
    """
    files: dict[str, list[str]] = {}
    for named in events:
        source, file = _named(config, named)
        files.setdefault(source, []).append(file)
    if not files:
        raise ConfigurationError("no recorded events: name a file of them", hint="--events FILE, one event a line")
    return {
        source: Recorded.of(recording(source, decode_context(config, source), _records(config, source, of_source)))
        for source, of_source in files.items()
    }


def _named(config: PipelineConfig, named: str) -> tuple[str, str]:
    source, equals, file = named.partition("=")
    names = [configured.name for configured in config.sources]
    if equals and source in names:
        return source, file
    if len(names) == 1:
        return names[0], named
    raise ConfigurationError(
        f"--events {named}: the pipeline has the sources {', '.join(names)}",
        condition="SOURCE_UNNAMED",
        hint=f"say which one recorded them: --events {names[0]}=FILE",
    )


def _records(config: PipelineConfig, source: str, files: Sequence[str]) -> Iterator[Record]:
    configured = config.source(source)
    form: Format = configured.format if isinstance(configured, FilesSourceConfig) else "kafka"
    form = "kinesis" if configured.type == "kinesis" else form
    for file in files:
        try:
            lines = Path(file).read_bytes().splitlines()
        except OSError as error:
            raise ConfigurationError(
                f"--events {file}: the file cannot be read: {error.strerror}", condition="EVENTS_UNREADABLE"
            ) from None
        yield from (parse_line(line, form, name=file, start=0) for line in lines if line.strip())


@dataclass(frozen=True)
class OpenStore:
    """Opens the lane of a vector store, in this process or another."""

    config: SinkConfig
    specs: Mapping[str, DocumentSpec]
    recordings: Mapping[str, Recorded]
    keeps: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The store's."""
        return self.config.name

    def __call__(self) -> VectorStore:
        """Nothing is connected yet."""
        sink = partial(open_sink, self.config, HashEmbedder.fingerprint, HashEmbedder.dimensions)
        return VectorStore(self.name, sink, self.specs, self.recordings)


@dataclass(frozen=True)
class OpenLake:
    """Opens the lane of a lake and a warehouse, with a Spark session of the process."""

    folder: str
    tables: tuple[TableConfig, ...]
    recordings: Mapping[str, Recorded]
    warehouse: RedshiftConfig | None
    keeps: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """What is compared."""
        return "lake and warehouse" if self.warehouse else "lake"

    def __call__(self) -> Lane:
        """Open the session."""
        from converge.lake import Lake
        from glue_jobs.runtime.spark.session import open_session

        spark = open_session("converge", checkpoint=f"{self.folder}/checkpoint", cores=2)
        return Lake(spark, f"{self.folder}/lake", self.tables, self.recordings, self.warehouse)


def settings_of(
    histories: int, seed: int | None, history: str | None = None, *, kills: bool = False
) -> tuple[Settings, list[History]]:
    """The settings of a run, its seed fresh where none is named, and the history that takes the place of those of the seed."""
    chosen = [report.of_json(history)] if history else []
    return Settings(len(chosen) or histories, secrets.randbelow(10**9) if seed is None else seed, kills), chosen


def converge(
    config: PipelineConfig,
    recordings: Mapping[str, Recorded],
    settings: Settings,
    stores: Sequence[str] = (),
    histories: Sequence[History] = (),
    on_done: OnDone = lambda _, __: None,
) -> list[Outcome]:
    """Run `histories`, or those of a seed, in the fold, the lake, the warehouse and every vector store.

    With `stores` in those alone (`fold`, `lake`, `warehouse` with the lake, a sink's name). Nothing of the pipeline is
    touched: a lake in a temporary folder, stores and a schema beside the configured ones, and no model.

    Raises:
        PipelineError: a store does not answer, or is not as the configuration says.
    """
    chosen = list(histories) or planned(recordings, settings)
    with contextlib.ExitStack() as stack:
        return [
            run(lane, recordings, chosen, partial(on_done, lane.name), kills=settings.kills)
            for lane in _lanes(config, recordings, stores, stack)
        ]


def lanes_of(config: PipelineConfig) -> list[str]:
    """Where a run delivers to, by name."""
    return ["fold", "lake", *(["warehouse"] if config.warehouse else []), *(sink.name for sink in config.sinks)]


def _lanes(
    config: PipelineConfig, recordings: Mapping[str, Recorded], stores: Sequence[str], stack: contextlib.ExitStack
) -> Iterator[OpenLane]:
    names = lanes_of(config)
    if unknown := sorted(set(stores) - set(names)):
        raise ConfigurationError(
            f"--store {unknown[0]}: the pipeline has no such store",
            condition="STORE_UNKNOWN",
            hint=f"It has {', '.join(names)}.",
        )
    chosen = set(stores or names)
    if "fold" in chosen:
        yield OpenInMemory(recordings)
    if chosen & {"lake", "warehouse"}:
        folder = tempfile.mkdtemp(prefix="ragstream-converge-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        warehouse = schema_beside(config.warehouse) if config.warehouse and "warehouse" in chosen else None
        if warehouse is not None:
            from converge.warehouse import drop

            drop(warehouse)
            stack.callback(drop, warehouse)
        yield OpenLake(folder, config.tables, recordings, warehouse)
    for sink in config.sinks:
        if sink.name in chosen:
            scratch = beside(sink)
            remove(scratch)
            stack.callback(remove, scratch)
            with contextlib.closing(open_sink(scratch, HashEmbedder.fingerprint, HashEmbedder.dimensions)) as opened:
                opened.prepare()
            yield OpenStore(scratch, config.document_specs, recordings)
