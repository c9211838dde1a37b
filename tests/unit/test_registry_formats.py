"""Avro and JSON Schema in a registry's frame: every recorded event means what the JSON converter's record of it means."""

from __future__ import annotations

import json
import uuid
import zlib
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.changes import Changes, Decoded, Ignored, Reject, SeenSchema
from schemas.records import Record
from tests.recorded import CONTEXT, FIXTURES, records
from tests.registered import Known, adjusted, as_registered, encoded, framed
from transforms.context import DecodeContext, TableContext
from transforms.envelopes import avro
from transforms.envelopes.decode import coordinates, decode, seen_schema
from transforms.envelopes.registry import RegisteredSchema, RegistryKind

RECORDINGS = sorted(path.stem for path in FIXTURES.glob("*_schemas*.jsonl"))
TABLE = "public.docs"
DOCS = DecodeContext("debezium", {TABLE: TableContext(TABLE, ("id",))})
SOURCE = {
    "type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
        {"name": name, "type": kind} for name, kind in (
            ("connector", "string"), ("schema", "string"), ("table", "string"), ("sequence", "string"), ("ts_us", "long"),
        )
    ],
}  # fmt: skip
COMMIT = {"connector": "postgresql", "schema": "public", "table": "docs", "sequence": '["990","1000"]', "ts_us": 1}


def renamed(meaning: Decoded) -> Decoded:
    """What a record means with its columns' names adjusted, and so without the id of its schema, which is a digest of them."""
    if not isinstance(meaning, Changes):
        return meaning
    changes = tuple(
        replace(
            change,
            columns={adjusted(name): value for name, value in change.columns.items()},
            unavailable=tuple(map(adjusted, change.unavailable)),
            schema_id=None,
        )
        for change in meaning.changes
    )
    return Changes(changes, meaning.unfit)


