"""PostgreSQL as DMS captures it: the settings of its endpoint, and the statements that its owner runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sources.capture.engines.protocol import Statements
from sources.capture.target import Database, literal

if TYPE_CHECKING:
    from sources.capture.dms import DmsCaptureConfig, Parts


def postgresql_settings(config: DmsCaptureConfig, database: Database) -> Mapping[str, Any]:
    """The settings beside address and sign-in."""
    settings: dict[str, Any] = {
        "DatabaseName": database.name,
        "PluginName": "test-decoding",
        # An idle database still lets go of its log.
        "HeartbeatEnable": True,
        "HeartbeatFrequency": 1,
        "CaptureDdls": True,
        # By default a boolean becomes the text "true".
        "MapBooleanAsBoolean": True,
        # By default a text above the limit is cut, without a word in the record.
        "FailTasksOnLobTruncation": True,
    }
    return settings | ({"SlotName": config.slot} if config.slot else {})


def postgresql_statements(config: DmsCaptureConfig, _database: Database, tables: Parts) -> Statements:
    """What the source's owner runs once before the task starts."""
    return Statements(source_sql(config, tables))


def source_sql(config: DmsCaptureConfig, tables: Parts, *, replica_identity: bool = True) -> list[str]:
    """Write the statements that the source's owner runs once before the task starts.

    DMS has no record for TRUNCATE on a stream. A trigger deletes the rows just before, in the same transaction, so that DMS
    and any other reader of the log get deletes.
    """
    statements = ["CREATE SCHEMA IF NOT EXISTS ragstream", _DELETE_BEFORE_TRUNCATE]
    for table, parts in tables.items():
        trigger = f"CREATE OR REPLACE TRIGGER ragstream_delete_before_truncate BEFORE TRUNCATE ON {table.quoted}"
        statements.append(f"{trigger} FOR EACH STATEMENT EXECUTE FUNCTION ragstream.delete_before_truncate()")
        if replica_identity:
            identity = config.replica_identity.upper()
            of_parts = _PARTS_IDENTITY.replace("<TABLE>", literal(table.quoted)).replace("<IDENTITY>", identity)
            statements.append(of_parts if parts else f"ALTER TABLE {table.quoted} REPLICA IDENTITY {identity}")
    return statements


_PARTS_IDENTITY = """\
DO $ragstream$
DECLARE part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree(<TABLE>::regclass) WHERE isleaf LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY <IDENTITY>', part);
    END LOOP;
END $ragstream$"""
_DELETE_BEFORE_TRUNCATE = """\
CREATE OR REPLACE FUNCTION ragstream.delete_before_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = TG_RELID AND relkind = 'p') THEN
        EXECUTE format('DELETE FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    ELSE
        EXECUTE format('DELETE FROM ONLY %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    END IF;
    RETURN NULL;
END $$"""
