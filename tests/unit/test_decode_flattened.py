"""Rows that ExtractNewRecordState flattened: with their order they are Debezium's changes, without it rejects that say how."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from schemas.changes import Changes, Ignored, Reject
from schemas.records import Record
from tests.recorded import CONTEXT, compact, records
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import coordinates, decode, seen_schema

FLATTENED = replace(CONTEXT, envelope="flattened")
SOURCE = ("connector", "db", "schema", "table", "snapshot", "name")
PLACES = (
    "sequence",
    "lsn",
    "file",
    "pos",
    "row",
    "commit_lsn",
    "change_lsn",
    "event_serial_no",
    "scn",
    "commit_scn",
    "txSeq",
    "rs_id",
    "ssn",
    "lcr_position",
)


def flattened(record: Record, *, prefix: str = "__source_", without: tuple[str, ...] = ()) -> Record | None:
    """A record as the transformation writes it in mode rewrite; None for what it drops."""
    document = json.loads(record.value or b"null")
    block, payload = (
        (document["schema"], document["payload"]) if document and "schema" in document else (None, document)
    )
    if payload is None or payload.get("op") in {"t", "m"}:
        return None
    if "op" not in payload:
        return record
    gone = payload["op"] == "d"
    fields = {"__op": payload["op"], "__deleted": "true" if gone else "false"}
    fields |= {f"{prefix}{n}": payload["source"][n] for n in (*SOURCE, *PLACES) if n in payload["source"]}
    fields["__source_ts_us"] = payload["source"]["ts_us"]
    row = payload["before" if gone else "after"] | {n: v for n, v in fields.items() if n not in without}
    if block is None:
        return record._replace(value=compact(row))
    columns = next(f["fields"] for f in block["fields"] if f["field"] == "after")
    added = [{"type": "string", "optional": True, "field": name} for name in fields if name not in without]
    struct = {"type": "struct", "fields": [*columns, *added], "optional": False, "name": "row"}
    return record._replace(value=compact({"schema": struct, "payload": row}))


@pytest.mark.covers(
    ("postgresql", "mariadb"), "debezium", ("type", "snapshot", "delete", "key change", "large value"), "recorded"
)
@pytest.mark.covers(("sqlserver", "oracle"), "debezium", "type", "made")
@pytest.mark.parametrize("prefix", ["__source_", "__"])
@pytest.mark.parametrize(
    "name",
    [
        "pg15_plain", "pg15_schemas", "mariadb1011_plain", "mariadb1011_schemas", "mariadb114_schemas",
        "sqlserver_precise_schemas", "oracle_string_schemas",
    ],
)  # fmt: skip
def test_every_recorded_change_means_the_same_flattened(name: str, prefix: str) -> None:
    ends: Counter[str] = Counter()
    for record in records(name):
        flat = flattened(record, prefix=prefix)
        if flat is None:
            continue
        expected, meaning = decode(record, CONTEXT), decode(flat, FLATTENED)
        ends[type(meaning).__name__] += 1
        if isinstance(expected, Changes) and expected.changes[-1].schema_id and isinstance(meaning, Changes):
            announced = [seen_schema(one, of) for one, of in ((record, CONTEXT), (flat, FLATTENED))]
            assert announced[0] == announced[1]
        assert meaning == expected
        short = coordinates(flat.value or b"", flat.stream, flat.position, FLATTENED)
        if short is not None:
            assert isinstance(meaning, Changes)
            change = meaning.changes[-1]
            assert short[:5] == (change.table, change.op, change.sequence, change.commit_time_us, change.key)
    assert ends["Changes"]


def row(**fields: Any) -> Record:
    place = {"__op": "u", "__source_sequence": '["990","1000"]', "__source_schema": "inv", "__source_table": "items"}
    return Record("kb.inv.items", "0", "3", b'{"id":7}', compact({"id": 7, "name": "x"} | place | fields))


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ("__op", "__op"),
        ("__source_sequence", "source.sequence"),
    ],
)
def test_a_row_without_its_order_is_a_reject_that_names_the_setting(lacks: str, says: str) -> None:
    whole = json.loads(row().value or b"")
    del whole[lacks]
    meaning = decode(row()._replace(value=compact(whole)), FLATTENED)
    assert isinstance(meaning, Reject)
    assert meaning.condition == "FLATTENED_WITHOUT_ORDER"
    assert "add.fields=op," in meaning.message
    assert says in meaning.message


def test_an_engines_fields_that_lack_one_are_a_reject_naming_all() -> None:
    fields = {"__source_connector": "sqlserver", "__source_db": "shop", "__source_commit_lsn": "00000025:00000d98:00a2"}
    meaning = decode(row(**fields, __source_sequence=None), FLATTENED)
    assert isinstance(meaning, Reject)
    assert "source.change_lsn" in meaning.message
    assert "(for sqlserver)" in meaning.message


def test_epochs_need_the_commit_time() -> None:
    ordered = replace(FLATTENED, epoch_starts_us=(1_000_000,))
    meaning = decode(row(), ordered)
    assert isinstance(meaning, Reject)
    assert "source.ts_us" in meaning.message
    later = decode(row(__source_ts_us=2_000_000), ordered)
    assert isinstance(later, Changes)
    assert later.changes[0].sequence.startswith("0001")


def test_a_table_is_known_by_its_topic_where_no_field_names_it() -> None:
    whole = json.loads(row().value or b"")
    unnamed = compact(
        {name: value for name, value in whole.items() if name not in {"__source_schema", "__source_table"}}
    )
    meaning = decode(row()._replace(value=unnamed), FLATTENED)
    assert isinstance(meaning, Changes)
    assert (meaning.changes[0].table, dict(meaning.changes[0].columns)) == ("inv.items", {"id": 7, "name": "x"})
    other = decode(row()._replace(value=unnamed, stream="elsewhere"), FLATTENED)
    assert isinstance(other, Ignored)


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_is_no_delete_that_can_be_ordered(value: bytes | None) -> None:
    meaning = decode(row()._replace(value=value), FLATTENED)
    assert isinstance(meaning, Reject)
    assert meaning.condition == "DELETE_WITHOUT_ORDER"
    assert "delete.tombstone.handling.mode=rewrite" in meaning.message


def test_what_is_no_row_is_counted_and_an_envelope_a_reject() -> None:
    assert decode(row()._replace(value=b'{"ts_ms":1}'), FLATTENED) == Ignored("heartbeat")
    assert decode(row()._replace(value=b'{"status":"BEGIN","id":"1"}'), FLATTENED) == Ignored("transaction marker")
    envelope = {"op": "c", "source": {"connector": "postgresql"}, "after": {"id": 1}}
    meaning = decode(row()._replace(value=compact(envelope)), FLATTENED)
    assert isinstance(meaning, Reject)


def test_debezium_names_the_envelope_that_a_flattened_row_needs() -> None:
    meaning = decode(row(), CONTEXT)
    assert isinstance(meaning, Reject)
    assert "envelope: flattened" in meaning.message


KEYED = DecodeContext("debezium", {"public.t": TableContext("public.t", ("tenant", "code"))})


def update(before: dict[str, Any] | None, after: dict[str, Any], key: dict[str, Any] | None) -> Changes:
    source = {"connector": "postgresql", "schema": "public", "table": "t", "sequence": '["1","2"]'}
    value = {"before": before, "after": after, "source": source, "op": "u"}
    record = Record("kb.public.t", "0", "3", compact(key), compact(value))
    meaning = decode(record, KEYED)
    assert isinstance(meaning, Changes)
    assert coordinates(record.value or b"", record.stream, record.position, KEYED) is None or len(meaning.changes) == 1
    return meaning


OLD, NEW = {"id": 1, "tenant": "a", "code": 7, "note": "x"}, {"id": 1, "tenant": "a", "code": 8, "note": "x"}


@pytest.mark.covers("postgresql", "debezium", "key change", "documented")
@pytest.mark.parametrize("key", [None, {"id": 1}])
def test_an_update_of_a_key_not_the_records_moves_the_row(key: dict[str, Any] | None) -> None:
    gone, change = update(OLD, NEW, key).changes
    assert (gone.op, gone.key, gone.new_key) == ("d", '{"tenant":"a","code":7}', change.key)
    assert (change.op, change.key, change.old_key) == ("u", '{"tenant":"a","code":8}', gone.key)
    assert gone.sequence == change.sequence


def test_the_connector_itself_splits_an_update_of_its_own_key() -> None:
    """An old row that holds the primary key alone has other key columns filled with defaults."""
    (change,) = update({"id": 1, "tenant": "", "code": 0, "note": None}, NEW, {"tenant": "a", "code": 8}).changes
    assert (change.key, change.old_key) == ('{"tenant":"a","code":8}', None)


@pytest.mark.parametrize("before", [None, NEW, {"id": 1, "tenant": None, "code": None, "note": None}])
def test_an_update_that_keeps_its_key_is_one_change(before: dict[str, Any] | None) -> None:
    assert len(update(before, NEW, {"id": 1}).changes) == 1
