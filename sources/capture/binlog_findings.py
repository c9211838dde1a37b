"""What the capture of MySQL or MariaDB loses or cannot carry, from its log, the user's rights and its tables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from schemas.tables import TableConfig
from sources.capture.binlog_server import BinlogServer, BinlogTable
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.engines.binlog import quoted, quoted_name
from sources.capture.findings import Findings, lost_nulls
from sources.capture.target import tables_named

if TYPE_CHECKING:
    from sources.capture.rendering import CaptureConfig

_WHOLE_JSON = "SET GLOBAL binlog_row_value_options = ''"
_SHORT_RETENTION_SECONDS = 24 * 3600
_GRANT = re.compile(r"GRANT (.+?) ON (\S+) TO ")
_RIGHTS = {
    "REPLICATION SLAVE": ("REPLICATION SLAVE", "REPLICATION REPLICA"),
    "REPLICATION CLIENT": ("REPLICATION CLIENT", "BINLOG MONITOR"),
    "RELOAD": ("RELOAD", "LOCK TABLES"),
}
"""Rights of the connector's user, each with those of which one is enough: MariaDB has other names."""


def findings(
    capture: CaptureConfig, tables: Sequence[TableConfig], server: BinlogServer, *, nulls_lost: bool = False
) -> Findings:
    """Compare the configured tables with the captured server; `nulls_lost` is a trait of the connector's converters."""
    result = Findings()
    debezium = isinstance(capture, DebeziumCaptureConfig)
    result.wrong.extend([*_log(server, tables), *_rights(server, debezium=debezium)])
    result.notes.extend(_retention(server))
    if isinstance(capture, DebeziumCaptureConfig):
        result.wrong.extend([*_unparsed(server), *_windows(capture, server)])
    for table in tables:
        existing = table.existing_in(server.tables)
        if existing is None:
            result.wrong.append(f"{table.table} is not in the database, or its user may not see it")
            continue
        result.wrong.extend([*_unsent(existing, server), *_keyless(table, existing, debezium=debezium)])
        if nulls_lost:
            result.wrong.extend(lost_nulls(existing, quoted(tables_named([table.table])[0]), quoted_name))
    return result


def _log(server: BinlogServer, tables: Sequence[TableConfig]) -> Iterator[str]:
    variables = server.variables
    if variables.get("log_bin", "OFF").upper() not in {"ON", "1"}:
        yield "the server writes no binary log: set log_bin in its configuration, and restart it"
    if (kind := variables.get("binlog_format", "ROW").upper()) != "ROW":
        yield f"binlog_format is {kind}: changes come as statements, and no row does. Run: SET GLOBAL binlog_format = 'ROW'"
    image = variables.get("binlog_row_image", "FULL").upper()
    if image not in {"FULL", "FULL_NODUP"}:
        yield (
            f"binlog_row_image is {image}: rows lack columns, and the connector stops. Run: SET GLOBAL binlog_row_image = 'FULL'"
        )
    if options := variables.get("binlog_row_value_options", ""):
        yield (
            f"binlog_row_value_options is {options}: what changes a part of a JSON column is lost, and nothing shows "
            f"it. Run: {_WHOLE_JSON}"
        )
    only, never = server.log_filters or ((), ())
    for name in dict.fromkeys(table.schema for table in tables_named([table.table for table in tables])):
        if (only and name not in only) or name in never:
            yield f"the binary log leaves the database {name} out (binlog_do_db, binlog_ignore_db): no change of it comes"


def _rights(server: BinlogServer, *, debezium: bool) -> Iterator[str]:
    """Rights that are missing; a role may bring some that SHOW GRANTS does not list, so with one nothing is said.

    DMS locks no table, and needs no RELOAD.
    """
    matches = [_GRANT.match(grant) for grant in server.grants]
    if None in matches:
        return
    everywhere = {right.strip() for match in matches if match and match[2] == "*.*" for right in match[1].split(",")}
    anywhere = {right.strip() for match in matches if match for right in match[1].split(",")}
    if "ALL PRIVILEGES" in everywhere:
        return
    missing = [
        right
        for right, enough in _RIGHTS.items()
        if (debezium or right != "RELOAD") and not (anywhere if right == "RELOAD" else everywhere) & set(enough)
    ]
    if missing:
        yield f"{server.user} lacks rights that a replica has. Run: GRANT {', '.join(missing)} ON *.* TO {server.user}"


def _retention(server: BinlogServer) -> Iterator[str]:
    seconds = server.variables.get("binlog_expire_logs_seconds", "0").partition(".")[0]
    if seconds.isdigit() and 0 < int(seconds) < _SHORT_RETENTION_SECONDS:
        yield f"the binary log is kept for {seconds} s: a connector that is away for longer has to take a new snapshot"


def _unparsed(server: BinlogServer) -> Iterator[str]:
    """The connector parses the definition of every table of a database, so a type in any of them stops it."""
    for column in server.unparsed:
        database, table, name = column.split(".", 2)
        statement = f"ALTER TABLE {quoted_name(database)}.{quoted_name(table)} MODIFY {quoted_name(name)} varchar(45)"
        yield f"Debezium's parser does not know the type of {column} (inet4 or inet6), and the connector stops. Run: {statement}"


def _windows(capture: DebeziumCaptureConfig, server: BinlogServer) -> Iterator[str]:
    if capture.signals_by_topic_alone and not server.is_mariadb and server.variables.get("gtid_mode", "OFF") != "ON":
        yield (
            "gtid_mode is not ON, which incremental snapshots by `signal_topic` alone need: set it and enforce_gtid_consistency, "
            "or set `signal_table`"
        )


def _unsent(table: BinlogTable, server: BinlogServer) -> Iterator[str]:
    if table.kind == "VIEW":
        yield f"{table.name} is a view: no change of it is ever sent"
    if not table.readable:
        statement = f"GRANT SELECT ON {quoted(tables_named([table.name])[0])} TO {server.user}"
        yield f"{server.user} may not read {table.name}, and no snapshot has it. Run: {statement}"
    if table.cascades and server.variables.get("innodb_native_foreign_keys", "ON") != "OFF":  # MySQL has it from 9.6 on
        yield (
            f"{table.name}: what the foreign keys {', '.join(table.cascades)} delete or change is in no binary log, and stays "
            "as it was. Make them RESTRICT, and let the application change these rows"
        )


def _keyless(table: TableConfig, existing: BinlogTable, *, debezium: bool) -> Iterator[str]:
    """The capture tells a key change, and puts a row's changes in one partition, by the record's key.

    Debezium's is the primary key, or by `message.key.columns` what `keys` names; that of DMS is the primary key.
    """
    names = {table.renamed.get(column.name, column.name): column.name for column in existing.columns}
    keys = [names.get(key, key) for key in table.keys]
    if existing.kind == "VIEW" or set(keys) == set(existing.keys) or (debezium and frozenset(keys) in existing.unique):
        return
    has = f"has the primary key {', '.join(existing.keys)}" if existing.keys else "has no primary key"
    drop = "DROP PRIMARY KEY, " if existing.keys else ""
    added = f"{drop}ADD PRIMARY KEY ({', '.join(map(quoted_name, keys))})"
    lost = "no index keeps them unique and never NULL" if debezium else "a changed key would leave its old row"
    yield (
        f"{table.table} {has}, and `keys` names {', '.join(table.keys)}: {lost}. "
        f"Run: ALTER TABLE {quoted(tables_named([table.table])[0])} {added}"
    )
