"""What a connector as `ragstream capture` renders it tells of large values that do not change, and of partitions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from glue_jobs.config.pipeline import load_config
from glue_jobs.operations import capture_checks
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from sources.capture.connect_worker import connector_settings
from sources.capture.debezium import DebeziumCaptureConfig
from tests.captured import captured_by, configured, wrong_with_capture

TYPES = """
CREATE EXTENSION vector;
CREATE TYPE mood AS ENUM ('ok', 'bad');
CREATE DOMAIN words AS text;
CREATE DOMAIN octets AS bytea;
CREATE DOMAIN whole_numbers AS int[];
CREATE TYPE pair AS (a int, b text);
CREATE TYPE text_range AS RANGE (subtype = text);
"""
TEXT = "repeat(md5('x'), 300)"
DIGITS = "(SELECT string_agg(i::text, '')::numeric FROM generate_series(1, 3000) i)"
POINTS = "(SELECT string_agg('(' || i || ',' || i || ')', ',') FROM generate_series(1, 500) i)"
LARGE = {
    "text": TEXT, "varchar(100000)": TEXT, "char(9600)": TEXT, "bytea": f"{TEXT}::bytea", "json": f"to_json({TEXT})",
    "jsonb": f"to_jsonb({TEXT})", "numeric": DIGITS, "words": TEXT, "octets": f"{TEXT}::bytea", "pair": f"ROW(1, {TEXT})",
    "tsvector": "(SELECT to_tsvector('simple', string_agg('w' || i, ' ')) FROM generate_series(1, 1000) i)",
    "jsonpath": "(SELECT string_agg('$.w' || i, ' + ')::jsonpath FROM generate_series(1, 400) i)",
    "numrange": f"numrange({DIGITS}, NULL)", "text_range": f"text_range({TEXT}, NULL)",
    "int4multirange": "(SELECT range_agg(int4range(i * 3, i * 3 + 1)) FROM generate_series(1, 1000) i)",
    "path": f"('[' || {POINTS} || ']')::path", "polygon": f"('(' || {POINTS} || ')')::polygon",
}  # fmt: skip
"""Types that have a placeholder, each with a value of thousands of bytes."""
LARGE_UNTOLD = {
    "varbit": "repeat('1011', 8000)::varbit", "bit(32000)": "repeat('1011', 8000)::bit(32000)",
    "whole_numbers": "array_fill(1, ARRAY[2000])", "vector(1000)": "array_fill(1.5, ARRAY[1000])::vector",
    "halfvec(2000)": "array_fill(1.5, ARRAY[2000])::real[]::halfvec",
    "sparsevec(5000)": "(SELECT ('{' || string_agg(i || ':1.5', ',') || '}/5000')::sparsevec FROM generate_series(1, 900) i)",
}  # fmt: skip
"""Types that Debezium sends null for."""
ELEMENTS = {
    "text": "x", "varchar(10)": "x", "char(3)": "x", "bytea": "x", "json": "1", "jsonb": "1", "int": "1", "bigint": "1",
    "date": "2020-01-01", "uuid": "00000000-0000-0000-0000-000000000001",
}  # fmt: skip
ELEMENTS_UNTOLD = {
    "smallint": "1", "oid": "1", "numeric": "1.5", "numeric(10,2)": "1.5", "real": "1.5", "float8": "1.5", "boolean": "t",
    "time": "10:00", "timetz": "10:00+00", "timestamp": "2020-01-01", "timestamp(3)": "2020-01-01", "pair": "(1,x)",
    "timestamptz": "2020-01-01", "macaddr": "08:00:2b:01:02:03", "inet": "1.2.3.4", "cidr": "10.0.0.0/8", "mood": "ok",
    "box": "(1,2),(3,4)", "circle": "<(1,2),3>", "pg_lsn": "0/1", "xid": "1", '"char"': "c", "tsvector": "a b",
    "int4range": "[1,2)", "daterange": "[2020-01-01,2020-01-02)", "words": "x", "vector": "[1,2]",
}  # fmt: skip
PARTITIONED = """
CREATE TABLE visits (id int, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
INSERT INTO visits VALUES (1, '2026-01-02', 'before the connector')
"""
GENERATED = """
CREATE TABLE sums (id int PRIMARY KEY, note text, loud text GENERATED ALWAYS AS (note || '!') STORED);
INSERT INTO sums VALUES (1, 'a')
"""
TABLES = [
    {"table": "public.told", "keys": ["id"]},
    {"table": "public.untold", "keys": ["id"]},
    {"table": "public.visits", "keys": ["id", "day"]},
    {"table": "public.sums", "keys": ["id"]},
]


def arrays(elements: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}[]": f"array_fill('{value}'::{kind}, ARRAY[2000])" for kind, value in elements.items()}


def create(source: psycopg.Connection[Any], table: str, values: Mapping[str, str]) -> None:
    """A table with one column a type, kept out of line, and one row."""
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(values))
    source.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text, {columns})".encode())
    for n in range(len(values)):
        source.execute(f"ALTER TABLE {table} ALTER c{n} SET STORAGE EXTERNAL".encode())
    source.execute(f"INSERT INTO {table} VALUES (1, 'a', {', '.join(values.values())})".encode())
    toast = source.execute("SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = %s", [table]).fetchone()
    assert toast is not None
    apart = source.execute(f"SELECT count(DISTINCT chunk_id) FROM {toast[0]}".encode()).fetchone()
    assert apart == (len(values),), "each value is stored out of line"


@pytest.mark.covers("postgresql", "debezium", ("type", "snapshot", "large value"), "live")
def test_no_value_left_out_becomes_null_and_no_partition_is_missed(
    kafka: Broker, connect: Connect, source_dsn: str, tmp_path: Path
) -> None:
    """debezium#5353, debezium#6538; every type that PostgreSQL stores out of line, snapshot and stream."""
    path = configured(tmp_path, source_dsn, connect, kafka, TABLES)
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute(TYPES.encode())
        create(source, "told", LARGE | arrays(ELEMENTS))
        create(source, "untold", LARGE_UNTOLD | arrays(ELEMENTS_UNTOLD))
        source.execute(PARTITIONED.encode())
        source.execute(GENERATED.encode())
        (unsure,) = wrong_with_capture(path)
        assert unsure.startswith(
            "public.untold: an unchanged large value cannot be told from NULL in c0 (bit varying), c1"
        )
        assert len(re.findall(r"\bc\d+ \(", unsure)) == len(LARGE_UNTOLD | ELEMENTS_UNTOLD)
        assert unsure.endswith('Run: ALTER TABLE "public"."untold" REPLICA IDENTITY FULL')
        assert [note.partition(" has no ")[0] for note in capture_checks.notes(load_config(path))] == [
            "capture: the database",
            "capture: the worker",
        ]
        with captured_by(path, connect, kafka) as topics:
            assert wrong_with_capture(path) == capture_checks.notes(load_config(path)) == []
            before = topics.rows(4)
            for table in ("told", "untold", "sums"):
                source.execute(f"UPDATE {table} SET note = 'b'".encode())
            source.execute("CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
            source.execute("INSERT INTO visits VALUES (2, '2026-02-02', 'a later partition')")
            source.execute("UPDATE visits SET day = '2026-02-03' WHERE id = 1")
            after = topics.rows(4 + 3 + 1 + 2)
            for table in ("public.told", "public.untold"):
                (old,), (new,) = before[table].values(), after[table].values()
                assert len(old.values()) == 2 + source_columns(source, table)
                assert new.values() == old.values() | {"note": "b"}
                assert not new.unresolved(list(old.values()))
                assert None not in new.values().values()
            assert [row.values() for row in after["public.sums"].values()] == [{"id": 1, "note": "b", "loud": "b!"}]
            visits = [tuple(row.values().values()) for row in after["public.visits"].values() if row.exists]
            assert sorted(visits) == [(1, "2026-02-03", "before the connector"), (2, "2026-02-02", "a later partition")]
            source.execute("UPDATE told SET c3 = NULL, c11 = NULL")
            source.execute("UPDATE untold SET c3 = NULL, c8 = NULL")
            ended = topics.rows(4 + 3 + 1 + 2 + 2)
            assert_a_connector_that_differs_is_wrong(path, connect)
            assert [n for n, v in next(iter(ended["public.told"].values())).values().items() if v is None] == [
                "c3",
                "c11",
            ]
            assert [n for n, v in next(iter(ended["public.untold"].values())).values().items() if v is None] == [
                "c3",
                "c8",
            ]


def source_columns(source: psycopg.Connection[Any], table: str) -> int:
    query = "SELECT count(*) FROM pg_attribute WHERE attrelid = %s::regclass AND attname ~ '^c[0-9]'"
    row = source.execute(query, [table]).fetchone()
    assert row is not None
    return int(row[0])


def assert_a_connector_that_differs_is_wrong(path: Path, connect: Connect) -> None:
    config = load_config(path)
    (capture,) = config.capture
    assert isinstance(capture, DebeziumCaptureConfig)
    settings = connector_settings(capture, config.name)
    assert settings is not None
    connect.put_connector(config.name, settings | {"binary.handling.mode": "base64"})
    (differs,) = wrong_with_capture(path)
    assert "binary.handling.mode is base64, not bytes" in differs
    assert capture.dsn.get_secret_value() not in differs


@pytest.mark.covers("postgresql", "debezium", "key change", "live")
def test_keys_that_are_no_primary_key_are_those_of_records(
    kafka: Broker, connect: Connect, source_dsn: str, tmp_path: Path
) -> None:
    docs = {"table": "public.docs", "keys": ["tenant", "Code: 1"]}
    path = configured(tmp_path, source_dsn, connect, kafka, [docs])
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute(
            'CREATE TABLE docs (id int PRIMARY KEY, "Code: 1" text NOT NULL, tenant int NOT NULL, UNIQUE (tenant, "Code: 1"))'
        )
        source.execute("ALTER TABLE docs REPLICA IDENTITY FULL")
        source.execute("INSERT INTO docs VALUES (1, 'a', 7)")
        with captured_by(path, connect, kafka) as topics:
            assert wrong_with_capture(path) == []
            topics.rows(1)
            source.execute("""UPDATE docs SET "Code: 1" = 'b'""")
            (row,) = (state for state in topics.rows(3)["public.docs"].values() if state.exists)
            assert row.values() == {"id": 1, "Code: 1": "b", "tenant": 7}
            seen = [json.loads(record.key or b"null") for record in topics.records]
            assert seen == [{"tenant": 7, "Code: 1": code} for code in ("a", "a", "b")], (
                "the connector tells it in halves"
            )
            config = load_config(path)
            settings = connector_settings(cast("DebeziumCaptureConfig", config.capture[0]), config.name) or {}
            del settings["message.key.columns"]
            connect.put_connector(config.name, settings)
            (differs,) = wrong_with_capture(path)
            assert "message.key.columns is not set" in differs
