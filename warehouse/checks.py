"""`ragstream check` of a warehouse: it answers, the user has the rights, and it reads what is staged. Nothing is left there."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pyarrow as pa

from schemas.errors import ConfigurationError
from schemas.ownership import Owner
from schemas.tables import TableConfig
from warehouse.clients import Client, open_client
from warehouse.config import RedshiftConfig
from warehouse.shape import names_of
from warehouse.sql import Copies, Registry, literal, probe
from warehouse.staging import staging


def check(config: RedshiftConfig, tables: Sequence[TableConfig], owner: Owner | None) -> None:
    """Connect, compare owner and rights, and load a staged file into a temporary table; raises ConfigurationError."""
    names_of(tables, config)
    client = open_client(config)
    try:
        if owner is not None:
            check_owner(config, owner_of(client, Registry(config.schema_name)), owner)
        _check_rights(client, config.schema_name)
        writer = staging(config, f"check-{uuid.uuid4().hex}")
        try:
            manifest = writer.rows(pa.table({"_key": ["ragstream check"]}))
            client.run(probe(Copies(config.iam_role), manifest))
        finally:
            writer.clear()
    finally:
        client.close()


def owner_of(client: Client, registry: Registry) -> Owner | None:
    """The schema's owner; None where nobody claimed it."""
    if "ragstream_owner" not in {name for _, name in client.run([registry.find()])}:
        return None
    rows = client.run([registry.owned()])
    return Owner(*map(str, rows[0])) if rows else None


def check_owner(config: RedshiftConfig, stored: Owner | None, owner: Owner) -> None:
    """Raise ConfigurationError where the schema belongs to another pipeline."""
    owner.refuse_other(stored, f"warehouse: the schema {config.schema_name}", "warehouse", "schema")


def _check_rights(client: Client, schema: str) -> None:
    exists = bool(client.run([Registry(schema).find()]))
    rights = [f"HAS_DATABASE_PRIVILEGE(CURRENT_DATABASE(), {literal('TEMP')})"]
    rights.append(
        f"HAS_SCHEMA_PRIVILEGE({literal(schema)}, {literal('CREATE')})"
        if exists
        else f"HAS_DATABASE_PRIVILEGE(CURRENT_DATABASE(), {literal('CREATE')})"
    )
    (granted,) = client.run([f"SELECT {', '.join(rights)}"])
    if not all(granted):
        missing = "TEMP on the database" if not granted[0] else f"CREATE on the {'schema' if exists else 'database'}"
        raise ConfigurationError(
            f"warehouse: the user lacks {missing}", condition="MISSING_RIGHTS",
            hint=f"grant it, or let an administrator create the schema {schema} and make the user its owner",
        )  # fmt: skip