@pytest.mark.covers(
    ("postgresql", "mariadb"),
    "debezium",
    ("type", "snapshot", "delete", "key change", "truncate", "large value"),
    "recorded",
)
@pytest.mark.covers(("sqlserver", "oracle"), "debezium", "type", "made")
@pytest.mark.parametrize("kind", ["confluent", "glue"])
@pytest.mark.parametrize("form", ["AVRO", "JSON"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_event_means_the_same_in_every_form(name: str, form: str, kind: RegistryKind) -> None:
    registry = Known(kind)
    context = replace(CONTEXT, registry=registry)
    landed = 0
    for record in records(name):
        other = as_registered(record, form, kind, registry.register)
        assert other.value is None or other.value[:1] in {b"\0", b"\3"}
        expected, meaning = decode(record, CONTEXT), decode(other, context)
        assert renamed(meaning) == renamed(expected)
        assert other.value is None or coordinates(other.value, record.stream, record.position, context) is None
        if isinstance(expected, Changes) and expected.changes[-1].schema_id:
            landed += 1
            types, others = seen_schema(record, CONTEXT), seen_schema(other, context)
            assert types is not None
            assert others is not None
            assert adjusted_names(types) == adjusted_names(others)
    assert landed
    assert {schema.format for schema in registry.schemas.values()} == {form}


def adjusted_names(announced: SeenSchema) -> dict[str, str]:
    return {adjusted(column): kind for column, kind in announced.columns.items()}


def docs(columns: dict[str, Any], row: dict[str, Any], op: str = "c") -> tuple[Record, DecodeContext]:
    """A record of a table whose columns have these Avro types."""
    value = {
        "type": "record",
        "name": "Value",
        "namespace": "kb",
        "fields": [{"name": n, "type": t} for n, t in columns.items()],
    }
    fields = [
        {"name": "before", "type": ["null", value]}, {"name": "after", "type": ["null", "kb.Value"]},
        {"name": "source", "type": SOURCE}, {"name": "op", "type": "string"},
    ]  # fmt: skip
    schema = {"type": "record", "name": "Envelope", "namespace": "kb", "fields": fields}
    registry = Known("confluent")
    name = registry.register(RegisteredSchema("AVRO", json.dumps(schema)))
    payload = {"before": row if op == "d" else None, "after": None if op == "d" else row, "source": COMMIT, "op": op}
    return Record("t", "0", "3", None, framed("confluent", name, encoded(schema, payload))), replace(
        DOCS, registry=registry
    )


def columns_of(record: Record, context: DecodeContext) -> dict[str, Any]:
    meaning = decode(record, context)
    assert isinstance(meaning, Changes), meaning
    return dict(meaning.changes[-1].columns)


def test_logical_types_without_connects_names_are_read_by_themselves() -> None:
    def logical(kind: str, name: str, **more: int) -> dict[str, Any]:
        return {"type": kind, "logicalType": name, **more}

    kinds = {
        "id": "long", "price": logical("bytes", "decimal", precision=10, scale=2), "day": logical("int", "date"),
        "at": logical("long", "timestamp-micros"), "clock": logical("long", "time-micros"), "raw": "bytes",
        "code": {"type": "fixed", "name": "Code", "size": 2}, "mood": {"type": "enum", "name": "Mood", "symbols": ["sad", "ok"]},
        "tags": {"type": "array", "items": ["null", "string"]}, "odd": ["null", "string", "bytes"],
    }  # fmt: skip
    row = {
        "id": 7, "price": (12345).to_bytes(2, "big"), "day": 19_782, "at": 1_709_210_096_123_456, "clock": 3_600_000_001,
        "raw": b"\0\1", "code": b"ab", "mood": "ok", "tags": ["a", None], "odd": b"\2",
    }  # fmt: skip
    record, context = docs(kinds, row)
    assert columns_of(record, context) == {
        "id": 7, "price": Decimal("123.45"), "day": "2024-02-29", "at": "2024-02-29T12:34:56.123456", "clock": "01:00:00.000001",
        "raw": "AAE=", "code": "YWI=", "mood": "ok", "tags": ["a", None], "odd": "Ag==",
    }  # fmt: skip
    announced = seen_schema(record, context)
    assert announced is not None
    assert {announced.columns[n] for n in ("price", "day", "at", "tags")} == {
        "decimal(10,2)",
        "date",
        "timestamp",
        "array<text>",
    }


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_has_the_digits_of_java(value: float) -> None:
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    first, *rest = map(str, digits)
    power = len(rest) + int(exponent)
    plain = value == 0 or 1e-3 <= abs(value) < 1e7
    java = repr(value) if plain else f"{'-' * sign}{first}.{''.join(rest) or '0'}E{power}"
    exact = avro.parsed('"double"').read(encoded("double", value))
    assert str(exact) == str(Decimal(java))
    assert float(exact) == value


def test_floats_are_shortest_and_special_ones_are_text() -> None:
    real, double = avro.parsed('"float"'), avro.parsed('"double"')
    assert str(real.read(encoded("float", float(np.float32(0.1))))) == "0.1"
    assert str(double.read(encoded("double", 1e10))) == "1.0E+10"
    assert str(double.read(encoded("double", 100.0))) == "100.0"
    assert [double.read(encoded("double", float(text))) for text in ("nan", "inf", "-inf")] == [
        "NaN",
        "Infinity",
        "-Infinity",
    ]


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        (b"\0\0\0\0\1\2", "MALFORMED_AVRO"),
        (b"\0\0\0\0\1", "MALFORMED_AVRO"),
        (b"\0\0\0\0\2{}", "REGISTRY_SCHEMA_MISSING"),
        (b"\0\0\0\0\3x", "REGISTRY_FORMAT"),
        (b"\0\0\0\0\4x", "REGISTRY_SCHEMA"),
        (b"\0\0", "REGISTRY_FRAME_CUT"),
        (b"\3\0" + uuid.UUID(int=7).bytes, "REGISTRY_FRAMED"),
    ],
)
def test_what_cannot_be_read_is_a_reject_with_its_reason(value: bytes, condition: str) -> None:
    record, context = docs({"id": "long"}, {"id": 1})
    assert isinstance(context.registry, Known)
    context.registry.register(RegisteredSchema("AVRO", '"kept"'))
    context.registry.schemas = {
        "1": context.registry.schemas["1"], "3": RegisteredSchema("PROTOBUF", "syntax"), "4": RegisteredSchema("AVRO", "{]"),
    }  # fmt: skip
    meaning = decode(record._replace(value=value), context)
    assert isinstance(meaning, Reject)
    assert meaning.condition == condition
    assert "kept" not in meaning.message


