"""What `ragstream check` says of a capture, judged from what its database answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.tables import TableConfig
from sources.capture.database_tables import Publication, Source, SourceColumn, SourceTable, StoredIn
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.dms import DmsCaptureConfig
from sources.capture.findings import Findings, connector_differences, findings
from sources.capture.rendering import render

DSN = SecretStr("postgresql://u:p@db/shop")
DEBEZIUM = DebeziumCaptureConfig(type="debezium", dsn=DSN)
DMS = DmsCaptureConfig(type="dms", dsn=DSN)
NAME = "ragstream_desk"
ID = SourceColumn("id", "integer", "int4", in_domain=False, out_of_line=False)
TEXT = SourceColumn("body", "text", "text", in_domain=False, out_of_line=True)
VECTOR = SourceColumn("v", "vector(384)", "vector", in_domain=False, out_of_line=True)
BITS = SourceColumn("b", "bit(3)", "bit", in_domain=False, out_of_line=True)
SPANS = SourceColumn("spans", "interval[]", "_interval", in_domain=False, out_of_line=True)
SUM = SourceColumn("sum", "integer", "int4", in_domain=False, out_of_line=False, generated="stored")
TABLE = SourceTable(
    "public.t", "r", logged=True, columns=(ID, TEXT, BITS), stored=(StoredIn("public.t", "d", ("id",)),)
)
PUBLICATION = Publication(NAME, via_root=True, generated=True, whole=True, tables=frozenset({"public.t"}))
RIGHT = Source(180001, {"public.t": TABLE}, {NAME: PUBLICATION}, {NAME: "reserved"})


def findings_of(source: Source, capture: DebeziumCaptureConfig | DmsCaptureConfig = DEBEZIUM) -> Findings:
    return findings(capture, "desk", [TableConfig(table="public.t", keys=("id",))], source)


def of(table: SourceTable, **publication: Any) -> Source:
    return replace(RIGHT, tables={"public.t": table}, publications={NAME: replace(PUBLICATION, **publication)})


def test_a_source_that_tells_everything_is_right() -> None:
    assert findings_of(RIGHT) == Findings()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (replace(RIGHT, tables={}), "is not in the database"),
        (of(replace(TABLE, kind="v", stored=())), "is a view: no change of it is ever sent"),
        (of(replace(TABLE, logged=False)), 'Run: ALTER TABLE "public"."t" SET LOGGED'),
        (
            of(replace(TABLE, stored=(StoredIn("public.t", "n", ()),))),
            'Run: ALTER TABLE "public"."t" REPLICA IDENTITY FULL',
        ),
        (of(replace(TABLE, columns=(ID, VECTOR))), "cannot be told from NULL in v (vector(384)). Run: ALTER TABLE"),
        (of(TABLE, tables=frozenset()), f'Run: ALTER PUBLICATION "{NAME}" ADD TABLE "public"."t"'),
        (
            of(TABLE, whole=False),
            f"""Run: ALTER PUBLICATION "{NAME}" SET (publish = 'insert, update, delete, truncate')""",
        ),
        (
            of(replace(TABLE, kind="p"), via_root=False),
            f'ALTER PUBLICATION "{NAME}" SET (publish_via_partition_root = true)',
        ),
        (of(replace(TABLE, columns=(ID, SUM)), generated=False), "SET (publish_generated_columns = stored)"),
        (replace(RIGHT, slots={NAME: "lost"}), "has lost changes"),
    ],
)
def test_what_is_wrong_is_said_with_what_mends_it(source: Source, expected: str) -> None:
    (wrong,) = findings_of(source).wrong
    assert expected in wrong


def test_a_renamed_table_is_named_and_taken_once_it_is_configured() -> None:
    renamed = replace(TABLE, name="public.u", stored=(StoredIn("public.u", "d", ("id",)),))
    source = replace(RIGHT, tables={}, publications={NAME: replace(PUBLICATION, tables=frozenset({"public.u"}))})
    (wrong,) = findings_of(source).wrong
    assert wrong.endswith("The publication has public.u: was it renamed? Write `partitions: [NEW NAME]`")
    table = TableConfig(table="public.t", keys=("id",), partitions=("public.u", "public.v_*"))
    assert findings(DEBEZIUM, "desk", [table], replace(source, tables={"public.u": renamed})) == Findings()


@pytest.mark.parametrize(
    ("source", "capture", "expected"),
    [
        (of(replace(TABLE, columns=(ID, SPANS))), DEBEZIUM, "sends no value of spans (interval[])"),
        (
            replace(of(replace(TABLE, columns=(ID, SUM))), version=170000),
            DEBEZIUM,
            "no change tells the generated columns sum",
        ),
        (replace(RIGHT, publications={}, slots={}), DEBEZIUM, f"no publication and no replication slot {NAME}"),
        (RIGHT, DMS, "cannot be told from NULL in body (text)"),
        (
            of(replace(TABLE, columns=(ID,))),
            DMS.model_copy(update={"include_null_and_empty": False}),
            "include_null_and_empty",
        ),
    ],
)
def test_what_nothing_mends_is_a_note(
    source: Source, capture: DebeziumCaptureConfig | DmsCaptureConfig, expected: str
) -> None:
    result = findings_of(source, capture)
    assert not result.wrong
    (note,) = result.notes
    assert expected in note


def test_every_partition_needs_what_its_table_needs() -> None:
    parts = (StoredIn("public.t_1", "f", ()), StoredIn("public.t_2", "d", ("id",)))
    (wrong,) = findings_of(of(replace(TABLE, kind="p", columns=(ID, VECTOR), stored=parts))).wrong
    assert wrong.endswith('Run: ALTER TABLE "public"."t_2" REPLICA IDENTITY FULL')


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (StoredIn("public.t", "d", ()), ("has no key in its log", "message.key.columns", "REPLICA IDENTITY FULL")),
        (StoredIn("public.t", "n", ()), ("has no key in its log", "`keys`")),
        (StoredIn("public.t", "d", ("code",)), ("Take the primary key (code) as `keys`", "REPLICA IDENTITY FULL")),
        (StoredIn("public.t", "i", ("code",)), ("deletes do not tell the key id", "REPLICA IDENTITY FULL")),
    ],
)
def test_a_table_whose_log_lacks_its_keys_is_refused_with_remedies(stored: StoredIn, expected: tuple[str, ...]) -> None:
    (wrong,) = findings_of(of(replace(TABLE, columns=(ID,), stored=(stored,)))).wrong
    assert all(part in wrong for part in expected)
    unique = StoredIn("public.t", "i", ("id",))
    assert findings_of(of(replace(TABLE, columns=(ID,), stored=(unique,)))) == Findings()


def test_a_connector_is_compared_with_what_it_should_be() -> None:
    rendered = render(DEBEZIUM, "desk", ["public.t"])["connector"]["config"]
    assert connector_differences(rendered | {"poll.interval.ms": "500"}, rendered, ["public.t"]) == []
    old = rendered | {"binary.handling.mode": "base64", "table.include.list": r"public\.other"}
    del old["publish.via.partition.root"]
    assert connector_differences(old, rendered, ["public.t"]) == [
        "binary.handling.mode is base64, not bytes",
        "publish.via.partition.root is not set, not true",
        "table.include.list lacks public.t",
    ]
