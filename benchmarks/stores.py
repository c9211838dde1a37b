"""The configurations of the local stack's three vector stores."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local_stack.stack import Stack
from sinks.documentdb.config import DocumentDBConfig
from sinks.opensearch.config import OpenSearchConfig
from sinks.pgvector.config import PgvectorConfig

if TYPE_CHECKING:
    from sinks import SinkConfig

PARTS = {"pgvector": "vectors", "opensearch": "opensearch", "documentdb": "documentdb"}
"""The part of the local stack that each store is."""


def config_of(stack: Stack, store: str, name: str) -> SinkConfig:
    """The configuration of a new store on its server."""
    endpoint = stack.service(PARTS[store]).endpoint
    match store:
        case "pgvector":
            return PgvectorConfig(type="pgvector", dsn=SecretStr(endpoint["dsn"]), table=name)
        case "opensearch":
            return OpenSearchConfig(type="opensearch", url=endpoint["url"], index=name, replicas=0)
        case _:
            uri = SecretStr(endpoint["uri"])
            return DocumentDBConfig(type="documentdb", uri=uri, database="bench", collection=name)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress bars on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        yield bars


def machine() -> dict[str, Any]:
    """The machine's properties that a figure depends on; the load is that before the measurement."""
    packages = ("psycopg", "pgvector", "opensearch-py", "pymongo", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    load = round(os.getloadavg()[0], 2)
    return {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": load, "versions": versions}