def test_a_value_longer_than_its_schema_is_no_value_of_it() -> None:
    record, context = docs({"id": "long"}, {"id": 1})
    meaning = decode(record._replace(value=(record.value or b"") + b"\0"), context)
    assert isinstance(meaning, Reject)
    assert meaning.condition == "MALFORMED_AVRO"


@pytest.mark.parametrize(
    "body", [b"", b"\x78\x9c", zlib.compress(b"{}")[:-2], b"no zlib"], ids=["empty", "begun", "cut", "other"]
)
def test_damaged_zlib_is_a_reject(body: bytes) -> None:
    registry = Known("glue")
    name = registry.register(RegisteredSchema("JSON", "{}"))
    value = framed("glue", name, b"", compressed=False)
    value = value[:1] + b"\5" + value[2:] + body
    meaning = decode(Record("t", "0", "1", None, value), replace(DOCS, registry=registry))
    assert isinstance(meaning, Reject)
    assert meaning.condition == "REGISTRY_COMPRESSION"


def test_a_value_that_inflates_without_end_is_a_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.envelopes.registry.MAX_PAYLOAD_BYTES", 1000)
    registry = Known("glue")
    name = registry.register(RegisteredSchema("JSON", "{}"))
    meaning = decode(
        Record("t", "0", "1", None, framed("glue", name, b" " * 10_000 + b"{}", compressed=True)),
        replace(DOCS, registry=registry),
    )
    assert isinstance(meaning, Reject)
    assert meaning.condition == "REGISTRY_COMPRESSION"


def test_a_deleted_rows_key_is_read_from_a_framed_key() -> None:
    record, context = docs({"id": "long"}, {"id": 1}, "d")
    assert isinstance(context.registry, Known)
    schema = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
    name = context.registry.register(RegisteredSchema("AVRO", json.dumps(schema)))
    empty, _ = docs({"id": "long"}, {"id": 1}, "d")
    record = empty._replace(key=framed("confluent", name, encoded(schema, {"id": 9})))
    meaning = decode(record, context)
    assert isinstance(meaning, Changes)
    assert meaning.changes[0].key == '{"id":1}'
    assert decode(record._replace(value=b""), context) == Ignored("tombstone")


def test_apicurios_ids_of_eight_bytes_are_read() -> None:
    record, context = docs({"id": "long"}, {"id": 1})
    value = b"\0" + (1).to_bytes(8, "big") + (record.value or b"")[5:]
    assert columns_of(record._replace(value=value), context) == {"id": 1}


def test_a_schema_is_read_with_those_that_it_refers_to() -> None:
    address = '{"type":"record","name":"Address","namespace":"kb","fields":[{"name":"raw","type":"bytes"}]}'
    person = '{"type":"record","name":"Person","namespace":"kb","fields":[{"name":"home","type":"kb.Address"}]}'
    schema = avro.parsed(person, (address,))
    assert schema.read(encoded("bytes", b"\1")) == {"home": {"raw": "AQ=="}}
    assert schema.field["fields"][0]["fields"] == [{"type": "bytes", "optional": False, "field": "raw"}]


def test_a_schema_that_holds_itself_is_read() -> None:
    node = {
        "type": "record",
        "name": "Node",
        "fields": [{"name": "raw", "type": "bytes"}, {"name": "next", "type": ["null", "Node"]}],
    }
    record, context = docs(
        {"id": "long", "list": node}, {"id": 1, "list": {"raw": b"\1", "next": {"raw": b"\2", "next": None}}}
    )
    assert columns_of(record, context)["list"] == {"raw": "AQ==", "next": {"raw": "Ag==", "next": None}}
