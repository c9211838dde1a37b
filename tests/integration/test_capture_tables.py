"""What `ragstream check` asks a captured database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations import checks
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import TableConfig
from sources.capture.database_tables import ask
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.names import KnownTable
from sources.capture.source import compared
from sources.registry.config import GlueRegistryConfig


def pipeline(dsn: str, template: str) -> PipelineConfig:
    document: dict[str, Any] = {"template": template, "metadata": ["Kind"]}
    return PipelineConfig.model_validate(
        {
            "name": "p",
            "source": {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "localhost:1", "topics": ["t"]},
            "capture": {"type": "debezium", "dsn": dsn},
            "tables": [{"table": "s.Mixed Case", "keys": ["id"], "document": document}],
            "lake": {"path": "lake"},
            "checkpoint": "checkpoint",
        }
    )


def test_a_column_that_the_captured_table_lacks_is_wrong_in_check(vectors_dsn: str) -> None:
    with psycopg.connect(vectors_dsn) as connection:
        connection.execute("CREATE SCHEMA s")
        connection.execute('CREATE TABLE s."Mixed Case" (id int PRIMARY KEY, old text, "Kind" text, description text)')
        connection.execute('ALTER TABLE s."Mixed Case" DROP COLUMN old')
    right, wrong = (checks.parts(pipeline(vectors_dsn, template)) for template in ("{description}", "{descripton}"))
    assert checks.run({"capture": right["capture kafka"]}) == {"capture": None}
    with pytest.raises(
        ConfigurationError, match=r"'descripton', which `document.template` names; near it: description"
    ):
        wrong["capture kafka"]()
    assert "capture kafka" not in checks.parts(pipeline(vectors_dsn, "{description}"), ["land"]), "no job needs it"
    capture = DebeziumCaptureConfig(type="debezium", dsn=SecretStr(vectors_dsn))
    known = ask(capture, ["s.Mixed Case", "s.gone"]).tables
    assert {name: [c.name for c in table.columns] for name, table in known.items()} == {
        "s.Mixed Case": ["id", "Kind", "description"]
    }


def test_a_tables_key_and_its_nulls_with_defaults_are_known(vectors_dsn: str) -> None:
    columns = (
        "b int, a int, state text DEFAULT 'new', no int NOT NULL DEFAULT 1, note text DEFAULT NULL, PRIMARY KEY (a, b)"
    )
    with psycopg.connect(vectors_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE odd ({columns})".encode())
        capture = DebeziumCaptureConfig(type="debezium", dsn=SecretStr(vectors_dsn))
        tables, glue = [TableConfig(table="public.odd", keys=("a", "b"))], GlueRegistryConfig(type="glue")
        comparison = compared(capture, "desk", tables, glue)
        assert comparison.known == {"public.odd": KnownTable(("b", "a", "state", "no", "note"), ("a", "b"))}
        (wrong,) = comparison.findings.wrong
        connection.execute(wrong.partition("Run: ")[2].encode())
        assert compared(capture, "desk", tables, glue).findings.wrong == []


def test_a_captured_database_that_does_not_answer_is_said_without_its_address() -> None:
    capture = DebeziumCaptureConfig(type="debezium", dsn=SecretStr("postgresql://u:geheim@127.0.0.1:1/d"))
    with pytest.raises(UnavailableError) as caught:
        ask(capture, ["s.t"])
    assert "geheim" not in str(caught.value)
