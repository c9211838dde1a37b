"""Recordings, and the lanes that tests deliver their histories to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from converge.histories import Recorded
from converge.lake import Lake
from converge.recording import recording
from converge.vector_store import VectorStore
from converge.watched import HashEmbedder
from schemas.tables import ChunkConfig, DocumentConfig, TableConfig
from sinks.protocol import Sink
from tests.recorded import CONTEXT, DMS_CONTEXT, DMS_FIXTURES, FIXTURES, KEYS, dms_records, records
from tests.stores import Store
from transforms.documents.planning import DocumentSpec
from warehouse.config import RedshiftConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DOCUMENT = DocumentConfig(template="{name}\n\n{body}", metadata=("m", "amount"), chunk=ChunkConfig(max_tokens=60))
SPECS = {table: DocumentSpec(table, DOCUMENT) for table in ("inv.items", "inv.items_full", "shop.items")}


RECORDINGS = sorted(path.stem for folder in (FIXTURES, DMS_FIXTURES) for path in folder.glob("*.jsonl"))


@cache
def recorded(name: str) -> Recorded:
    """One recording, read once for all tests."""
    if (DMS_FIXTURES / f"{name}.jsonl").exists():
        return Recorded.of(recording(name, DMS_CONTEXT, dms_records(name)))
    return Recorded.of(recording(name, CONTEXT, records(name)))


def histories_of(*names: str) -> dict[str, Recorded]:
    """Recordings by name."""
    return {name: recorded(name) for name in names}


@dataclass
class OpenStore:
    """Opens the lane of a store under test, which stands; `fault` makes another sink of its sink."""

    store: Store
    recordings: Mapping[str, Recorded]
    fault: Callable[[Sink], Any] = lambda sink: sink
    name = "store"
    keeps = True

    def __call__(self) -> VectorStore:
        self._sink().prepare()
        return VectorStore(self.name, lambda: self.fault(self._sink()), SPECS, self.recordings)

    def _sink(self) -> Sink:
        return self.store.open(HashEmbedder.fingerprint, HashEmbedder.dimensions)


@dataclass
class OpenLake:
    """Opens the lane of a lake and a warehouse, in the tests' session."""

    spark: SparkSession
    folder: str
    recordings: Mapping[str, Recorded]
    warehouse: RedshiftConfig
    name = "lake and warehouse"
    keeps = True

    def __call__(self) -> Lake:
        names = sorted({table for recording in self.recordings.values() for table in recording.recording.families})
        tables = [TableConfig(table=name, keys=KEYS[name]) for name in names]
        return Lake(self.spark, self.folder, tables, self.recordings, self.warehouse)
