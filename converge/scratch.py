"""Stores of a run's own, beside the configured ones: another name on the same server, removed afterwards."""

from __future__ import annotations

from contextlib import closing

from sinks import SinkConfig
from sinks.documentdb.config import DocumentDBConfig
from sinks.opensearch.config import OpenSearchConfig
from sinks.pgvector.config import PgvectorConfig
from warehouse.config import RedshiftConfig

_SUFFIX = "_converge"


def beside(config: SinkConfig) -> SinkConfig:
    """The configuration of a store beside a configured one."""
    place = config.place
    return config.model_copy(update={place.kind: f"{place.name[:30]}{_SUFFIX}"})


def schema_beside(config: RedshiftConfig) -> RedshiftConfig:
    """The configuration of a warehouse schema beside a configured one."""
    staging = f"{config.staging.rstrip('/')}/converge"
    return config.model_copy(update={"schema_name": f"{config.schema_name}{_SUFFIX}", "staging": staging})


def schema_of(config: RedshiftConfig, number: int) -> RedshiftConfig:
    """The configuration of a schema for histories that are delivered together, beside that of `schema_beside`."""
    update = {"schema_name": f"{config.schema_name}_{number}", "staging": f"{config.staging}/{number}"}
    return config.model_copy(update=update)


def remove(config: SinkConfig) -> None:
    """Remove a store that `beside` named, with all that is in it; nothing where there is none."""
    if not config.place.name.endswith(_SUFFIX):
        raise ValueError(config.place.name)
    match config:
        case PgvectorConfig():
            _remove_tables(config)
        case OpenSearchConfig():
            _remove_indexes(config)
        case DocumentDBConfig():
            _remove_collections(config)


def _remove_tables(config: PgvectorConfig) -> None:
    from psycopg import sql

    from sinks.pgvector.connection import connect

    with closing(connect(config)) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema AND starts_with(tablename, %s)"
        tables = [sql.Identifier(name) for (name,) in connection.execute(query, [f"{config.table}_"]).fetchall()]
        if tables:
            connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.SQL(", ").join(tables)))


def _remove_indexes(config: OpenSearchConfig) -> None:
    from sinks.opensearch.client import OpenSearchClient
    from sinks.opensearch.schema import Names

    names = Names(config.index)
    with closing(OpenSearchClient(config)) as client:
        for index in (names.documents, names.vectors, names.meta):
            client.call("DELETE", f"/{index}", accept=("index_not_found_exception",))


def _remove_collections(config: DocumentDBConfig) -> None:
    from sinks.documentdb.client import DocumentDBClient
    from sinks.documentdb.schema import Names

    names = Names(config.collection)
    with closing(DocumentDBClient(config)) as client:
        wanted = {"name": {"$in": [names.documents, names.vectors, names.meta]}}
        listed = client.command({"listCollections": 1, "nameOnly": True, "filter": wanted})
        for collection in listed["cursor"]["firstBatch"]:
            client.command({"drop": collection["name"]})
