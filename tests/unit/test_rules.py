"""Columns that must not travel: no byte of them is in what a record means or in what landing keeps of it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lake.history.current import record_of
from lake.landing.decoding import decoded
from lake.landing.landed_files import LandPartition, Outcome
from schemas.changes import Changes, Decoded, Ignored, Reject
from schemas.records import Record
from schemas.tables import Rule
from tests.recorded import CONTEXT, FIXTURES, records
from tests.unit.test_lake_landed_files import batch
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.envelopes.stored import HEADER
from transforms.values import exact_json
from transforms.values.rules import MASK, may_keep_bytes

KEY = b"a key of the pipeline"
TABLE = "public.people"
RULES: Mapping[str, Rule] = {"email": "hash", "ssn": "drop", "name": "mask"}
CANARY = "canary-51c0"
KINDS: dict[str, Any] = {
    "text": CANARY, "json": {"a": [CANARY]}, "array": ["x", CANARY], "bytes": base64.b64encode(CANARY.encode()).decode(),
    "wide": 98765432109876543210, "decimal": 1234.5678901, "quoted": f'"{CANARY}"\\', "unicode": f"é{CANARY}\ud800",
}  # fmt: skip
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HEADERS = (("__debezium.oldkey", json.dumps({"email": f"old {CANARY}"}).encode()), ("trace", CANARY.encode()))


def context(
    envelope: Any, rules: Mapping[str, Rule] = RULES, keys: Sequence[str] = ("email",), **more: Any
) -> DecodeContext:
    table = TableContext(TABLE, tuple(keys), more.pop("columns", {}), (), rules)
    return DecodeContext(envelope, {TABLE: table}, hash_key=KEY, **more)


def hashed(text: str) -> str:
    return hmac.new(KEY, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def row(value: Any) -> dict[str, Any]:
    return {"id": 1, "email": f"{CANARY}@x", "ssn": value, "name": value, "plain": "stays"}


def debezium(op: str, value: Any, *, schema: bool = False, **source: Any) -> bytes:
    image = row(value)
    payload = {
        "op": op, "before": image, "after": None if op == "d" else image, "transaction": {"id": CANARY},
        "source": {"schema": "public", "table": "people", "lsn": 7, "ts_us": 1, "query": f"UPDATE … '{CANARY}'"} | source,
    }  # fmt: skip
    if not schema:
        return json.dumps(payload).encode()
    kinds = {"id": "int64", "email": "string", "ssn": "string", "name": "string", "plain": "string"}
    fields = [{"field": name, "type": kind, "optional": True, "default": CANARY} for name, kind in kinds.items()]
    block = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]}
    return json.dumps({"schema": block, "payload": payload}).encode()


def dms(operation: str, value: Any, **more: Any) -> bytes:
    metadata = {
        "record-type": "data", "operation": operation, "schema-name": "public", "table-name": "people",
        "timestamp": "2026-03-01T10:00:01Z", "commit-timestamp": "2026-03-01T10:00:01Z",
        "stream-position": "00000002/7C007328.2.00000002/7C007328",
    }  # fmt: skip
    before = {"before-image": row(value) | {"email": f"old {CANARY}"}} if operation == "update" else {}
    image = row(value)
    if before:  # old values also in columns that `before_image` does not name
        image |= {f"BI_{name}": image[name] for name in RULES}
    return json.dumps({"data": image, **before, "metadata": metadata | more}).encode()


def events(value: Any) -> list[tuple[DecodeContext, Record]]:
    """A record of every envelope, form and operation, each with the value in every place that has room for it."""
    key = f"public.people.{CANARY}".encode()
    values = [debezium(op, value, schema=schema) for op in "crud" for schema in (False, True)]
    cases = [(context("debezium"), Record("t", "0", str(at), key, v, HEADERS)) for at, v in enumerate(values)]
    values = [dms(operation, value) for operation in ("load", "insert", "update", "delete")]
    return cases + [(context("dms"), Record("s", "0", str(at), key, v)) for at, v in enumerate(values)]


def poison() -> list[tuple[DecodeContext, Record]]:
    """Records that are rejects, each with the value in it."""
    no_key = debezium("c", CANARY).replace(b'"email"', b'"mail"')
    values = [b"{" + CANARY.encode(), json.dumps([CANARY]).encode(), no_key, debezium("c", CANARY, lsn="x")]
    cases = [(context("debezium"), Record("t", "1", str(at), b"k", v, HEADERS)) for at, v in enumerate(values)]
    values = [b"{" + CANARY.encode(), dms("insert", CANARY).replace(b'"email"', b'"mail"'), dms(CANARY, CANARY)]
    values.append(dms("insert", CANARY, **{"stream-position": CANARY}))
    return cases + [(context("dms"), Record("s", "1", str(at), b"k", v)) for at, v in enumerate(values)]


def landed(
    folder: Path, cases: Sequence[tuple[DecodeContext, Record]]
) -> tuple[dict[str, list[dict[str, Any]]], Outcome]:
    """The rows that landing writes into files, which no test commits, and the outcome."""
    total, rows = Outcome(), dict[str, list[dict[str, Any]]]()
    for at, (settings, record) in enumerate(cases):
        root = folder / str(at)
        (result,) = LandPartition(str(root), "kb", settings, decoded, NOW)([batch([record])])
        total.add(pickle.loads(result["outcome"][0].as_py()))  # noqa: S301 - made one line above
        for file in root.rglob("*.parquet"):
            rows.setdefault(file.relative_to(root).parts[0], []).extend(pq.read_table(file).to_pylist())
    return rows, total


def forms(value: Any) -> list[str]:
    """How a value may stand in a text."""
    texts = [str(value)] if isinstance(value, (int, float)) else [CANARY, base64.b64encode(CANARY.encode()).decode()]
    return [*texts, CANARY]


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_a_ruled_column_is_kept_of_any_record(tmp_path: Path, kind: str) -> None:
    cases = events(KINDS[kind])
    rows, outcome = landed(tmp_path, cases)
    assert (len(rows["changes"]), outcome.tally.rejected.total()) == (len(cases), 0)
    meanings = [decode(record, settings) for settings, record in cases]
    for text in forms(KINDS[kind]):
        assert text not in repr(meanings)
        assert text not in repr(rows)
        assert text not in repr(outcome)
    changes = [change for meaning in meanings if isinstance(meaning, Changes) for change in meaning.changes]
    keys = {key for change in changes for key in (change.key, change.old_key, change.new_key) if key}
    assert keys == {exact_json.dumps({"email": hashed(text)}) for text in (f"{CANARY}@x", f"old {CANARY}")}
    whole = [change.columns for change in changes if change.op in "cr"]
    assert whole
    assert all(c == {"id": 1, "email": hashed(f"{CANARY}@x"), "name": MASK, "plain": "stays"} for c in whole)
    for change_row, meaning in zip(rows["changes"], meanings, strict=True):
        assert (change_row["key"], [h["key"] for h in change_row["headers"]]) == (None, [HEADER])
        settings = next(s for s, r in cases if r.stream == change_row["stream"])
        assert decode(record_of(change_row), settings) == meaning


def test_rejects_of_a_ruled_table_keep_coordinates_and_no_bytes(tmp_path: Path) -> None:
    cases = poison()
    rows, outcome = landed(tmp_path, cases)
    assert outcome.tally.rejected.total() == len(rows["rejects"]) == len(cases)
    assert all((r["key"], r["value"], r["headers"]) == (None, None, None) for r in rows["rejects"])
    assert {(r["stream"], r["position"]) for r in rows["rejects"]} == {(r.stream, r.position) for _, r in cases}
    assert CANARY not in repr((rows, outcome))


def test_a_column_that_does_not_fit_leaves_no_bytes(tmp_path: Path) -> None:
    settings = context("dms", columns={"plain": "date"})
    late = dms("insert", CANARY).replace(b'"stays"', b"99999999999")
    rows, _ = landed(tmp_path, [(settings, Record("s", "0", "1", None, late))])
    (reject,), (change,) = rows["rejects"], rows["changes"]
    assert (reject["column"], reject["value"], reject["_key"]) == ("plain", None, change["_key"])
    assert CANARY not in repr(rows)


@pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("*.jsonl")))
def test_what_is_kept_of_a_recorded_event_means_what_the_event_did(tmp_path: Path, name: str) -> None:
    names = ("name", "NAME", "body", "amount", "price", "m", "tags")
    rules: dict[str, Rule] = dict(zip(names, ("hash", "drop", "mask") * 3, strict=False))
    tables = {table: replace(t, rules=rules) for table, t in CONTEXT.tables.items()}
    ruled = replace(CONTEXT, tables=tables, hash_key=KEY)
    read = list(records(name))
    (result,) = LandPartition(str(tmp_path), "kb", ruled, decoded, NOW)([batch(read)])
    outcome: Outcome = pickle.loads(result["outcome"][0].as_py())  # noqa: S301 - made one line above
    rows = [row for file in tmp_path.glob("changes/**/*.parquet") for row in pq.read_table(file).to_pylist()]
    kept = {(r["stream"], r["partition"], r["position"]): decode(record_of(r), ruled) for r in rows}
    meanings = {(r.stream, r.partition, r.position): decode(r, ruled) for r in read}
    assert kept == {place: replace(m, unfit=()) for place, m in meanings.items() if isinstance(m, Changes)}
    assert kept
    plain = {(r.stream, r.partition, r.position): decode(r, CONTEXT) for r in read}
    assert {place: unaffected(m) for place, m in meanings.items()} == {
        place: unaffected(m) for place, m in plain.items()
    }
    ids = {row["_schema_id"] for row in rows if row["_schema_id"]}
    assert ids <= {schema_id for _, schema_id in outcome.tally.schemas}


def unaffected(meaning: Decoded) -> object:
    """What the rules leave as it is."""
    if not isinstance(meaning, Changes):
        return type(meaning), getattr(meaning, "condition", None) or getattr(meaning, "reason", None)
    return [(c.table, c.op, c.sequence, c.key, c.complete, c.commit_time_us) for c in meaning.changes]


def test_a_stored_hash_stays_under_other_rules_and_a_dropped_column_goes(tmp_path: Path) -> None:
    record = Record("s", "0", "1", None, dms("insert", CANARY))
    rows, _ = landed(tmp_path, [(context("dms"), record)])
    stored = record_of(rows["changes"][0])

    def columns(rules: Mapping[str, Rule]) -> Mapping[str, Any]:
        meaning = decode(stored, context("dms", rules))
        assert isinstance(meaning, Changes)
        return meaning.changes[-1].columns

    assert columns({"email": "hash", "name": "hash"})["name"] == MASK
    assert columns({})["email"] == columns({"Email": "hash"})["email"] == hashed(f"{CANARY}@x")
    assert "plain" not in columns({"plain": "drop"})
    assert columns({"plain": "hash"})["plain"] == hashed("stays")


def test_a_stored_change_moves_with_epochs_that_are_noted_later(tmp_path: Path) -> None:
    record = Record("s", "0", "1", None, dms("insert", CANARY))
    rows, _ = landed(tmp_path, [(context("dms"), record)])
    later = context("dms", epoch_starts_us=(1,))
    assert decode(record_of(rows["changes"][0]), later) == decode(record, later)


@pytest.mark.parametrize("ruled", ["ssn", "social_no"])
def test_a_renamed_column_has_its_rule_under_either_name(ruled: str) -> None:
    settings = context("dms", {ruled: "drop"})
    table = replace(settings.tables[TABLE], renamed={"social_no": "ssn"})
    settings = replace(settings, tables={TABLE: table})
    both = dms("insert", CANARY).replace(b'"name"', b'"social_no"').replace(CANARY.encode() + b"@x", b"k")
    one = both.replace(b'"ssn"', b'"other_name_of_nothing"').replace(
        f'"other_name_of_nothing": "{CANARY}", '.encode(), b""
    )
    for value in (both, one):
        (change,) = changes_of(decode(Record("s", "0", "1", None, value), settings))
        assert CANARY not in repr(change)
        assert change.columns == {"id": 1, "email": "k", "plain": "stays"}


def test_a_hash_under_the_records_name_stands_when_read_again(tmp_path: Path) -> None:
    settings = context("dms", {"social_no": "hash"}, ("id",))
    table = replace(settings.tables[TABLE], renamed={"social_no": "ssn"})
    settings = replace(settings, tables={TABLE: table})
    record = Record("s", "0", "1", None, dms("insert", CANARY).replace(b'"ssn"', b'"social_no"'))
    rows, _ = landed(tmp_path, [(settings, record)])
    (change,) = changes_of(decode(record_of(rows["changes"][0]), settings))
    assert change.columns["ssn"] == hashed(CANARY)


def test_equal_values_have_equal_hashes_in_every_envelope_and_null_none() -> None:
    numbers = context("dms", {"id": "hash", "name": "hash", "ssn": "mask"}, ("id",))
    (change,) = changes_of(decode(Record("s", "0", "1", None, dms("insert", None)), numbers))
    assert (change.key, change.columns["name"], change.columns["ssn"]) == (
        exact_json.dumps({"id": hashed("1")}),
        None,
        None,
    )
    as_text = replace(numbers, envelope="debezium")
    value = debezium("c", None).replace(b'"id": 1', b'"id": "1"')
    (other,) = changes_of(decode(Record("s", "0", "1", None, value), as_text))
    assert other.key == change.key


def changes_of(meaning: Decoded) -> Sequence[Any]:
    assert isinstance(meaning, Changes)
    return meaning.changes


def test_a_record_of_a_stream_cannot_pass_for_a_stored_one() -> None:
    for settings in (context("debezium"), context("debezium", {})):
        meaning = decode(Record("t", "0", "1", None, debezium("c", CANARY), ((HEADER, b"1"),)), settings)
        assert isinstance(meaning, Reject)
        assert meaning.condition == "RESERVED_HEADER"


def test_announced_types_follow_the_rules_and_keep_no_default() -> None:
    columns = {"email": {"type": "STRING"}, "ssn": {"type": "INT4"}, "name": {"type": "INT4"}, "id": {"type": "INT4"}}
    control = {"table-def": {"columns": columns, "primary-key": ["email"]}}
    metadata = {"record-type": "control", "operation": "create-table", "schema-name": "public", "table-name": "people"}
    meaning = decode(
        Record("s", "0", "1", None, json.dumps({"control": control, "metadata": metadata}).encode()), context("dms")
    )
    assert isinstance(meaning, Ignored)
    assert meaning.schema
    assert meaning.schema.columns == {"email": "text", "ssn": "any", "name": "text", "id": "int"}


@pytest.mark.parametrize(
    ("stream", "kept"),
    [
        ("shop.public.plain", True), ("shop.public.people", False), ("public.plain", True), ("people", False),
        ("all-tables", False), ("shop.public.plain2", False), ("x.other.ruled", False), ("x.other.free", True),
    ],
)  # fmt: skip
def test_bytes_of_a_record_without_table_are_kept_by_stream(stream: str, kept: bool) -> None:  # noqa: FBT001
    tables = {"public.plain": TableContext("public.plain", ("id",)), TABLE: TableContext(TABLE, ("id",), rules=RULES)}
    others = frozenset({"other.ruled", "other.free"})
    settings = DecodeContext("debezium", tables, others, ruled_others=frozenset({"other.ruled", "left.out"}))
    assert may_keep_bytes(Reject("MALFORMED_JSON", ""), stream, settings) is kept
    assert not may_keep_bytes(Reject("MALFORMED_JSON", ""), stream, replace(settings, envelope="dms"))
    assert may_keep_bytes(Reject("NO_KEY", "", "public.plain"), stream, settings)
    assert not may_keep_bytes(Reject("NO_KEY", "", TABLE), stream, settings)
    assert not may_keep_bytes(Reject("OTHER_SOURCE", "", "other.ruled"), stream, settings)
    assert may_keep_bytes(Reject("OTHER_SOURCE", "", "other.free"), stream, settings)
